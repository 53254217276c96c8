"""LAION's aesthetic heads, on LAION's own embeddings, and behind a tiny CLIP in the layout of OpenAI's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from models.base import WeightsMissing
from models.building import build_stage
from models.prove.proving import prove_stage
from models.stages.features.aesthetic import HEADS
from models.weights.inventory import PROFILES
from samples.make_aesthetic import product
from strata.core.profiles import StageSettings, load_profile
from tests.models.tiny.tiny_models import openai_clip


def of(stage: str, folder: Path, **parameters: Any) -> StageSettings:
    """The settings of a stage on the checkpoint in a folder."""
    backend = "laion" if stage == "aesthetic" else "open_clip"
    return StageSettings(backend=backend, model=f"local:{folder}", revision="", parameters=parameters)


def loaded(stage: str, settings: StageSettings) -> Any:
    built = build_stage(stage, settings)
    built.load()
    return built


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openai_clip(tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize(("head", "tower"), [("v1", "vit_l_14"), ("v2", "vit_l_14"), ("v1", "vit_b_32")])
def test_heads_rise_with_laions_ratings(head: str, tower: str) -> None:
    # the embeddings were published with v1; v2 was trained by another person on other ratings
    tensors = load_file(HEADS)
    rated = tensors[f"rated.{tower}"].astype(np.float64)
    rated /= np.linalg.norm(rated, axis=1, keepdims=True)
    scores = rated @ tensors[f"{head}.{tower}.weight"] + tensors[f"{head}.{tower}.bias"]
    assert (np.diff(scores) > 0).all()
    assert scores[0] < 2 and 5 < scores[9] < 12


def test_a_score_is_that_of_the_embedding(clip: Path) -> None:
    embedding, stage = loaded("embedding", of("embedding", clip)), loaded("aesthetic", of("aesthetic", clip, head="v1"))
    stage.probe()
    images = [Image.new("RGB", (300, 200), colour) for colour in ("red", "grey", "navy")]
    vectors = [one["embedding"] for one in embedding.run(images)]
    scores = [one["aesthetic"] for one in stage.run(vectors)]
    tensors = load_file(HEADS)
    expected = [float(np.dot(each.astype(float), tensors["v1.vit_b_32.weight"])) for each in vectors]
    assert scores == pytest.approx([one + tensors["v1.vit_b_32.bias"][0] for one in expected], abs=0.02)
    # whatever the length of the vector, and whatever else is in the batch
    assert [stage.run([vector * 2])[0]["aesthetic"] for vector in vectors] == pytest.approx(scores, abs=1e-4)


def test_it_is_proved_by_ratings(clip: Path) -> None:
    stage = loaded("aesthetic", of("aesthetic", clip, head="v1"))
    checks = {
        one.name: one.passed for one in prove_stage("aesthetic", stage, load_profile("demo", PROFILES), "drawings")
    }
    assert checks == {"answers": True, "rises": True, "batch": True}
    stage._weight = -stage._weight
    checks = {
        one.name: one.passed for one in prove_stage("aesthetic", stage, load_profile("demo", PROFILES), "drawings")
    }
    assert not checks["rises"]


@pytest.mark.parametrize(
    "changes",
    [
        {"quick_gelu": False},  # the same architecture, trained by LAION
        {"width": 640},
        {"width": 768},  # no such tower
    ],
)
def test_embeddings_of_other_models_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(WeightsMissing, match="OpenAI's CLIP"):
        loaded("aesthetic", of("aesthetic", openai_clip(tmp_path, **changes)))


def test_what_does_not_fit_is_told(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"v2 is not for .*; v1 is"):
        loaded("aesthetic", of("aesthetic", clip))
    with pytest.raises(ValueError, match="head"):
        build_stage("aesthetic", of("aesthetic", clip, head="v3"))
    (failure,) = loaded("aesthetic", of("aesthetic", clip, head="v1")).run([np.ones(768, np.float16)])
    assert "768 numbers" in failure.detail
    for content in ("no json", "[]", '{"model_cfg": 3}', '{"model_cfg": {"embed_dim": 512, "vision_cfg": []}}'):
        (tmp_path / "open_clip_config.json").write_text(content)
        with pytest.raises(WeightsMissing, match="cannot be used"):
            loaded("aesthetic", of("aesthetic", tmp_path))
    with pytest.raises(WeightsMissing, match="are not in"):
        loaded("aesthetic", of("aesthetic", tmp_path / "none"))


def test_layers_become_one(tmp_path: Path) -> None:
    torch.manual_seed(1)
    layers = torch.nn.Sequential(
        torch.nn.Linear(7, 5), torch.nn.Dropout(0.1), torch.nn.Linear(5, 3), torch.nn.Linear(3, 1)
    )
    weight, bias = product({f"layers.{name}": value for name, value in layers.state_dict().items()})
    inputs = torch.randn(4, 7)
    assert torch.allclose(layers.eval()(inputs), inputs @ weight.float().T + bias.float(), atol=1e-6)
