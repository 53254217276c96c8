"""A worker whose captioner breaks as a GPU does.

python -m tests.workers.programs.breaking_worker --after 5 --groups index,vision
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Sequence

import torch

from bench.fakes.stages import FakeCaptioner
from models.items import CaptionRequest
from models.pipeline import VisionPipeline
from strata.cli.exits import code_of
from strata.core import Profile, Settings, StageSettings
from strata.errors import StrataError
from strata.forks import fork_when_asked
from strata.images import DecodingPool
from strata.store import Store
from workers.engines.groups import real_group
from workers.groups import Group, PipelineCache, VisionGroup
from workers.process import work
from workers.profile_versions import ProfileVersions


class BreakingCaptioner(FakeCaptioner):
    """Computes `after` batches, the probe among them; then every call raises the same error of the GPU."""

    def __init__(self, settings: StageSettings, after: int) -> None:
        super().__init__(settings)
        self.left = after

    def compute(self, batch: Sequence[CaptionRequest]) -> list[str]:
        """As the fake captioner, or AcceleratorError."""
        self.left -= 1
        if self.left < 0:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return super().compute(batch)


def breaking_group(name: str, store: Store, profiles: ProfileVersions, settings: Settings, after: int) -> Group:
    """A `workers.engines.groups.GroupMaker`."""
    if name != "vision":
        return real_group(name, store, profiles, settings)

    def build(profile: Profile) -> VisionPipeline:
        return VisionPipeline(profile, {"captioner": BreakingCaptioner(profile.stages["captioner"], after)})

    return VisionGroup(store, PipelineCache(build, profiles), DecodingPool(settings.max_pixels))


def main() -> None:
    """Work until SIGTERM, or until the captioner breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", default="vision")
    parser.add_argument("--after", type=int, required=True)
    parser.add_argument("--forks", type=int, help="the socket of who asks for forks, each with its own groups")
    options = parser.parse_args()
    if options.forks is not None:
        task = fork_when_asked(options.forks)
        if task is None:
            return
        options.groups = task.task["groups"]
        os.environ.clear()
        os.environ.update(task.task["environment"])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    try:
        work(Settings(), options.groups.split(","), functools.partial(breaking_group, after=options.after))
    except StrataError as error:
        print(f"breaking worker: {error}", file=sys.stderr)
        os._exit(code_of(error) or 1)


if __name__ == "__main__":
    main()
