"""Runs without Redis in tests: jobs of small shards, and what their parts hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.processes import BENCH_PROFILES
from strata.core import FINAL_GROUP, JobRequest, JobView, Settings, ShardSummaries, load_profile
from strata.store import Store
from tests.fakes import DECODER, FakeLlm, FakeVision, jpeg, write_shard
from workers.engines.job import Asked, EngineJob
from workers.engines.options import Engine, Options, Pool
from workers.engines.start import computed, opened
from workers.groups import Group, LlmGroup, PipelineCache, VisionGroup
from workers.profile_versions import ProfileVersions


def settings_of(folder: Path, **changes: Any) -> Settings:
    """Settings with a store in a folder and the fake profile."""
    given = {"data_dir": folder, "store": str(folder / "store"), "profiles_dir": BENCH_PROFILES, "profile": "fake"}
    return Settings.model_validate(given | changes)


def shards_of(folder: Path, shards: int, images: int, deadly: int | None = None) -> list[str]:
    """Shards of images of different sizes and colours; the last image of each is none.

    deadly: the number of an image of the first shard that ends the process which computes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(shards):
        colours = [f"#{20 * number % 256:02x}{i % 256:02x}40" for i in range(images - 1)]
        if deadly is not None and not number:
            colours[deadly] = "#ff00ff"
        pictures = [jpeg(20 + i % 40, 24 + number, colour) for i, colour in enumerate(colours)]
        found.append(write_shard(folder / f"{number:05d}.tar", [*pictures, b"none"], first=number * images))
    return found


def options(engine: Engine = "local", seconds: float = 0.0, **more: Any) -> Options:
    """Options with fake groups that need some seconds an image; two actors of `vision` at most."""
    groups = ("bench.fakes.worker:fake_group", {"seconds": seconds})
    pools = {"vision": Pool(1, 2, 0.4, 0.0), "llm": Pool(1, 1, 0.4, 0.0)}
    return Options(engine, pools=pools, groups=groups)._replace(**more)


def fake_machine_group(name: str, store: Store, profiles: ProfileVersions, settings: Settings) -> Group:
    """The group of `tests.fakes.FakeMachine`."""
    if name == "vision":
        return VisionGroup(store, PipelineCache(FakeVision, profiles), DECODER)
    return LlmGroup(store, PipelineCache(FakeLlm, profiles), DECODER)


def started(
    settings: Settings,
    target: list[str] | str,
    how: Options,
    on_view: Callable[[JobView], None] = lambda view: None,
) -> EngineJob:
    """A new job of shards, or one that is known by its id."""
    if isinstance(target, str):
        return opened(settings, target, how, on_view)
    profile = load_profile(settings.profile, settings.profiles_dir)
    return opened(settings, Asked(target, profile, {}, None), how, on_view)


def run_here(settings: Settings, target: list[str] | str, how: Options) -> tuple[JobRequest, JobView]:
    """Run a job to its end; returns its request and its envelope."""
    job = started(settings, target, how)
    view = computed(job, settings, how)
    return job.request, view


def rows_of(store: Store, request: JobRequest) -> list[tuple[str, dict[str, Any]]]:
    """All rows of a job in the order of shard, chunk and row, without what differs between two runs."""
    summaries = store.parse_job_file(request.id, "shards", ShardSummaries)
    assert summaries is not None
    chunks = [chunk for one in summaries.shards for chunk in request.chunks(one, FINAL_GROUP)]
    newest = [store.newest(chunk) for chunk in chunks]
    rows = [row for chunk in newest if chunk is not None for row in store.read_records(chunk)]
    return [(row.key, row.model_dump(exclude={"seconds"})) for row in rows]
