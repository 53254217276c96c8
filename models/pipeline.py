"""The pipelines of the groups `vision` and `llm`: stages on one micro-batch, crops of all its images flattened.

The crops of every image go into one batch for the model and the answers are put back after: never a model call a
crop. What needs the CPU alone goes on beside the models: ocr, on which no stage waits, and the cutting out of
objects while captions and regions are made. The verifier's place is between the composer's text and the
description's sentences.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from models.base import CaptionRequest, Detection, Failure, Pair, ReadLine, Segment, Stage
from models.captioner import BACKENDS as CAPTIONERS
from models.composer import BACKENDS as COMPOSERS
from models.detector import BACKENDS as DETECTORS
from models.evidence import describe
from models.evidence_filter import keep
from models.matcher import BACKENDS as MATCHERS
from models.ocr import BACKENDS as OCRS
from models.segmenter import BACKENDS as SEGMENTERS
from strata.profiles import STAGES_OF, Profile
from strata.records import Box, Caption, Mask, ObjectMask, Record, Region, TextLine

BACKENDS: dict[str, dict[str, Any]] = {
    "captioner": CAPTIONERS,
    "detector": DETECTORS,
    "segmenter": SEGMENTERS,
    "ocr": OCRS,
    "matcher": MATCHERS,
    "composer": COMPOSERS,
}
Asked = list[tuple[list[Any], float]]  # for each image a stage's answers, Failure or not, and seconds


def build_stages(profile: Profile, group: str) -> dict[str, Stage[Any, Any]]:
    """The stages of a group, not yet loaded. Raises ValueError for a back end that does not exist."""
    stages: dict[str, Stage[Any, Any]] = {}
    for name in STAGES_OF[group]:
        settings = profile.stages[name]
        if settings.backend not in BACKENDS[name]:
            raise ValueError(f"{name} has no back end {settings.backend!r}, only {', '.join(BACKENDS[name])}")
        stages[name] = BACKENDS[name][settings.backend](settings)
    return stages


@dataclass
class Observed:
    """An image on its way through the vision group: what each stage has said so far, or its first failure."""

    record: Record
    image: Image.Image
    caption: str = ""
    detections: list[Detection] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    crops: list[Image.Image] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)
    lines: list[ReadLine] = field(default_factory=list)
    matches: list[float] = field(default_factory=list)
    failure: Failure | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class VisionPipeline:
    """Images to layers."""

    def __init__(self, profile: Profile) -> None:
        self.evidence = profile.evidence
        self.stages = build_stages(profile, "vision")

    def load(self) -> None:
        """Load every stage. Raises WeightsMissing."""
        for stage in self.stages.values():
            stage.load()

    def run(self, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        """Records with their layers, in order; a record whose image failed a stage is a failed one.

        Images are upright RGB. Raises StageUnavailable.
        """
        seen = [Observed(record, image) for record, image in batch]
        with ThreadPoolExecutor(2, thread_name_prefix="beside") as beside:
            reading = beside.submit(self._ask, "ocr", [[item.image] for item in seen])
            self._each(seen, "segmenter", "segments", lambda item: [item.image])
            cutting = beside.submit(_cut_out, seen)
            self._each(seen, "captioner", "caption", lambda item: [CaptionRequest(item.image)])
            self._each(seen, "detector", "detections", lambda item: [item.image])
            cutting.result()
            self._each(seen, "captioner", "phrases", lambda item: [CaptionRequest(crop, "crop") for crop in item.crops])
            self._each(seen, "matcher", "matches", _pairs)
        _put(seen, "ocr", "lines", reading.result())
        return [self._record(item) for item in seen]

    def _each(
        self, seen: list[Observed], name: str, attribute: str, items_of: Callable[[Observed], Sequence[Any]]
    ) -> None:
        """One stage over the items of all images that have not failed; answers go back to their image."""
        alive = [item for item in seen if item.failure is None]
        _put(alive, name, attribute, self._ask(name, [items_of(item) for item in alive]))

    def _ask(self, name: str, asked: Sequence[Sequence[Any]]) -> Asked:
        """One stage over the items of several images: for each image its answers, and its share of the seconds."""
        started = time.perf_counter()
        answers = iter(self.stages[name].run([entry for entries in asked for entry in entries]))
        share = (time.perf_counter() - started) / max(1, sum(map(len, asked)))
        return [([next(answers) for _ in entries], share * len(entries)) for entries in asked]

    def _record(self, item: Observed) -> Record:
        record = item.record.model_copy(update={"seconds": item.record.seconds | item.seconds})
        if item.failure is not None:
            return record.failed(item.failure.stage, item.failure.error_type, item.failure.detail)
        matches = iter(item.matches)
        layers = {
            "caption": Caption(text=item.caption, match=next(matches)),
            "regions": [
                Region(box=found.box, phrase=found.phrase, score=found.score, match=next(matches))
                for found in item.detections
            ],
            "objects": [
                ObjectMask(
                    box=segment.box,
                    mask=mask,
                    area=int(segment.mask.sum()),
                    phrase=phrase,
                    score=segment.score,
                    match=next(matches),
                )
                for segment, mask, phrase in zip(item.segments, item.masks, item.phrases, strict=True)
            ],
            "text": [TextLine(box=line.box, text=line.text, score=line.score) for line in item.lines],
        }
        return keep(record.model_copy(update=layers), self.evidence)


class LlmPipeline:
    """Layers to a description."""

    def __init__(self, profile: Profile) -> None:
        self.stages = build_stages(profile, "llm")

    def load(self) -> None:
        """Load every stage. Raises WeightsMissing."""
        for stage in self.stages.values():
            stage.load()

    def run(self, records: Sequence[Record]) -> list[Record]:
        """Records with their descriptions, in order. Raises StageUnavailable."""
        started = time.perf_counter()
        texts = self.stages["composer"].run(records)
        share = (time.perf_counter() - started) / max(1, len(records))
        return [self._record(record, text, share) for record, text in zip(records, texts, strict=True)]

    def _record(self, record: Record, text: str | Failure, seconds: float) -> Record:
        record = record.model_copy(update={"seconds": record.seconds | {"composer": seconds}})
        if isinstance(text, Failure):
            return record.failed(text.stage, text.error_type, text.detail)
        return record.model_copy(update={"description": describe(text, record)})


def crop_box(image: Image.Image, box: Box) -> Image.Image:
    """The box's pixels, at least 1×1."""
    return image.crop(_corners(image, box))


def crop_segment(image: Image.Image, segment: Segment) -> Image.Image:
    """The segment's box with everything outside of the mask painted white, as Monkey's data was made."""
    x1, y1, x2, y2 = corners = _corners(image, segment.box)
    inside = segment.mask[y1:y2, x1:x2, None]
    return Image.fromarray(np.where(inside, np.asarray(image.crop(corners)), np.uint8(255)))


def _corners(image: Image.Image, box: Box) -> tuple[int, int, int, int]:
    """The box in whole pixels of the image."""
    x1, y1 = min(int(box[0]), image.width - 1), min(int(box[1]), image.height - 1)
    return x1, y1, min(max(x1 + 1, round(box[2])), image.width), min(max(y1 + 1, round(box[3])), image.height)


def encode_mask(mask: NDArray[np.bool_]) -> Mask:
    """A bool mask (H, W) as COCO run-length encoding."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return Mask(size=mask.shape, counts=encoded["counts"].decode())


def _put(asked: Sequence[Observed], name: str, attribute: str, answers: Asked) -> None:
    """Note what a stage said of each image; the first failure of an image stays its failure."""
    for item, (own, seconds) in zip(asked, answers, strict=True):
        item.seconds[name] = item.seconds.get(name, 0.0) + seconds
        failure = next((answer for answer in own if isinstance(answer, Failure)), None)
        item.failure = item.failure or failure
        if failure is None:
            # a stage asked once about the whole image answers for the image, else entry by entry
            setattr(item, attribute, own if attribute in ("phrases", "matches") else own[0])


def _cut_out(seen: Sequence[Observed]) -> None:
    """Each segment's crop, which captioner and matcher see, and its encoded mask, which the record gets."""
    for item in seen:
        item.crops = [crop_segment(item.image, segment) for segment in item.segments]
        item.masks = [encode_mask(segment.mask) for segment in item.segments]


def _pairs(item: Observed) -> list[Pair]:
    pairs = [Pair(item.image, item.caption)]
    pairs += [Pair(crop_box(item.image, found.box), found.phrase) for found in item.detections]
    pairs += [Pair(crop, phrase) for crop, phrase in zip(item.crops, item.phrases, strict=True)]
    return pairs
