"""Weights that do not fit their model are refused when it is loaded; what may be missing or left over is accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.base import WeightsMissing
from models.building import build_stage
from models.weights.cache import BUNDLED
from models.weights.inventory import PROFILES
from strata.core.profiles import StageSettings, load_profile
from tests.checkout import CHECKOUT
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make

Tensors = dict[str, torch.Tensor]
# the class that wrote the published checkpoint, its stage and back end, and how a tiny one is made
KINDS: dict[str, tuple[str, str, Callable[..., None]]] = {
    "Blip2ForConditionalGeneration": ("captioner", "blip2", tiny_models.blip2_captioner),
    "Blip2ForImageTextRetrieval": ("matcher", "blip2", tiny_models.blip2_matcher),
    "Florence2ForConditionalGeneration": ("detector", "florence2", tiny_models.florence),
    "SamModel": ("segmenter", "sam", tiny_models.sam),
    "Sam2VideoModel": ("segmenter", "sam", tiny_models.sam2),
    "Qwen3VLForConditionalGeneration": ("captioner", "qwen3_vl", tiny_models.qwen3_vl),
    "Qwen3ForCausalLM": ("composer", "transformers", tiny_models.qwen3),
    "open_clip": ("matcher", "open_clip", tiny_models.siglip2),
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "Qwen3VLForConditionalGeneration": {"scene_prompt": "What?", "crop_prompt": "What?"},
    "Qwen3ForCausalLM": load_profile("modern", PROFILES).stages["composer"].parameters,
}
# weights that two modules share: a file has one of them, or both
SHARED = {
    "Blip2ForConditionalGeneration": "language_model.lm_head.weight",
    "Florence2ForConditionalGeneration": "lm_head.weight",
    "SamModel": "prompt_encoder.shared_embedding.positional_embedding",
    "Sam2VideoModel": "prompt_encoder.shared_embedding.positional_embedding",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(maker, tmp_path_factory.mktemp(name)) for name, (_, _, maker) in KINDS.items()}


def _file(folder: Path) -> Path:
    (file,) = folder.glob("*.safetensors")
    return file


def _load(kind: str, folder: Path) -> Any:
    stage, backend, _ = KINDS[kind]
    settings = StageSettings(backend=backend, model=f"local:{folder}", revision="", parameters=PARAMETERS.get(kind, {}))
    built = build_stage(stage, settings)
    built.load()
    return built


def _changed(folder: Path, target: Path, change: Callable[[Tensors], object]) -> Path:
    """A copy of a checkpoint with other weights."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(_file(folder))
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, _file(target), {"format": "pt"})
    return target


def _wrong(kind: str, tensors: Tensors, fault: str) -> str:
    """Make a fault; return the name of the weight."""
    # one that nothing else could stand in for
    name = next(
        name
        for name in sorted(tensors)
        if name.endswith("weight") and tensors[name].ndim == 2 and "embed" not in name and "shared" not in name
    )
    if fault == "missing":
        del tensors[name]
    elif fault == "another shape":
        tensors[name] = torch.cat([tensors[name], tensors[name]])
    elif fault == "a bias more":
        name = "logit_more" if kind == "open_clip" else re.sub("weight$", "lora_A.weight", name)
        tensors[name] = torch.zeros(4, 4)
    return name


@pytest.mark.parametrize("fault", ["missing", "another shape", "a bias more"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_do_not_fit_are_refused_in_one_line_that_names_them(
    kind: str, fault: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    names: list[str] = []
    folder = _changed(checkpoints[kind], tmp_path / "wrong", lambda tensors: names.append(_wrong(kind, tensors, fault)))
    with pytest.raises(WeightsMissing) as caught:
        _load(kind, folder)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message and len(message) < 800
    # transformers may report the place that a weight is converted to
    assert names[0].rpartition(".")[0].rpartition(".")[2] in message


@pytest.mark.parametrize("kind", SHARED)
def test_a_shared_weight_may_be_saved_once(kind: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = _changed(checkpoints[kind], tmp_path / "once", lambda tensors: tensors.pop(SHARED[kind], None))
    stage = _load(kind, folder)
    if "Sam" in kind:
        model = stage._model
        shared = model.shared_image_embedding.positional_embedding
        assert torch.equal(model.prompt_encoder.shared_embedding.positional_embedding, shared)

    # but not if neither is there
    def without_both(tensors: Tensors) -> None:
        for name in [name for name in tensors if re.search(r"shared|lm_head|embed_tokens", name)]:
            del tensors[name]

    with pytest.raises(WeightsMissing, match="missing"):
        _load(kind, _changed(checkpoints[kind], tmp_path / "neither", without_both))


def test_buffers_of_older_versions_may_be_left_over(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def older(tensors: Tensors) -> None:
        tensors["embeddings.position_ids"] = torch.arange(4)
        tensors["vision_model.encoder.layers.0.self_attn.masked_bias"] = torch.zeros(1)

    _load("Blip2ForImageTextRetrieval", _changed(checkpoints["Blip2ForImageTextRetrieval"], tmp_path / "older", older))


def test_a_bias_that_open_clip_would_make_up_is_missed(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = _changed(checkpoints["open_clip"], tmp_path / "flat", lambda tensors: tensors.pop("logit_bias"))
    with pytest.raises(WeightsMissing, match="logit_bias"):
        _load("open_clip", folder)


def test_one_bundled_model_with_a_weight_less_is_refused(tmp_path: Path) -> None:
    def less(tensors: Tensors) -> None:
        del tensors[sorted(tensors)[0]]

    for stage, backend in (("captioner", "florence2"), ("detector", "transformers"), ("matcher", "open_clip")):
        folder = _changed(BUNDLED / stage, tmp_path / stage, less)
        built = build_stage(stage, StageSettings(backend=backend, model=f"local:{folder}", revision=""))
        with pytest.raises(WeightsMissing, match="do not fit"):
            built.load()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "open_clip"])
def test_tiny_checkpoints_have_the_names_and_files_of_transformers_4(kind: str, checkpoints: dict[str, Path]) -> None:
    # what transformers 4.57.1 saves for the class; SAM 2's published file has both names of the shared matrix, as its
    # size shows: 897,897,416 bytes are those of 901 weights and their header
    known = json.loads((CHECKOUT / "tests" / "data_files" / "hub-weights.json").read_text())[kind]
    folder = checkpoints[kind]
    assert sorted({re.sub(r"(?<=\.)\d+(?=\.)", "N", name) for name in load_file(_file(folder))}) == known
    config = (folder / "config.json").read_text()
    assert '"transformers_version": "4.57.1"' in config
    assert "rope_parameters" not in config
    if kind != "Qwen3ForCausalLM":
        assert "image_processor_type" in json.loads((folder / "preprocessor_config.json").read_text())
