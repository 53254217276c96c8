"""The groups: how a chunk of `index`, `vision` or `llm` is opened and computed.

A group sees the store and the sources, never the queue; the runner sees the queue, never a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import pyarrow as pa
from PIL import Image

from strata.core.chunks import Chunk
from strata.core.images import ImageError, decode
from strata.core.profiles import Profile, ProfileError
from strata.core.records import ImageReference, Record, Status
from strata.core.rules import Rules
from strata.core.usage import Usage
from strata.shards.sources import IndexRow, SourceError, read_images, verify_unchanged
from strata.store.store import Store
from workers.accounts import Meter


@dataclass
class Item:
    """One image of a chunk on its way through a group: its record, and its bytes or pixels where needed.

    settled: the record is final for this group; there is nothing to compute. rules: of the profile, for images whose
    size is not known yet.
    """

    record: Record
    data: bytes | None = None
    image: Image.Image | None = None
    settled: bool = False
    rules: Rules = field(default_factory=Rules)


class Pipeline(Protocol):
    """What the runner needs of a group's models."""

    def load(self) -> None: ...

    def run(self, batch: Sequence[Any]) -> list[Record]: ...


class PaidPipeline(Pipeline, Protocol):
    """What is asked of it besides where some of its stages ask servers."""

    def bound(self, record: Record) -> Mapping[str, tuple[Usage, Usage]]: ...


class PipelineCache:
    """The loaded pipelines of a group, one a profile. `build` makes one from a profile, not yet loaded."""

    def __init__(self, build: Callable[[Profile], Pipeline], profiles: Callable[[str], Profile]) -> None:
        self._build, self.profile_of = build, profiles
        self._loaded: dict[str, Pipeline] = {}

    def get(self, group: str, name: str, fingerprint: str | None = None) -> Pipeline:
        """The pipeline of a profile, loaded on first use.

        Raises ProfileError as `checked` does, and WeightsMissing.
        """
        profile = self.checked(group, name, fingerprint)
        own = profile.fingerprint(group)
        if own not in self._loaded:
            pipeline = self._build(profile)
            pipeline.load()
            self._loaded[own] = pipeline
        return self._loaded[own]

    def checked(self, group: str, name: str, fingerprint: str | None = None) -> Profile:
        """This machine's profile of a name. Raises ProfileError if the fingerprint was made of another."""
        profile = self.profile_of(name)
        own = profile.fingerprint(group)
        if fingerprint not in (None, own):
            raise ProfileError(f"profile {name!r} is {own} here and {fingerprint} in the job: versions differ")
        return profile

    def meter(self, group: str, name: str, fingerprint: str) -> Meter | None:
        """What a profile's stages that ask servers cost; None if there are none. Its use raises as `get` does."""
        profile = self.profile_of(name)
        if not profile.paid(group):
            return None
        return Meter(
            profile, group, lambda record: cast(PaidPipeline, self.get(group, name, fingerprint)).bound(record)
        )


class Group(Protocol):
    """One group's work on a chunk, in steps: its items, what they lack, decode, compute."""

    name: str

    def load(self, profile: str) -> None:
        """Load the models of a profile ahead of work."""

    def items(self, chunk: Chunk) -> list[Item]:
        """The chunk's items, nothing of their images read yet. Raises OSError, and ProfileError."""

    def read(self, chunk: Chunk, items: Sequence[Item]) -> list[Item]:
        """The items with their bytes; one that cannot be read is settled as failed."""

    def decode(self, item: Item) -> Item:
        """CPU work on one image that needs no model; called in threads."""

    def compute(self, chunk: Chunk, items: Sequence[Item]) -> list[Record]:
        """The records of a micro-batch of unsettled items, in order; chunk tells profile and fingerprint."""

    def meter(self, chunk: Chunk) -> Meter | None:
        """What the group's stages that ask servers cost; None if there are none."""


class VisionGroup:
    """Images to layers."""

    name = "vision"

    def __init__(self, store: Store, pipelines: PipelineCache, max_pixels: int) -> None:
        self.store, self.pipelines, self.max_pixels = store, pipelines, max_pixels
        self._index: tuple[Chunk, pa.Table] | None = None

    def load(self, profile: str) -> None:
        self.pipelines.get(self.name, profile)

    def items(self, chunk: Chunk) -> list[Item]:
        rules = self.pipelines.checked(self.name, chunk.profile, chunk.fingerprint).rules
        if chunk.attempt:  # the rows that failed are tried again, the others stay
            before = self.store.read_records(chunk.before())
            failed = [record.status is Status.FAILED for record in before]
        else:
            before, failed = [], [True] * chunk.images
        rows = self._rows(chunk)
        return [
            _item(row, rules) if again else Item(before[n], settled=True)
            for n, (row, again) in enumerate(zip(rows, failed, strict=True))
        ]

    def _rows(self, chunk: Chunk) -> list[IndexRow]:
        # a shard's index has one part whatever the profile: the fingerprint of `index` knows no stage
        profile = self.pipelines.profile_of(chunk.profile)
        index = Chunk("index", chunk.profile, profile.fingerprint("index"), chunk.shard, chunk.identity)
        known = self._index
        if known is None or known[0] != index:  # consecutive chunks are of one shard
            known = self._index = index, self.store.read_index(index)[0]
        start = chunk.number * profile.chunk_size
        return [IndexRow(**row) for row in known[1].slice(start, chunk.images).to_pylist()]

    def read(self, chunk: Chunk, items: Sequence[Item]) -> list[Item]:
        return _read(self.store, chunk, items)

    def decode(self, item: Item) -> Item:
        return _decoded(item, self.max_pixels)

    def compute(self, chunk: Chunk, items: Sequence[Item]) -> list[Record]:
        pipeline = self.pipelines.get(self.name, chunk.profile, chunk.fingerprint)
        return pipeline.run([(item.record, item.image) for item in items])

    def meter(self, chunk: Chunk) -> Meter | None:
        return self.pipelines.meter(self.name, chunk.profile, chunk.fingerprint)


class LlmGroup:
    """Layers to descriptions. The images are read again only where the profile's composer looks at them."""

    name = "llm"

    def __init__(self, store: Store, pipelines: PipelineCache) -> None:
        self.store, self.pipelines = store, pipelines

    def load(self, profile: str) -> None:
        self.pipelines.get(self.name, profile)

    def items(self, chunk: Chunk) -> list[Item]:
        vision = self.pipelines.profile_of(chunk.profile).fingerprint("vision")
        records = self.store.read_records(chunk.of_group("vision", vision))
        if chunk.attempt:
            before = self.store.read_records(chunk.before())
            records = [old if old.status is Status.SUCCEEDED else new for old, new in zip(before, records, strict=True)]
        return [Item(one, settled=one.status is not Status.SUCCEEDED or one.description is not None) for one in records]

    def read(self, chunk: Chunk, items: Sequence[Item]) -> list[Item]:
        return _read(self.store, chunk, items) if self._sees_images(chunk) else list(items)

    def decode(self, item: Item) -> Item:
        size = (item.record.width or 0) * (item.record.height or 0)  # `vision` let so many pixels pass
        return _decoded(item, size)

    def compute(self, chunk: Chunk, items: Sequence[Item]) -> list[Record]:
        pipeline = self.pipelines.get(self.name, chunk.profile, chunk.fingerprint)
        if self._sees_images(chunk):
            return pipeline.run([(item.record, item.image) for item in items])
        return pipeline.run([item.record for item in items])

    def meter(self, chunk: Chunk) -> Meter | None:
        return self.pipelines.meter(self.name, chunk.profile, chunk.fingerprint)

    def _sees_images(self, chunk: Chunk) -> bool:
        return self.pipelines.profile_of(chunk.profile).sees_images(self.name)


def _item(row: IndexRow, rules: Rules) -> Item:
    record = Record(
        key=row.key,
        image=ImageReference(uri=row.uri, offset=row.offset, size=row.size),
        alt_text=row.alt_text,
    )
    if row.error is not None:
        return Item(record.failed("index", "bad_sample", row.error), settled=True)
    return _ruled(Item(record, rules=rules))


def _ruled(item: Item) -> Item:
    """The item, settled if a rule rejects what is known of its image so far."""
    record = item.rules.applied(item.record)
    return Item(record, settled=True) if record.status is Status.FILTERED else item


def _read(store: Store, chunk: Chunk, items: Sequence[Item]) -> list[Item]:
    wanted = [item.record.image for item in items if not item.settled]
    try:
        if wanted and not store.is_upload(chunk.shard):
            verify_unchanged(chunk.shard, chunk.identity)
        answers = iter(read_images(wanted))
    except SourceError as error:  # the bytes at these offsets are other images, or none
        answers = iter([error] * len(wanted))
    return [item if item.settled else _with_bytes(item, next(answers)) for item in items]


def _decoded(item: Item, max_pixels: int) -> Item:
    """The item with its pixels; one without bytes stays as it is."""
    if item.settled or item.data is None:
        return item
    try:
        image = decode(item.data, max_pixels)
    except ImageError as error:
        return Item(item.record.failed("decode", error.kind, error.detail), settled=True)
    record = item.record.model_copy(update={"width": image.width, "height": image.height})
    return _ruled(Item(record, image=image, rules=item.rules))


def _with_bytes(item: Item, data: bytes | Exception) -> Item:
    if isinstance(data, Exception):
        return Item(item.record.failed("read", type(data).__name__, str(data)), settled=True)
    return Item(item.record, data=data, rules=item.rules)
