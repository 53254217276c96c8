"""A worker of Strata whose vision stage is that of `scripts/stage.py`: it waits and notes its calls."""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bench.fakes.worker import FakeVision, fake_group
from bench.peers.scripts.stage import note
from strata.core import Profile, Record, Settings
from strata.images import DecodingPool
from strata.store import Store
from workers.groups import Group, PipelineCache, VisionGroup
from workers.process import work
from workers.profile_versions import ProfileVersions


class NotedVision(FakeVision):
    """Notes the keys of its calls."""

    def __init__(self, profile: Profile, seconds: float, calls: Path) -> None:
        super().__init__(profile, seconds)
        self.calls = calls

    def run(self, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        """The records of the fake stage."""
        note(self.calls, [record.key for record, _ in batch])
        return super().run(batch)


def noted_group(
    name: str, store: Store, profiles: ProfileVersions, settings: Settings, seconds: float, calls: Path
) -> Group:
    """The group; only `vision` costs anything."""
    if name != "vision":
        return fake_group(name, store, profiles, settings, 0.0)
    pipelines = PipelineCache(functools.partial(NotedVision, seconds=seconds, calls=calls), profiles)
    return VisionGroup(store, pipelines, DecodingPool(settings.max_pixels))


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", default="index,vision,llm")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--calls", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    make = functools.partial(noted_group, seconds=options.seconds, calls=options.calls)
    work(Settings(), options.groups.split(","), make)


if __name__ == "__main__":
    main()
