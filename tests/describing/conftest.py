"""A describer with the real decoder and fake models: they caption each image with its size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.core.settings import Settings
from strata.describing import Describer
from tests.fakes import FakeLlm, FakeVision
from tests.service import write_profile
from workers.describing import pipelines


class Models:
    """The fake pipelines that were built. broken: widths of images at which the code between the stages fails."""

    def __init__(self) -> None:
        self.built: list[object] = []
        self.broken: set[int] = set()


@pytest.fixture(scope="session")
def models() -> Iterator[Models]:
    made = Models()

    class Vision(FakeVision):
        def run(self, batch):  # type: ignore[no-untyped-def]
            if any(image.width in made.broken for _, image in batch):
                raise KeyError("a fault of this image")
            return super().run(batch)

    def built(kind: type) -> object:
        def build(profile: object) -> object:
            made.built.append(kind(profile))
            return made.built[-1]

        return build

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines, "VisionPipeline", built(Vision))
        patch.setattr(pipelines, "LlmPipeline", built(FakeLlm))
        yield made


@pytest.fixture(scope="session")
def describer(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Describer]:
    folder = tmp_path_factory.mktemp("profiles")
    write_profile(folder)
    settings = Settings.model_validate({"profiles_dir": folder, "profile": "fake", "max_pixels": 1_000_000})
    with Describer(settings) as made:
        yield made


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A JPEG of 32 × 24 pixels."""
    from tests.fakes import jpeg

    path = tmp_path / "a picture.jpg"
    path.write_bytes(jpeg())
    return path
