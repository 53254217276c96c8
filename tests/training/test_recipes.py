"""The shipped recipes: each name in them is that of a part of the real model, built without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from peft.tuners.lora.layer import LoraLayer
from transformers import AutoModelForImageTextToText, LlavaConfig, Qwen2_5_VLConfig, Qwen3VLConfig

from tests.checkout import CHECKOUT
from training.config import load_config
from training.parts import add_adapters, freeze

CONFIGS = CHECKOUT / "training" / "configs"
ACCELERATE = sorted((CONFIGS / "accelerate").glob("*.yaml"))


def without_weights(config: Any) -> Any:
    """The model of a configuration on torch's device without memory."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def test_llavas_recipe_trains_projector_and_language_model() -> None:
    job, model = load_config(CONFIGS / "llava-427k.toml"), without_weights(LlavaConfig())
    freeze(model, job.model.freeze)
    trained = {name.split(".")[1] for name, value in model.named_parameters() if value.requires_grad}
    assert {"language_model", "multi_modal_projector"} <= trained and "vision_tower" not in trained


def test_qwens_recipe_has_adapters_in_the_tower_alone() -> None:
    job, model = load_config(CONFIGS / "qwen3-vl-4b.toml"), without_weights(Qwen3VLConfig())
    assert job.lora is not None
    add_adapters(model, job.lora)
    ranks = {name: module.r["default"] for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    depth = model.config.vision_config.depth
    assert len(ranks) == 4 * depth and all("visual.blocks" in name for name in ranks)
    assert all(rank == (32 if ".mlp." in name else 16) for name, rank in ranks.items())
    still = [name for name, value in model.named_parameters() if not value.requires_grad]
    assert still and all("visual." in name and "merger" not in name for name in still)


def test_monkeys_recipe_names_parts_of_its_model() -> None:
    job, model = load_config(CONFIGS / "monkey.toml"), without_weights(Qwen2_5_VLConfig())
    assert freeze(model, job.model.freeze) and job.lora is not None
    add_adapters(model, job.lora)
    assert any(isinstance(module, LoraLayer) for module in model.modules())


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_takes_its_configurations(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_config_from_file(str(path))
    assert (found.num_processes, found.mixed_precision) == (8, "bf16")
    table = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "fsdp2":
        for name, value in table["fsdp_config"].items():
            monkeypatch.setenv(name.upper(), str(value).lower() if isinstance(value, bool) else str(value))
        plugin = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    if path.stem.startswith("zero"):
        assert set(table["deepspeed_config"]) - {"zero3_init_flag"} <= {
            *DeepSpeedPlugin.__dataclass_fields__,
            "zero3_save_16bit_model",
        }


def test_all_are_there() -> None:
    assert [path.stem for path in ACCELERATE] == ["ddp", "fsdp2", "zero2", "zero3"]
