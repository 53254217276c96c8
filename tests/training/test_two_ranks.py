"""Training on two processes: the same losses as one, by DDP, and by the sharding that FSDP2's file asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from transformers import AutoModelForImageTextToText, LlavaConfig, Qwen2_5_VLConfig, Qwen3VLConfig

from tests.checkout import CHECKOUT
from tests.servers.containers import free_port
from tests.training.tiny.squares import tiny_mixture
from tests.training.tiny.tiny_training import make_start
from tests.training.tiny.two_ranks import two_ranks_config
from training.config import ConfigError
from training.losses import LossLog
from training.parts import name_present_layers
from training.processes import joined_processes
from training.train import train


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    start = make_start(tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "tests.training.tiny.two_ranks", str(tmp_path / "two"), str(start)],
        env={**os.environ, "MASTER_PORT": str(free_port())},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    train(two_ranks_config(tmp_path / "one", start, 4), tiny_mixture())
    assert json.loads((tmp_path / "two" / "run.json").read_text())["settings"]["processes"] == 2
    one, two = (LossLog(tmp_path / name).read() for name in ("one", "two"))
    assert len(one) == 3 and one[0]["loss"] > one[2]["loss"]
    for alone, together in zip(one, two, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        tokens = [{task: value["tokens"] for task, value in line["tasks"].items()} for line in (alone, together)]
        assert tokens[0] == tokens[1]
    sharded = json.loads((tmp_path / "two" / "sharded.json").read_text())
    assert sharded["layers"] >= 1 and sharded["sharded"] == pytest.approx(sharded["whole"], rel=1e-4)
    assert sharded["whole"][2] < sharded["whole"][0] - 0.1


def test_processes_that_do_not_join_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would train alone, and write the files of the others. The tests' own process has joined nobody."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were started, but 1 of them train together"):
        joined_processes()


@pytest.mark.parametrize(
    "config", [LlavaConfig(), Qwen2_5_VLConfig(), Qwen3VLConfig()], ids=["llava", "qwen2.5", "qwen3"]
)
def test_fsdp2_finds_the_layers_of_each_recipe(config: Any) -> None:
    """accelerate refuses a model that declares a layer which it does not have, as LLaVA-1.5 does with CLIP's text."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    name_present_layers(model)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP")
    policy = fsdp2_prepare_auto_wrap_policy(plugin, model)
    assert policy is not None
    wrapped = [name for name, module in model.named_modules() if policy(module)]
    # each layer of the language model and of the tower
    assert sum("language_model.layers." in name for name in wrapped) == config.text_config.num_hidden_layers
    depth = getattr(config.vision_config, "depth", None) or config.vision_config.num_hidden_layers
    assert sum("vision_tower" in name or "visual" in name for name in wrapped) >= depth
