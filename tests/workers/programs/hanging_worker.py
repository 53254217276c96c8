"""A worker whose captioner hangs at some images.

python -m tests.workers.programs.hanging_worker --always 113 --once FILE
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from bench.fakes.stages import FakeCaptioner
from models.items import CaptionRequest
from models.pipeline import VisionPipeline
from strata.core import Profile, Settings, StageSettings
from strata.images import DecodingPool
from strata.store import Store
from workers.engines.groups import real_group
from workers.groups import Group, PipelineCache, VisionGroup
from workers.process import work
from workers.profile_versions import ProfileVersions

ONCE_WIDTH = 120  # of the image that holds the interpreter


class HangingCaptioner(FakeCaptioner):
    """Sleeps for ever at images of the width `always`; with the interpreter's lock at one, if it removes `once`."""

    def __init__(self, settings: StageSettings, always: int, once: Path) -> None:
        super().__init__(settings)
        self.always, self.once = always, once

    def compute(self, batch: Sequence[CaptionRequest]) -> list[str]:
        """As the fake captioner, or never."""
        widths = [request.image.width for request in batch]
        if ONCE_WIDTH in widths and self.once.exists():
            self.once.unlink()
            ctypes.PyDLL(None).sleep(100_000)  # PyDLL keeps the interpreter's lock
        while self.always in widths:
            time.sleep(1.0)
        return super().compute(batch)


def hanging_group(
    name: str, store: Store, profiles: ProfileVersions, settings: Settings, always: int, once: Path
) -> Group:
    """A `workers.engines.groups.GroupMaker`."""
    if name != "vision":
        return real_group(name, store, profiles, settings)

    def build(profile: Profile) -> VisionPipeline:
        return VisionPipeline(profile, {"captioner": HangingCaptioner(profile.stages["captioner"], always, once)})

    return VisionGroup(store, PipelineCache(build, profiles), DecodingPool(settings.max_pixels))


def main() -> None:
    """Work until SIGTERM, or until the watchdog ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--always", type=int, required=True)
    parser.add_argument("--once", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    maker = functools.partial(hanging_group, always=options.always, once=options.once)
    work(Settings(), ["index", "vision", "llm"], maker)


if __name__ == "__main__":
    main()
