"""The groups: how a chunk of `index`, `vision` or `llm` is opened and computed.

A group sees the store and the sources, never the queue; the runner sees the queue, never a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from strata.chunks import Chunk
from strata.images import ImageError, decode
from strata.profiles import Profile, ProfileError
from strata.records import ImageReference, Record, Status
from strata.sources import IndexRow, read_images
from strata.store import Store


@dataclass
class Item:
    """One image of a chunk on its way through a group: its record, and its bytes or pixels where needed."""

    record: Record
    data: bytes | None = None
    image: Image.Image | None = None


class Pipeline(Protocol):
    """What the runner needs of a group's models."""

    def load(self) -> None: ...

    def run(self, batch: Sequence[Any]) -> list[Record]: ...


class PipelineCache:
    """The loaded pipelines of a group, one a profile. `build` makes one from a profile, not yet loaded."""

    def __init__(self, build: Callable[[Profile], Pipeline], profiles: Callable[[str], Profile]) -> None:
        self._build, self.profile_of = build, profiles
        self._loaded: dict[str, Pipeline] = {}

    def get(self, group: str, name: str, fingerprint: str | None = None) -> Pipeline:
        """The pipeline of a profile, loaded on first use.

        Raises ProfileError if this machine's profile is not the one that the fingerprint was made of, and
        WeightsMissing.
        """
        profile = self.profile_of(name)
        own = profile.fingerprint(group)
        if fingerprint not in (None, own):
            raise ProfileError(f"profile {name!r} is {own} here and {fingerprint} in the job: versions differ")
        if own not in self._loaded:
            pipeline = self._build(profile)
            pipeline.load()
            self._loaded[own] = pipeline
        return self._loaded[own]


class Group(Protocol):
    """One group's work on a chunk, in three steps: read what it needs, decode, compute."""

    name: str

    def load(self, profile: str) -> None:
        """Load the models of a profile ahead of work."""

    def open(self, chunk: Chunk) -> list[Item]:
        """Read what the chunk needs from store and sources; an image that cannot be read is a failed item."""

    def decode(self, item: Item) -> Item:
        """CPU work on one image that needs no model; called in threads."""

    def compute(self, chunk: Chunk, items: Sequence[Item]) -> list[Record]:
        """The records of a micro-batch, in order; chunk tells profile and fingerprint."""


class VisionGroup:
    """Images to layers."""

    name = "vision"

    def __init__(self, store: Store, pipelines: PipelineCache, max_pixels: int) -> None:
        self.store, self.pipelines, self.max_pixels = store, pipelines, max_pixels

    def load(self, profile: str) -> None:
        self.pipelines.get(self.name, profile)

    def open(self, chunk: Chunk) -> list[Item]:
        rows = self._rows(chunk)
        return [_item(row, data) for row, data in zip(rows, read_images(rows), strict=True)]

    def _rows(self, chunk: Chunk) -> list[IndexRow]:
        # a shard's index has one part whatever the profile: the fingerprint of `index` knows no stage
        profile = self.pipelines.profile_of(chunk.profile)
        index = Chunk("index", chunk.profile, profile.fingerprint("index"), chunk.shard, chunk.identity)
        table, _ = self.store.read_index(index)
        start = chunk.number * profile.chunk_size
        return [IndexRow(**row) for row in table.slice(start, chunk.images).to_pylist()]

    def decode(self, item: Item) -> Item:
        if item.data is None:
            return item
        try:
            image = decode(item.data, self.max_pixels)
        except ImageError as error:
            return Item(item.record.failed("decode", error.kind, error.detail))
        record = item.record.model_copy(update={"width": image.width, "height": image.height})
        return Item(record, image=image)

    def compute(self, chunk: Chunk, items: Sequence[Item]) -> list[Record]:
        pipeline = self.pipelines.get(self.name, chunk.profile, chunk.fingerprint)
        whole = [(item.record, item.image) for item in items if item.image is not None]
        done = iter(pipeline.run(whole) if whole else ())
        return [item.record if item.image is None else next(done) for item in items]


class LlmGroup:
    """Layers to descriptions."""

    name = "llm"

    def __init__(self, store: Store, pipelines: PipelineCache) -> None:
        self.store, self.pipelines = store, pipelines

    def load(self, profile: str) -> None:
        self.pipelines.get(self.name, profile)

    def open(self, chunk: Chunk) -> list[Item]:
        vision = self.pipelines.profile_of(chunk.profile).fingerprint("vision")
        return [Item(record) for record in self.store.read_records(chunk.of_group("vision", vision))]

    def decode(self, item: Item) -> Item:
        return item

    def compute(self, chunk: Chunk, items: Sequence[Item]) -> list[Record]:
        pipeline = self.pipelines.get(self.name, chunk.profile, chunk.fingerprint)
        alive = [item.record for item in items if item.record.status is Status.SUCCEEDED]
        done = iter(pipeline.run(alive) if alive else ())
        return [next(done) if item.record.status is Status.SUCCEEDED else item.record for item in items]


def _item(row: IndexRow, data: bytes | Exception) -> Item:
    image = ImageReference(uri=row.uri, offset=row.offset, size=row.size)
    record = Record(key=row.key, image=image, alt_text=row.alt_text)
    if row.error:
        return Item(record.failed("index", "bad_sample", row.error))
    if isinstance(data, Exception):
        return Item(record.failed("read", type(data).__name__, str(data)))
    return Item(record, data=data)
