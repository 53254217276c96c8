"""A worker with fake stages: it claims, reads, decodes, writes and finishes as a real one, without models.

    python -m bench.fakes.worker --groups vision --seconds 0.002

For load measurement, chaos and tests. The pixels determine its result for an image, so that a row with another
image's result is detected. An image of the deadly colour ends the process, as a crash would.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from models.base import Stage
from models.items import ComposeRequest
from strata.cli.exits import code_of
from strata.core import GROUPS, Caption, Description, Profile, Record, Sentence, Settings, TextSettings
from strata.errors import StrataError
from strata.images import DecodingPool
from strata.store import Store
from workers.groups import Group, LlmGroup, PipelineCache, VisionGroup
from workers.process import work
from workers.profile_versions import ProfileVersions

DEADLY = (255, 0, 255)


class FakeVision:
    """Captions an image with its size and mean colour. seconds: per image."""

    def __init__(self, profile: Profile, seconds: float) -> None:
        self.seconds = seconds
        self.stages: dict[str, Stage[Any, Any]] = {}

    def load(self) -> None:
        """Nothing to load."""

    def run(self, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        """Records with a caption and empty layers."""
        time.sleep(self.seconds * len(batch))
        return [self._describe(record, image) for record, image in batch]

    def _describe(self, record: Record, image: Image.Image) -> Record:
        colour = tuple(int(value) for value in np.asarray(image).reshape(-1, 3).mean(axis=0).round())
        if max(abs(a - b) for a, b in zip(colour, DEADLY, strict=True)) < 8:
            os.kill(os.getpid(), signal.SIGKILL)
        text = f"{image.width} by {image.height} pixels of {colour}"
        layers: dict[str, object] = {"regions": [], "objects": [], "text": []}
        return record.model_copy(update={"caption": Caption(text=text, match=1.0), **layers})


class FakeLlm:
    """Describes an image by repeating its caption. seconds: per description."""

    def __init__(self, profile: Profile, seconds: float) -> None:
        self.seconds = seconds
        self.stages: dict[str, Stage[Any, Any]] = {}

    def load(self) -> None:
        """Nothing to load."""

    def run(self, batch: Sequence[ComposeRequest], texts: TextSettings | None = None) -> list[Record]:
        """Records with a description of one sentence; the texts are not used."""
        del texts
        time.sleep(self.seconds * len(batch))
        return [self._describe(request.record) for request in batch]

    def _describe(self, record: Record) -> Record:
        text = f"{record.caption.text if record.caption else ''}, said of {record.key}."
        told = Description(text=text, sentences=[Sentence(text=text, evidence=["caption"])])
        return record.model_copy(update={"description": told})


def fake_group(name: str, store: Store, profiles: ProfileVersions, settings: Settings, seconds: float) -> Group:
    """A real group with a fake pipeline."""
    decoder = DecodingPool(settings.max_pixels)
    if name == "vision":
        vision = PipelineCache(functools.partial(FakeVision, seconds=seconds), profiles)
        return VisionGroup(store, vision, decoder)
    return LlmGroup(
        store, PipelineCache(functools.partial(FakeLlm, seconds=seconds), profiles), DecodingPool(settings.max_pixels)
    )


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--seconds", type=float, default=0.0, help="what an image costs in each group")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    try:
        work(Settings(), options.groups.split(","), functools.partial(fake_group, seconds=options.seconds))
    except StrataError as error:
        print(f"fake worker: {error}", file=sys.stderr)
        sys.exit(code_of(error))


if __name__ == "__main__":
    main()
