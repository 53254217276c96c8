"""The groups `vision` and `llm`: how their chunks are read, decoded and computed.

A group uses the store and the sources, never the queue; the runner uses the queue, never a model.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import pyarrow as pa
from PIL import Image

from models.base import Stage, StageNotLoaded
from models.faults import free_memory
from strata.core import Chunk, ImageError, ImageReference, Profile, Record, Rules, Status, Usage, decode
from strata.shards import SourceError, read_images, verify_unchanged
from strata.store import READERS, IndexRow, Source, Store, is_transient, reason_of
from workers.accounts import Meter
from workers.profile_versions import ProfileVersions

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0  # without use, after which the models of a profile's earlier version are dropped


@dataclass
class WorkItem:
    """One image of a chunk while a group processes it: its record, and its bytes or pixels where the group needs them.

    settled: the record is final for this group, so that nothing has to be computed. rules: those of the profile, which
    are checked again when the image's size is known.
    """

    record: Record
    data: bytes | None = None
    image: Image.Image | None = None
    settled: bool = False
    rules: Rules = field(default_factory=Rules)


class Pipeline(Protocol):
    """A group's models: load them once, then turn items into records. Items are records, or pairs with an image.

    stages: by name.
    """

    stages: dict[str, Stage[Any, Any]]

    def load(self) -> None: ...

    def run(self, batch: Sequence[Any]) -> list[Record]: ...


class PaidPipeline(Pipeline, Protocol):
    """A pipeline of which some stages ask servers: it also knows the upper bounds of their usage."""

    def bound(self, record: Record) -> Mapping[str, tuple[Usage, Usage]]: ...


@dataclass
class _Loaded:
    """A loaded pipeline, the profile that it was built from, and when it was last used, in seconds of the clock."""

    pipeline: Pipeline
    profile: Profile
    used: float


class PipelineCache:
    """The loaded pipelines of a group, one for each profile. build: makes a pipeline that is not loaded yet.

    If memory lacks while a pipeline is loaded or computes, those that are not in use are dropped, the least recently
    used first. The pipeline of an earlier version of a profile is dropped when it was not used for IDLE_SECONDS.
    """

    def __init__(self, build: Callable[[Profile], Pipeline], profiles: ProfileVersions) -> None:
        self._build, self.profiles = build, profiles
        self._loaded: dict[str, _Loaded] = {}  # by fingerprint, the most recently used last

    def load(self, group: str, name: str) -> None:
        """Load the newest version of a profile. Raises the errors of `get`, and ValueError for its settings."""
        self._pipeline(self.profiles.newest(name), group)

    def get(self, chunk: Chunk) -> Pipeline:
        """The pipeline of a chunk's profile, loaded on first use.

        Raises ProfileError, WeightsMissing, StageNotLoaded and StageBroken.
        """
        try:
            return self._pipeline(self.profile(chunk), chunk.group)
        except ValueError as error:
            raise StageNotLoaded(chunk.profile, error) from error

    def profile(self, chunk: Chunk) -> Profile:
        """The version of a chunk's profile that the chunk was made with. Raises ProfileError if it is unknown."""
        return self.profiles.of(chunk.profile, chunk.group, chunk.fingerprint)

    def _pipeline(self, profile: Profile, group: str) -> Pipeline:
        fingerprint = profile.fingerprint(group)
        loaded = self._loaded.pop(fingerprint, None)
        if loaded is None:
            loaded = _Loaded(self._load(profile, fingerprint), profile, 0.0)
        # put it at the end
        self._loaded[fingerprint] = loaded
        loaded.used = time.monotonic()
        if len(self._loaded) > 1:
            self._drop_earlier_versions(group)
        return loaded.pipeline

    def _load(self, profile: Profile, fingerprint: str) -> Pipeline:
        """Build and load a pipeline; while memory lacks, drop the least recently used one and try again."""
        while True:
            try:
                pipeline = self._build(profile)
                pipeline.load()
                break
            except StageNotLoaded as error:
                if not (error.memory and self._loaded):
                    raise
            # not in the except clause: there the error's frames still reference the models
            self._drop(next(iter(self._loaded)))
        # a stage that lacks memory later gets the place of all other pipelines
        for stage in pipeline.stages.values():
            stage.make_room = functools.partial(self._drop_others, fingerprint)
        return pipeline

    def _drop_others(self, fingerprint: str) -> None:
        for other in [one for one in self._loaded if one != fingerprint]:
            self._drop(other)
        free_memory()

    def _drop_earlier_versions(self, group: str) -> None:
        """Drop the pipelines of earlier versions of profiles that are no longer used."""
        idle_since = time.monotonic() - IDLE_SECONDS
        newest = {one.profile.name: self.profiles.newest(one.profile.name) for one in self._loaded.values()}
        current = {profile.fingerprint(group) for profile in newest.values()}
        for fingerprint in [name for name, one in self._loaded.items() if one.used < idle_since]:
            if fingerprint not in current:
                self._drop(fingerprint)

    def _drop(self, fingerprint: str) -> None:
        # two stages that compute at the same time may lack memory at the same time
        loaded = self._loaded.pop(fingerprint, None)
        if loaded is not None:
            log.info("the models of profile %s (%s) are dropped", loaded.profile.name, fingerprint)
        del loaded
        free_memory()

    def meter(self, chunk: Chunk) -> Meter | None:
        """The meter of a profile's stages that ask servers; None if there are none. Using it raises as `get` does."""
        profile = self.profile(chunk)
        if not profile.paid(chunk.group):
            return None
        return Meter(profile, chunk.group, lambda record: cast(PaidPipeline, self.get(chunk)).bound(record))


class Group(Protocol):
    """One group's work on a chunk, in steps: list its items, read their bytes, decode them, compute their records."""

    name: str

    def load(self, profile: str) -> None:
        """Load the models of a profile before the first chunk comes."""

    def items(self, chunk: Chunk) -> list[WorkItem]:
        """The chunk's items; most have no bytes of their images yet. Raises OSError and ProfileError."""

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        """The items with their bytes. An item that cannot be read is settled as failed.

        Raises OSError if a later attempt may succeed.
        """

    def decode(self, item: WorkItem) -> WorkItem:
        """The item with decoded pixels. It needs no model, and is called in threads."""

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        """The records of a micro-batch of unsettled items, in order, with the chunk's profile and fingerprint."""

    def meter(self, chunk: Chunk) -> Meter | None:
        """The meter of the group's stages that ask servers; None if there are none."""


class VisionGroup:
    """From images to layers."""

    name = "vision"

    def __init__(self, store: Store, pipelines: PipelineCache, max_pixels: int) -> None:
        self.store, self.pipelines, self.max_pixels = store, pipelines, max_pixels
        self._index: tuple[Chunk, pa.Table] | None = None
        self._uploads = ThreadPoolExecutor(READERS, thread_name_prefix="uploads")

    def load(self, profile: str) -> None:
        self.pipelines.load(self.name, profile)

    def items(self, chunk: Chunk) -> list[WorkItem]:
        rules = self.pipelines.profile(chunk).rules
        # read an upload while its index is read: it is a whole file, so that its place need not be looked up
        ahead = self._uploads.submit(self._upload, chunk.shard) if self.store.is_upload(chunk.shard) else None
        # a retry computes the failed rows only, and copies the others from the attempt before
        before = _before(self.store, chunk)
        failed = [record.status is Status.FAILED for record in before] or [True] * chunk.images
        rows = self._rows(chunk)
        items = [
            _item(row, rules) if compute else WorkItem(before[index], settled=True)
            for index, (row, compute) in enumerate(zip(rows, failed, strict=True))
        ]
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

    def _rows(self, chunk: Chunk) -> list[IndexRow]:
        """The chunk's rows of its shard's index."""
        # the fingerprint of `index` is the same for all profiles, so a shard has one index part
        profile = self.pipelines.profile(chunk)
        index = Chunk("index", chunk.profile, profile.fingerprint("index"), chunk.shard, chunk.identity)
        if self.store.is_upload(chunk.shard):
            return [IndexRow(**row) for row in self.store.read_index(index)[0].to_pylist()]
        # keep the index that was read last: consecutive chunks are mostly of one shard
        cached = self._index
        if cached is None or cached[0] != index:
            try:
                cached = self._index = index, self.store.read_index(index)[0]
            except FileNotFoundError as error:
                raise Source.of(index).broken("it is missing") from error
        start = chunk.number * profile.chunk_size
        return [IndexRow(**row) for row in cached[1].slice(start, chunk.images).to_pylist()]

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        return _read(self.store, chunk, items)

    def decode(self, item: WorkItem) -> WorkItem:
        return _decoded(item, self.max_pixels)

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        pipeline = self.pipelines.get(chunk)
        return pipeline.run([(item.record, item.image) for item in items])

    def meter(self, chunk: Chunk) -> Meter | None:
        return self.pipelines.meter(chunk)


class LlmGroup:
    """From layers to descriptions. Images are read again only if the profile's composer uses them."""

    name = "llm"

    def __init__(self, store: Store, pipelines: PipelineCache) -> None:
        self.store, self.pipelines = store, pipelines

    def load(self, profile: str) -> None:
        self.pipelines.load(self.name, profile)

    def items(self, chunk: Chunk) -> list[WorkItem]:
        vision = self.pipelines.profile(chunk).fingerprint("vision")
        # of `vision`, the newest attempt counts, if it is at least as new as this one
        source = chunk.of_group("vision", vision)
        newest = self.store.newest(source)
        if newest is None:
            raise Source.of(source).broken("it is missing")
        records = self.store.read_records(newest)
        # a retry takes the rows that succeeded from the attempt before, and the others from `vision`
        if before := _before(self.store, chunk):
            records = [old if old.status is Status.SUCCEEDED else new for old, new in zip(before, records, strict=True)]
        return [
            WorkItem(one, settled=one.status is not Status.SUCCEEDED or one.description is not None) for one in records
        ]

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        return _read(self.store, chunk, items) if self._sees_images(chunk) else list(items)

    def decode(self, item: WorkItem) -> WorkItem:
        # `vision` has checked the number of pixels against the limit, and has noted it
        size = (item.record.width or 0) * (item.record.height or 0)
        return _decoded(item, size)

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        pipeline = self.pipelines.get(chunk)
        if self._sees_images(chunk):
            return pipeline.run([(item.record, item.image) for item in items])
        return pipeline.run([item.record for item in items])

    def meter(self, chunk: Chunk) -> Meter | None:
        return self.pipelines.meter(chunk)

    def _sees_images(self, chunk: Chunk) -> bool:
        return self.pipelines.profile(chunk).sees_images(self.name)


def _before(store: Store, chunk: Chunk) -> list[Record]:
    """The records of the newest attempt before a retry's; empty if there is none."""
    earlier = store.attempts_before(chunk) if chunk.attempt else []
    return store.read_records(earlier[0]) if earlier else []


def _item(row: IndexRow, rules: Rules) -> WorkItem:
    """The item of an index row; a sample that cannot be used is settled as failed, a rejected one as filtered."""
    record = Record(
        key=row.key,
        image=ImageReference(uri=row.uri, offset=row.offset, size=row.size),
        alt_text=row.alt_text,
    )
    if row.error is not None:
        return WorkItem(record.failed("index", "bad_sample", row.error), settled=True)
    return _ruled(WorkItem(record, rules=rules))


def _ruled(item: WorkItem) -> WorkItem:
    """The item, settled as filtered if a rule rejects what is known of its image so far."""
    record = item.rules.applied(item.record)
    return WorkItem(record, settled=True) if record.status is Status.FILTERED else item


def _read(store: Store, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
    """The items with their images' bytes; an item whose image cannot be read is settled as failed.

    Raises OSError if the storage is the cause, so that a later attempt may succeed.
    """
    wanted = [item.record.image for item in items if not item.settled and item.data is None]
    try:
        # compare the shard with its index first: in a changed shard other images lie at these offsets
        if wanted and not store.is_upload(chunk.shard):
            verify_unchanged(chunk.shard, chunk.identity)
        results = read_images(wanted)
    except SourceError as error:
        results = [error] * len(wanted)
    # an image that cannot be read now is not an image that cannot be read: the caller waits and reads again
    for row, result in zip(wanted, results, strict=True):
        if isinstance(result, Exception) and is_transient(result):
            raise OSError(f"{row.uri} cannot be read: {type(result).__name__}: {reason_of(result)}") from result
    remaining = iter(results)
    return [item if item.settled or item.data is not None else _with_bytes(item, next(remaining)) for item in items]


def _decoded(item: WorkItem, max_pixels: int) -> WorkItem:
    """The item with its pixels; an item without bytes is left as it is."""
    if item.settled or item.data is None:
        return item
    try:
        image = decode(item.data, max_pixels)
    except ImageError as error:
        return WorkItem(item.record.failed("decode", error.kind, error.detail), settled=True)
    # note the size, which later groups need without decoding
    record = item.record.model_copy(update={"width": image.width, "height": image.height})
    return _ruled(WorkItem(record, image=image, rules=item.rules))


def _with_bytes(item: WorkItem, data: bytes | Exception) -> WorkItem:
    if isinstance(data, Exception):
        # the image itself was not seen, so that another reading may succeed
        note = item.record.failed("read", type(data).__name__, reason_of(data), transient=True)
        return WorkItem(note, settled=True)
    return WorkItem(item.record, data=data, rules=item.rules)
