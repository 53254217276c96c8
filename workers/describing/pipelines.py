"""The loaded pipelines of one process, and images through both of them.

The images are decoded, checked by the profile's rules, and computed by the same code as in a worker. What a worker
leaves to the queue is decided here at once: an image that fails alone while others are computed is a failed record.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from models.base import StageBroken
from models.faults import ends_process, is_out_of_memory, reason_of, text_of
from models.items import MOST_PIXELS, PROBE_IMAGE, PROBE_RECORD, ComposeRequest
from models.pipeline import LlmPipeline, VisionPipeline
from strata.core import FINAL_GROUP, ImageReference, Profile, Record, Settings, Status
from strata.describing.images import ImageSource
from strata.errors import InvalidInput, plain_line
from strata.images import FULL_SIZE, DecodingPool, ImageError, pixels_of
from workers.describing.quiet import quiet_transformers
from workers.groups import PipelineCache, with_weights
from workers.items import WorkItem, decoded
from workers.micro_batches import OF_STAGES, PIXELS_TOGETHER
from workers.profile_versions import ProfileVersions

log = logging.getLogger(__name__)

DECODE_THREADS = 2  # as many as the pool has processes
Run = Callable[[Sequence[WorkItem]], list[Record]]


@dataclass
class _Image:
    """An image on its way. data: kept for a composer that sees the image in full size."""

    source: ImageSource
    item: WorkItem
    data: bytes | None = None
    pixels: int = 0


class LocalPipelines:
    """The pipelines of this process, and what decodes its images. Threads take turns with the models."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._profiles: dict[str, Profile] = {}  # the newest version by name: it may come from any file
        versions = ProfileVersions(self._profiles.__getitem__)
        self._vision = PipelineCache(with_weights(VisionPipeline, "vision"), versions)
        self._llm = PipelineCache(with_weights(LlmPipeline, FINAL_GROUP), versions)
        self._decoder = DecodingPool(settings.max_pixels)
        self._threads = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="describe")
        self._turn = threading.RLock()

    def load(self, profile: Profile) -> None:
        """Load both pipelines of a profile. Raises WeightsMissing, StageNotLoaded, StageBroken and InvalidInput."""
        with self._turn, quiet_transformers():
            self._profiles[profile.name] = profile
            try:
                self._vision.of(profile, "vision")
                self._llm.of(profile, "llm")
            except ValueError as error:  # settings that no back end can check without its packages
                raise InvalidInput(str(error)) from error

    def close(self) -> None:
        """Free the models and end the decoding processes."""
        with self._turn:
            self._threads.shutdown(cancel_futures=True)
            self._decoder.close()
            self._vision.drop_all()
            self._llm.drop_all()

    def each(self, sources: Iterator[ImageSource], profile: Profile) -> Iterator[tuple[ImageSource, Record]]:
        """Yield each image with its record, in order. Images are read and decoded one micro-batch ahead.

        Raises the errors of `load`, StageUnavailable and StageUnfit.
        """
        self.load(profile)
        decoding: list[_Image] = []
        for batch in self._batches(sources, profile):
            futures = [self._threads.submit(self._decode, image) for image in batch]
            yield from self._described(decoding, profile)
            for future in futures:
                future.result()
            decoding = batch
        yield from self._described(decoding, profile)

    def _batches(self, sources: Iterator[ImageSource], profile: Profile) -> Iterator[list[_Image]]:
        """Images that are computed together: a micro-batch of the profile, and no more pixels than a worker takes."""
        batch, total = list[_Image](), 0
        for source in sources:
            image = self._read(source, profile)
            if batch and (len(batch) == profile.micro_batch or total + image.pixels > PIXELS_TOGETHER):
                yield batch
                batch, total = [], 0
            batch.append(image)
            total += image.pixels
        if batch:
            yield batch

    def _read(self, source: ImageSource, profile: Profile) -> _Image:
        """The image with its bytes or pixels; one that cannot be read is settled as failed."""
        unread = Record(key=source.key, image=ImageReference(uri=source.key, size=0), alt_text=source.alt_text)
        try:
            read = source.read(self.settings)
        except ImageError as error:
            return _Image(source, WorkItem(unread.failed("decode", error.kind, error.detail), settled=True))
        except InvalidInput as error:
            return _Image(source, WorkItem(unread.failed("read", "not_an_image", str(error)), settled=True))
        except OSError as error:
            failed = unread.failed("read", type(error).__name__, plain_line(error), transient=True)
            return _Image(source, WorkItem(failed, settled=True))
        except Exception as error:  # an object of the caller's own, such as a file of another library
            return _Image(source, WorkItem(unread.failed("read", type(error).__name__, reason_of(error)), settled=True))
        record = Record(key=read.key, image=read.reference, alt_text=source.alt_text)
        if read.pixels is not None:
            width, height = read.pixels.size
            record = profile.rules.applied(record.model_copy(update={"width": width, "height": height}))
            settled = record.status is not Status.SUCCEEDED
            return _Image(source, WorkItem(record, image=read.pixels, settled=settled), pixels=width * height)
        data = read.data or b""
        record = profile.rules.applied(record)
        item = WorkItem(record, data=data, rules=profile.rules, settled=record.status is not Status.SUCCEEDED)
        return _Image(source, item, data, min(pixels_of(data), MOST_PIXELS))

    def _decode(self, image: _Image) -> None:
        # an item with pixels has no bytes, and is left as it is
        (image.item,) = decoded([image.item], self._decoder, most=MOST_PIXELS)

    def _described(self, images: list[_Image], profile: Profile) -> list[tuple[ImageSource, Record]]:
        """The records of a micro-batch through both groups."""
        with self._turn, quiet_transformers():
            vision, llm = self._vision.of(profile, "vision"), self._llm.of(profile, FINAL_GROUP)
            self._compute("vision", images, lambda items: vision.run([(one.record, one.image) for one in items]))
            if profile.sees_images(FINAL_GROUP):
                for image in images:
                    self._restore_full_size(image)
            texts = profile.texts
            compose: Any = llm.run
            self._compute(
                FINAL_GROUP,
                images,
                lambda items: compose([ComposeRequest(one.record, one.image) for one in items], texts),
            )
        origin = {"profile": profile.name, "fingerprint": profile.fingerprint(FINAL_GROUP)}
        return [(image.source, image.item.record.model_copy(update=origin)) for image in images]

    def _restore_full_size(self, image: _Image) -> None:
        """Decode an image that was shrunk once more: a composer sees it in full size, as in a worker."""
        pixels = image.item.image
        if pixels is not None and FULL_SIZE in pixels.info and image.data is not None:
            image.item = replace(image.item, image=self._decoder.decode(image.data))

    def _compute(self, group: str, images: Sequence[_Image], run: Run) -> None:
        """Compute the images that are not settled, and settle those that fail."""
        waiting = [image for image in images if not image.item.settled]
        if not waiting:
            return
        for image, record in zip(waiting, _records(group, [one.item for one in waiting], run), strict=True):
            settled = record.status is not Status.SUCCEEDED
            image.item = replace(image.item, record=record, settled=settled)


def _records(group: str, items: Sequence[WorkItem], run: Run) -> list[Record]:
    """The records of items; if they fail together outside of the stages, one by one.

    An item that fails alone is a failed record if the group still computes another one, or else the probe. Raises
    OF_STAGES; StageBroken if nothing can be computed.
    """
    try:
        return _run_judged(group, items, run)
    except StageBroken as error:
        if not error.memory:
            raise
        log.warning("%d images together find too little memory, they are computed one by one", len(items))
    except _Unexpected as error:
        log.warning("%d images failed together, they are computed one by one: %s", len(items), error)
    found: list[Record] = []
    for item in items:
        try:
            found += _run_judged(group, [item], run)
        except StageBroken as error:
            if not error.memory:
                raise
            found.append(item.record.failed(group, "OutOfMemoryError", error.reason, transient=True))
        except _Unexpected as error:
            found.append(item.record.failed(group, error.error_type, error.detail))
    if all(record.status is Status.FAILED for record in found):
        try:
            _run_judged(group, [WorkItem(PROBE_RECORD, image=PROBE_IMAGE)], run)
        except _Unexpected as error:
            raise StageBroken(group, f"a test image fails too: {error}") from error
    return found


class _Unexpected(Exception):
    """An error outside of the stages that may be an image's fault."""

    def __init__(self, error: Exception) -> None:
        super().__init__(reason_of(error))
        self.error_type, self.detail = type(error).__name__, text_of(error)


def _run_judged(group: str, items: Sequence[WorkItem], run: Run) -> list[Record]:
    """Run a pipeline. Raises OF_STAGES, StageBroken if the process can compute nothing more, and _Unexpected."""
    try:
        records = run(items)
        if len(records) != len(items):
            raise RuntimeError(f"{len(records)} records for {len(items)} images")
    except OF_STAGES:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise StageBroken(group, reason_of(error), memory=True) from error
        if ends_process(error):
            raise StageBroken(group, reason_of(error)) from error
        raise _Unexpected(error) from error
    return records
