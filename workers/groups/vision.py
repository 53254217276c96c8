"""The group `vision`: from images to layers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from models.items import MOST_PIXELS
from strata.core import Chunk, Record, Status
from strata.images import DecodingPool
from strata.store import READERS, Store
from workers.earlier import Earlier
from workers.groups.group import ModelGroup, reused, rows_before
from workers.groups.pipelines import PipelineCache
from workers.items import WorkItem, copy_of, decoded, item_of


class VisionGroup(ModelGroup):
    """From images to layers."""

    name = "vision"
    most_pixels: int | None = MOST_PIXELS

    def __init__(self, store: Store, pipelines: PipelineCache, decoder: DecodingPool) -> None:
        super().__init__(store, pipelines, decoder)
        self._uploads = ThreadPoolExecutor(READERS, thread_name_prefix="uploads")

    def load(self, profile: str) -> None:
        self.decoder.start()  # what its processes are forked from imports while the models load
        super().load(profile)

    def items(self, chunk: Chunk) -> list[WorkItem]:
        profile = self.pipelines.profile(chunk)
        # read an upload while its index is read: it is a whole file, so that its place need not be looked up
        ahead = self._uploads.submit(self._upload, chunk.shard) if self.store.is_upload(chunk.shard) else None
        index = self.reader.index(chunk, profile)
        items = [item_of(row, profile.rules) for row in index.rows(chunk)]
        if before := rows_before(self.store, chunk):
            # a retry computes the failed rows only, and copies the others from the attempt before
            pairs = zip(items, before, strict=True)
            items = [item if old.status is Status.FAILED else reused(old) for item, old in pairs]
        elif earlier := self.earlier.of(chunk, index):
            # so does a new version of a folder: it copies the rows of images that have not changed
            items = [_with_earlier(item, earlier, row) for row, item in enumerate(items)]
        data = ahead.result() if ahead is not None else None
        # an upload of another size is not the image: `read` reports it
        return [
            item if data is None or item.settled or len(data) != item.record.image.size else replace(item, data=data)
            for item in items
        ]

    def _upload(self, uri: str) -> bytes | None:
        """The bytes of an upload; None if they cannot be read now: `read` tries once more, and tells why it cannot."""
        with suppress(OSError):
            return self.store.read_upload(uri)
        return None

    def needs_images(self, chunk: Chunk) -> bool:
        return True

    def decode(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        # the stages see no more pixels: to shrink the image where it is decoded saves the memory of the others
        return decoded(items, self.decoder, most=self.most_pixels)

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        pipeline = self.pipelines.get(chunk)
        return pipeline.run([(item.record, item.image) for item in items])


def _with_earlier(item: WorkItem, earlier: Earlier, row: int) -> WorkItem:
    """The item as a copy of its image's earlier row; else with the rows that may be its image's, if the bytes agree."""
    if item.settled:
        return item
    # the version of a local file was compared when it was read, and what lies in a tar of one identity is the same; of
    # others only the bytes tell
    image = item.record.image
    found = None if "://" in image.uri and not image.offset else earlier.same(row)
    return replace(item, candidates=earlier.alike(row)) if found is None else reused(copy_of(found, item.record))
