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
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from models.base import Stage, StageNotLoaded
from models.deadlines import DEADLINES, Activity
from models.faults import free_memory
from models.items import MOST_PIXELS, ComposeRequest
from models.weights.cache import fetched_for, require_fetched
from strata.core import LAYERS, Chunk, Profile, Record, Status, TextSettings, Usage
from strata.core.parameters import metadata_fields
from strata.images import DecodingPool
from strata.queue import LoadedProfile
from strata.store import READERS, BrokenPart, Source, Store
from workers.accounts import Meter
from workers.earlier import Earlier, EarlierRows
from workers.items import ItemReader, WorkItem, copy_of, decoded, item_of, moved
from workers.profile_versions import ProfileVersions

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0  # without use, after which the models of a profile's earlier version are dropped


class Pipeline(Protocol):
    """A group's models: load them once, then turn items into records. stages: by name.

    An item is a record with its image for `vision`, and a ComposeRequest for `llm`.
    """

    stages: dict[str, Stage[Any, Any]]

    def load(self) -> None: ...

    def run(self, batch: Sequence[Any]) -> list[Record]: ...


class TextPipeline(Pipeline, Protocol):
    """The pipeline of `llm`: it also knows which texts a job wants."""

    def run(self, batch: Sequence[ComposeRequest], texts: TextSettings = ...) -> list[Record]: ...


class PaidPipeline(Pipeline, Protocol):
    """A pipeline of which some stages ask servers: it also knows the upper bounds of their usage."""

    def bound(self, record: Record, texts: TextSettings = ...) -> Mapping[str, tuple[Usage, Usage]]: ...


@dataclass
class _Loaded:
    """A loaded pipeline, the profile that it was built from, and when it was last used, in seconds of the clock.

    seconds: that loading it took.
    """

    pipeline: Pipeline
    profile: Profile
    used: float
    seconds: float


def with_weights(build: Callable[[Profile], Pipeline], group: str) -> Callable[[Profile], Pipeline]:
    """What builds a group's pipeline, and raises WeightsMissing at once where weights have not been fetched."""

    def checked(profile: Profile) -> Pipeline:
        require_fetched(profile, group)
        return build(profile)

    return checked


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
        self.of(self.profiles.newest(name), group)

    def get(self, chunk: Chunk) -> Pipeline:
        """The pipeline of a chunk's profile, loaded on first use.

        Raises ProfileError, WeightsMissing, StageNotLoaded and StageBroken.
        """
        try:
            return self.of(self.profile(chunk), chunk.group)
        except ValueError as error:
            raise StageNotLoaded(chunk.profile, error) from error

    def profile(self, chunk: Chunk) -> Profile:
        """The version of a chunk's profile that the chunk was made with. Raises ProfileError if it is unknown."""
        return self.profiles.of(chunk.profile, chunk.group, chunk.fingerprint)

    def drop_all(self) -> None:
        """Drop all pipelines."""
        self._drop_others("")

    def of(self, profile: Profile, group: str) -> Pipeline:
        """The pipeline of a profile, loaded on first use. Raises the errors of `get`, and ValueError for settings."""
        # jobs that want other texts of the same stages share a pipeline
        fingerprint = _stages_fingerprint(profile, group)
        loaded = self._loaded.pop(fingerprint, None)
        if loaded is None:
            seconds, began = DEADLINES.limits.loading, time.monotonic()
            with DEADLINES.watch(Activity(group, "loading", seconds, f"profile {profile.name}", kind="nobody")):
                pipeline = self._load(profile, fingerprint)
            loaded = _Loaded(pipeline, profile, 0.0, time.monotonic() - began)
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
                with fetched_for(profile.name):
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
        current = {_stages_fingerprint(profile, group) for profile in newest.values()}
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

    def loaded(self, group: str) -> list[LoadedProfile]:
        """The profiles whose pipelines are loaded now. Called from other threads."""
        return [
            LoadedProfile(group=group, profile=one.profile.name, fingerprint=fingerprint)
            for fingerprint, one in list(self._loaded.items())
        ]

    def loading(self, chunk: Chunk) -> float | None:
        """How many seconds it took to load the pipeline of a chunk's profile; None if it is not loaded."""
        loaded = self._loaded.get(_stages_fingerprint(self.profile(chunk), chunk.group))
        return None if loaded is None else loaded.seconds

    def meter(self, chunk: Chunk) -> Meter | None:
        """The meter of a profile's stages that ask servers; None if there are none. Using it raises as `get` does."""
        profile = self.profile(chunk)
        if not profile.paid(chunk.group):
            return None
        return Meter(
            profile, chunk.group, lambda record: cast(PaidPipeline, self.get(chunk)).bound(record, profile.texts)
        )


class Group(Protocol):
    """One group's work on a chunk, in steps: list its items, read their bytes, decode them, compute their records.

    most_pixels: of an image, above which it is shrunk where it is decoded; None: never.
    """

    name: str
    most_pixels: int | None

    def load(self, profile: str) -> None:
        """Load the models of a profile before the first chunk comes."""

    def items(self, chunk: Chunk) -> list[WorkItem]:
        """The chunk's items; most have no bytes of their images yet. Raises OSError and ProfileError."""

    def needs_images(self, chunk: Chunk) -> bool:
        """Whether the images are read. Raises ProfileError."""

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Some of the chunk's items with the bytes of their images. An item that cannot be read is settled as failed.

        Raises OSError if a later attempt may succeed.
        """

    def decode(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """The items with decoded pixels. It needs no model, and is called in threads."""

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        """The records of a micro-batch of unsettled items, in order, with the chunk's profile and fingerprint."""

    def meter(self, chunk: Chunk) -> Meter | None:
        """The meter of the group's stages that ask servers; None if there are none."""

    def loading(self, chunk: Chunk) -> float | None:
        """How many seconds it took to load the models of a chunk's profile; None if they are not loaded."""


class VisionGroup:
    """From images to layers."""

    name = "vision"
    most_pixels: int | None = MOST_PIXELS

    def __init__(self, store: Store, pipelines: PipelineCache, decoder: DecodingPool) -> None:
        self.store, self.pipelines, self.decoder = store, pipelines, decoder
        self.reader, self.earlier = ItemReader(store), EarlierRows(store)
        self._uploads = ThreadPoolExecutor(READERS, thread_name_prefix="uploads")

    def load(self, profile: str) -> None:
        self.decoder.start()  # its processes start while the models load
        self.pipelines.load(self.name, profile)

    def items(self, chunk: Chunk) -> list[WorkItem]:
        profile = self.pipelines.profile(chunk)
        # read an upload while its index is read: it is a whole file, so that its place need not be looked up
        ahead = self._uploads.submit(self._upload, chunk.shard) if self.store.is_upload(chunk.shard) else None
        index = self.reader.index(chunk, profile)
        items = [item_of(row, profile.rules) for row in index.rows(chunk)]
        if before := _before(self.store, chunk):
            # a retry computes the failed rows only, and copies the others from the attempt before
            pairs = zip(items, before, strict=True)
            items = [item if old.status is Status.FAILED else _reused(old) for item, old in pairs]
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

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        return self.reader.read(chunk, items)

    def decode(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        # the stages see no more pixels: to shrink the image where it is decoded saves the memory of the others
        return decoded(items, self.decoder, most=self.most_pixels)

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        pipeline = self.pipelines.get(chunk)
        return pipeline.run([(item.record, item.image) for item in items])

    def meter(self, chunk: Chunk) -> Meter | None:
        return self.pipelines.meter(chunk)

    def loading(self, chunk: Chunk) -> float | None:
        return self.pipelines.loading(chunk)


class LlmGroup:
    """From layers to descriptions. Images are read again only if the profile's composer uses them."""

    name = "llm"
    most_pixels: int | None = None

    def __init__(self, store: Store, pipelines: PipelineCache, decoder: DecodingPool) -> None:
        self.store, self.pipelines, self.decoder = store, pipelines, decoder
        self.reader, self.earlier = ItemReader(store), EarlierRows(store)

    def load(self, profile: str) -> None:
        self.pipelines.load(self.name, profile)

    def items(self, chunk: Chunk) -> list[WorkItem]:
        profile = self.pipelines.profile(chunk)
        # of `vision`, the newest attempt counts, if it is at least as new as this one
        source = chunk.of_group("vision", profile.fingerprint("vision"))
        newest = self.store.newest(source)
        if newest is None:
            raise Source.of(source).broken("it is missing")
        items = [WorkItem(one, settled=one.status is not Status.SUCCEEDED) for one in self.store.read_records(newest)]
        # a retry takes the rows that succeeded from the attempt before, and the others from `vision`
        if before := _before(self.store, chunk):
            pairs = zip(items, before, strict=True)
            items = [_reused(old) if old.status is Status.SUCCEEDED else item for item, old in pairs]
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

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        return self.reader.read(chunk, items)

    def decode(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        # `vision` has checked the number of pixels against the limit, and has noted it
        sizes = [(item.record.width or 0) * (item.record.height or 0) for item in items]
        return decoded(items, self.decoder, sizes)

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        pipeline, texts = cast(TextPipeline, self.pipelines.get(chunk)), self.pipelines.profile(chunk).texts
        return pipeline.run([ComposeRequest(one.record, one.image, metadata=one.metadata) for one in items], texts)

    def meter(self, chunk: Chunk) -> Meter | None:
        return self.pipelines.meter(chunk)

    def loading(self, chunk: Chunk) -> float | None:
        return self.pipelines.loading(chunk)


def _stages_fingerprint(profile: Profile, group: str) -> str:
    """The fingerprint of a group's stages, whatever texts are wanted."""
    return profile.model_copy(update={"texts": TextSettings()}).fingerprint(group)


def _before(store: Store, chunk: Chunk) -> list[Record]:
    """The records of the newest attempt before a retry's; empty if there is none."""
    earlier = store.attempts_before(chunk) if chunk.attempt else []
    return store.read_records(earlier[0]) if earlier else []


def _reused(record: Record) -> WorkItem:
    """The item of a row that is copied."""
    return WorkItem(record, settled=True, reused=True)


def _with_earlier(item: WorkItem, earlier: Earlier, row: int) -> WorkItem:
    """The item as a copy of its image's earlier row; else with the rows that may be its image's, if the bytes agree."""
    if item.settled:
        return item
    # the version of a local file was compared when it was read, and what lies in a tar of one identity is the same; of
    # others only the bytes tell
    image = item.record.image
    found = None if "://" in image.uri and not image.offset else earlier.same(row)
    return replace(item, candidates=earlier.alike(row)) if found is None else _reused(copy_of(found, item.record))


def _with_description(item: WorkItem, earlier: Earlier, row: int) -> WorkItem:
    """The item with the description that was composed before for the same image and the same layers."""
    if item.settled:
        return item
    # an earlier version of the program has not noted the SHA-256
    sha256, found = item.record.image.sha256, earlier.same(row)
    for one in [found] if found and found.image.sha256 == sha256 else earlier.alike(row):
        if one.image.sha256 == sha256 and one.status is Status.SUCCEEDED and _layers(one) == _layers(item.record):
            return _reused(copy_of(one, item.record))
    return item


def _layers(record: Record) -> dict[str, Any]:
    """The layers that a description is composed from."""
    return {name: getattr(record, name) for name in LAYERS if name != "description"}
