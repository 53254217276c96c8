"""Pipelines: a group's models, loaded once for each profile, and dropped when memory lacks or nobody needs them."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from models.base import Stage, StageNotLoaded
from models.deadlines import DEADLINES, Activity
from models.faults import free_memory
from models.items import ComposeRequest
from models.weights.cache import fetched_for, require_fetched
from strata.core import Chunk, Profile, Record, TextSettings, Usage
from strata.queue import LoadedProfile
from workers.accounts import Meter
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


def _stages_fingerprint(profile: Profile, group: str) -> str:
    """The fingerprint of a group's stages, whatever texts are wanted."""
    return profile.model_copy(update={"texts": TextSettings()}).fingerprint(group)
