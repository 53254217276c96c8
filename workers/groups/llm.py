"""The group `llm`: from layers to descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from models.items import ComposeRequest
from strata.core import LAYERS, Chunk, Record, Status
from strata.core.parameters import metadata_fields
from strata.store import BrokenPart, Source
from workers.earlier import Earlier
from workers.groups.group import ModelGroup, reused, rows_before
from workers.groups.pipelines import TextPipeline
from workers.items import WorkItem, copy_of, decoded, moved


class LlmGroup(ModelGroup):
    """From layers to descriptions. Images are read again only if the profile's composer uses them."""

    name = "llm"
    most_pixels: int | None = None

    def items(self, chunk: Chunk) -> list[WorkItem]:
        profile = self.pipelines.profile(chunk)
        # of `vision`, the newest attempt counts, if it is at least as new as this one
        source = chunk.of_group("vision", profile.fingerprint("vision"))
        newest = self.store.newest(source)
        if newest is None:
            raise Source.of(source).broken("it is missing")
        items = [WorkItem(one, settled=one.status is not Status.SUCCEEDED) for one in self.store.read_records(newest)]
        # a retry takes the rows that succeeded from the attempt before, and the others from `vision`
        if before := rows_before(self.store, chunk):
            pairs = zip(items, before, strict=True)
            items = [reused(old) if old.status is Status.SUCCEEDED else item for item, old in pairs]
        # an upload has no earlier versions and no file beside it, and its record says where it lies
        if self.store.is_upload(chunk.shard):
            return items
        items = self._with_index(chunk, items)
        names = metadata_fields(profile.texts.prompt)
        return self.reader.with_metadata(chunk, items, profile, names) if names else items

    def _with_index(self, chunk: Chunk, items: list[WorkItem]) -> list[WorkItem]:
        """The items with what the shard's index tells: the descriptions of a folder's earlier versions, and places."""
        profile = self.pipelines.profile(chunk)
        try:
            # of a tar, whose records are all that is needed, only the footer is read
            if not self.needs_images(chunk) and not self.reader.has_families(chunk, profile):
                return items
            index = self.reader.index(chunk, profile)
        except BrokenPart:  # the records are all that is needed
            return items
        if not chunk.attempt and (earlier := self.earlier.of(chunk, index)):
            items = [_with_description(item, earlier, row) for row, item in enumerate(items)]
        if not self.needs_images(chunk):
            return items
        # `vision` may have read a copy of the shard that lies elsewhere
        pairs = zip(items, index.rows(chunk), strict=True)
        return [item if item.settled else moved(item, row.uri) for item, row in pairs]

    def needs_images(self, chunk: Chunk) -> bool:
        return self.pipelines.profile(chunk).sees_images(self.name)

    def decode(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        # `vision` has checked the number of pixels against the limit, and has noted it
        sizes = [(item.record.width or 0) * (item.record.height or 0) for item in items]
        return decoded(items, self.decoder, sizes)

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        pipeline, texts = cast(TextPipeline, self.pipelines.get(chunk)), self.pipelines.profile(chunk).texts
        return pipeline.run([ComposeRequest(one.record, one.image, metadata=one.metadata) for one in items], texts)


def _with_description(item: WorkItem, earlier: Earlier, row: int) -> WorkItem:
    """The item with the description that was composed before for the same image and the same layers."""
    if item.settled:
        return item
    # an earlier version of the program has not noted the SHA-256
    sha256, found = item.record.image.sha256, earlier.same(row)
    for one in [found] if found and found.image.sha256 == sha256 else earlier.alike(row):
        if one.image.sha256 == sha256 and one.status is Status.SUCCEEDED and _layers(one) == _layers(item.record):
            return reused(copy_of(one, item.record))
    return item


def _layers(record: Record) -> dict[str, Any]:
    """The layers that a description is composed from."""
    return {name: getattr(record, name) for name in LAYERS if name != "description"}
