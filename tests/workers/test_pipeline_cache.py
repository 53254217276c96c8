"""The loaded pipelines of a worker: which are kept, and which go when memory lacks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch

from models.base import Stage, StageBroken, StageNotLoaded
from models.building import load_stages
from models.deadlines import DEADLINES, Activity
from strata.core import Chunk, Profile
from strata.core.profiles import StageSettings
from workers.groups import PipelineCache, pipelines
from workers.profile_versions import ProfileVersions


class Memory:
    """A GPU with room for so many models."""

    def __init__(self, room: int) -> None:
        self.room, self.models = room, weakref.WeakSet[Any]()

    def take(self, model: object) -> None:
        """Raises OutOfMemoryError if there is no room for another model."""
        if len(self.models) >= self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.models.add(model)


class Model(Stage[int, int]):
    """Takes memory when it is loaded, and once more for a large item."""

    name: ClassVar[str] = "doubler"

    def __init__(self, settings: StageSettings, memory: Memory) -> None:
        super().__init__(settings)
        self.memory = memory
        self.itself = self  # a cycle, as real models have

    def load(self) -> None:
        self.memory.take(self)

    def compute(self, batch: Sequence[int]) -> list[int]:
        if max(batch) > 1000 and len(self.memory.models) >= self.memory.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [2 * number for number in batch]


class OneStage:
    """A pipeline of one stage."""

    def __init__(self, stage: Stage[int, int]) -> None:
        self.stages: dict[str, Stage[Any, Any]] = {"captioner": stage}

    def load(self) -> None:
        load_stages(self.stages)

    def run(self, batch: Sequence[Any]) -> list[Any]:
        return self.stages["captioner"].run(batch)


def profile_of(name: str, revision: str = "1") -> Profile:
    return Profile(name=name, stages={"captioner": StageSettings(backend="fake", model="builtin:x", revision=revision)})


def chunk_of(profile: Profile) -> Chunk:
    return Chunk("vision", profile.name, profile.fingerprint("vision"), "a.tar", "i", 0, 1)


def cache_of(memory: Memory, files: dict[str, Profile]) -> PipelineCache:
    settings = StageSettings(backend="fake", model="builtin:x", revision="1")
    return PipelineCache(lambda _: OneStage(Model(settings, memory)), ProfileVersions(lambda name: files[name]))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_least_recently_used_pipeline_goes_when_another_does_not_fit(frozen: bool) -> None:
    memory, files = Memory(room=2), {name: profile_of(name, name) for name in "abc"}
    cache = cache_of(memory, files)
    a, b, c = (chunk_of(files[name]) for name in "abc")
    first = cache.get(a)
    cache.get(b)
    if frozen:  # as a worker does after its start
        gc.freeze()
    assert cache.get(a) is first  # b is the least recently used now
    cache.get(c)
    assert cache.get(a) is first and len(memory.models) == 2
    assert (gc.get_freeze_count() > 0) is frozen
    gc.unfreeze()


def test_a_pipeline_that_does_not_fit_alone_is_told() -> None:
    memory, files = Memory(room=1), {name: profile_of(name, name) for name in "ab"}
    cache = cache_of(memory, files)
    cache.get(chunk_of(files["a"]))
    memory.room = 0
    with pytest.raises(StageNotLoaded, match="captioner cannot be loaded: OutOfMemoryError"):
        cache.get(chunk_of(files["b"]))


def test_a_stage_that_lacks_memory_gets_the_room_of_the_others() -> None:
    memory, files = Memory(room=2), {name: profile_of(name, name) for name in "ab"}
    cache = cache_of(memory, files)
    a, b = (chunk_of(files[name]) for name in "ab")
    cache.get(b)
    answers: list[Any] = cache.get(a).run([2000, 1])
    assert answers == [4000, 2]
    assert len(memory.models) == 1
    memory.room = 1
    with pytest.raises(StageBroken) as caught:
        cache.get(a).run([2000])
    assert caught.value.memory


def test_an_earlier_version_of_a_profile_goes_when_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, files = Memory(room=9), {"a": profile_of("a")}
    cache = cache_of(memory, files)
    old = chunk_of(files["a"])
    cache.get(old)
    files["a"] = profile_of("a", "2")
    new = chunk_of(files["a"])
    cache.get(new)
    cache.get(old)  # chunks that were queued before the change
    assert len(memory.models) == 2
    monkeypatch.setattr(pipelines, "IDLE_SECONDS", 0.0)
    cache.get(new)
    assert len(memory.models) == 1


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), TypeError("x"), ImportError("x"), SystemExit(2)])
def test_an_error_in_building_is_no_image_s(error: BaseException) -> None:
    def load() -> None:
        raise error

    def build(profile: Profile) -> OneStage:
        stage = Model(profile.stages["captioner"], Memory(1))
        stage.load = load  # type: ignore[method-assign]
        return OneStage(stage)

    profile = profile_of("a")
    with pytest.raises(StageNotLoaded):
        PipelineCache(build, ProfileVersions(lambda _: profile)).get(chunk_of(profile))


def test_the_loading_of_a_pipeline_has_a_deadline_and_accuses_nobody() -> None:
    files = {"a": profile_of("a")}
    told: list[list[Activity]] = []

    class Telling(Model):
        def load(self) -> None:
            DEADLINES.report(lambda activities, flights: told.append(list(activities.values())), DEADLINES.limits)

    cache = PipelineCache(
        lambda profile: OneStage(Telling(profile.stages["captioner"], Memory(room=1))),
        ProfileVersions(lambda name: files[name]),
    )
    try:
        cache.get(chunk_of(files["a"]))
    finally:
        DEADLINES.report(None, DEADLINES.limits)
    (loading,) = told[0]
    assert (loading.part, loading.about, loading.kind) == ("loading", "profile a", "nobody")
    assert loading.seconds == 3600
    assert told[-1] == []
