"""The demo's real stages, both pipelines in each worker, as a script would call them. It needs Strata's packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

PACKAGES = "PEER_PACKAGES"  # folders of Strata's packages, which come after the peer's own


def find_packages() -> None:
    """Let what the peer's Python lacks be imported from Strata's environment."""
    sys.path.extend(path for path in os.environ.get(PACKAGES, "").split(os.pathsep) if path and path not in sys.path)


@cache
def pipelines() -> tuple[Any, Any]:
    """Both pipelines of the profile `demo`, loaded. Raises ImportError without Strata's packages."""
    find_packages()
    from models.pipeline import LlmPipeline, VisionPipeline
    from strata.core import Settings, load_profile

    profile = load_profile("demo", Settings().profiles_dir)
    both = VisionPipeline(profile), LlmPipeline(profile)
    for pipeline in both:
        pipeline.load()
    return both


def describe(pairs: Sequence[tuple[str, Image.Image]]) -> list[str]:
    """The descriptions of a batch of keys and images."""
    vision, llm = pipelines()
    from models.items import ComposeRequest
    from strata.core import ImageReference, Record

    batch = [(Record(key=key, image=ImageReference(uri=key, size=0)), image) for key, image in pairs]
    records = llm.run([ComposeRequest(record) for record in vision.run(batch)])
    return [record.description.text if record.description else "" for record in records]


if __name__ == "__main__":  # exits with an error where the packages lack
    find_packages()
    import models.pipeline

    print(Path(models.pipeline.__file__))
