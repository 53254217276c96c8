"""A worker of Strata whose vision stage is that of `scripts/stage.py`: it waits, or is the demo's."""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from bench.fakes.worker import FakeVision, fake_group
from bench.peers.scripts.stage import note, wait
from strata.core import Profile, Record, Settings
from strata.images import DecodingPool
from strata.store import Store
from workers.engines.groups import real_group
from workers.engines.template import forked_worker
from workers.groups import Group, Pipeline, PipelineCache, VisionGroup
from workers.process import work
from workers.profile_versions import ProfileVersions


class NotedVision(FakeVision):
    """Waits for each image, as the scripts do, and notes it."""

    def __init__(self, profile: Profile, seconds: float, calls: Path) -> None:
        super().__init__(profile, 0.0)
        self.each, self.calls = seconds, calls

    def run(self, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        """The records of the fake stage."""
        for record, _ in batch:
            wait(record.key, self.each, self.calls)
        return super().run(batch)


class NotedPipeline:
    """The demo's vision pipeline, whose calls are noted."""

    def __init__(self, profile: Profile, calls: Path) -> None:
        from models.pipeline import VisionPipeline  # slow to import

        self._pipeline, self.calls = VisionPipeline(profile), calls
        self.stages, self.load = self._pipeline.stages, self._pipeline.load

    def run(self, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        """The pipeline's records."""
        note(self.calls, [record.key for record, _ in batch])
        return self._pipeline.run(batch)


def noted_group(
    name: str, store: Store, profiles: ProfileVersions, settings: Settings, seconds: float, calls: Path, demo: bool
) -> Group:
    """The group. Unless it is the demo's, only `vision` costs anything."""
    if name != "vision":
        return real_group(name, store, profiles, settings) if demo else fake_group(name, store, profiles, settings, 0.0)
    build: Callable[[Profile], Pipeline] = (
        functools.partial(NotedPipeline, calls=calls)
        if demo
        else functools.partial(NotedVision, seconds=seconds, calls=calls)
    )
    return VisionGroup(store, PipelineCache(build, profiles), DecodingPool(settings.max_pixels))


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", default="index,vision,llm")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--calls", type=Path, required=True)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--forks", type=int, help="the socket of a service that asks for forks")
    options = parser.parse_args()
    if options.forks is not None and forked_worker(options.forks) is None:
        return
    logging.basicConfig(level=logging.WARNING)
    make = functools.partial(noted_group, seconds=options.seconds, calls=options.calls, demo=options.demo)
    work(Settings(), options.groups.split(","), make)


if __name__ == "__main__":
    main()
