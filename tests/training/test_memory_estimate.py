"""The estimate of GPU memory: exact for what the optimizer sees, near to what autograd keeps, without weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForImageTextToText, LlavaConfig, Qwen3VLConfig

from tests.training.tiny.squares import tiny_mixture
from tests.training.tiny.tiny_training import make_start, tiny_config
from training import train as job
from training.config import Config, ConfigError, load_config
from training.memory_estimate import (
    SHARDINGS,
    activation_bytes,
    estimate_memory,
    launched_sharding,
    model_without_memory,
    start_lines,
    tokens_of,
    with_parts,
)
from training.train import load_model
from training.trainer import StageTrainer

LORA = {"rank": 2, "alpha": 2, "target_modules": ["q_proj", "up_proj"]}
JOBS: list[dict[str, Any]] = [
    {},
    {"lora": LORA, "precision": "bf16"},
    {"lora": {**LORA, "full": ["multi_modal_projector"]}},
]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder."""
    return make_start(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def eight_ranks() -> Iterator[None]:
    """A process group of eight ranks of which this is the first, and no other exists."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    yield
    distributed.destroy_process_group()


def stepped(model: Any, optimizer: torch.optim.Optimizer) -> tuple[int, int, int]:
    """The bytes of parameters, gradients and AdamW's state after a step."""
    for value in model.parameters():
        value.grad = torch.zeros_like(value) if value.requires_grad else None
    optimizer.step()
    grads = [value.grad for value in model.parameters() if value.grad is not None]
    states = [one for state in optimizer.state.values() for one in state.values()]
    found = [sum(_bytes(value) for value in values) for values in (list(model.parameters()), grads, states)]
    return found[0], found[1], found[2]


def _bytes(value: torch.Tensor) -> int:
    local = value.to_local() if isinstance(value, DTensor) else value
    return local.numel() * local.element_size()


@pytest.mark.parametrize("changes", JOBS, ids=["whole", "adapters", "both"])
def test_what_the_trainer_builds_is_counted_exactly(start: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    config = tiny_config(tmp_path, start, report_to=(), **changes)
    found = estimate_memory(model_without_memory(config), config)
    model, processor = load_model(config)
    if config.precision == "float32":
        trainer = StageTrainer(model, processor, tiny_mixture(), config)
        built = stepped(trainer.model, trainer.create_optimizer())
    else:
        # transformers refuses to train in bf16 without a GPU
        adapted = with_parts(model, config)
        built = stepped(adapted, torch.optim.AdamW(value for value in adapted.parameters() if value.requires_grad))
    assert (found.parameters, found.gradients, found.optimizer) == built


@pytest.mark.usefixtures("eight_ranks")
def test_shards_are_counted_exactly(start: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, start, model={"path": str(start), "freeze": ["vision_tower"]})
    model, _ = load_model(config)
    with_parts(model, config)
    for layer in model.get_decoder().layers:
        fully_shard(layer)
    fully_shard(model)
    trained = [value for value in model.parameters() if value.requires_grad]
    found = estimate_memory(model_without_memory(config), config, 8, "fsdp2")
    held = (found.parameters, found.gradients, found.optimizer)
    assert held == stepped(model, torch.optim.AdamW(trained, foreach=False))


def test_zeros_stages_are_those_of_its_paper(start: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, start, precision="bf16")
    model = model_without_memory(config)
    count = sum(value.numel() for value in model.parameters())
    two, three = (estimate_memory(model, config, 8, stage) for stage in ("zero2", "zero3"))
    assert two.parameters + two.gradients + two.optimizer == pytest.approx(2 * count + 14 * count / 8, abs=4)
    assert three.parameters + three.gradients + three.optimizer == pytest.approx(16 * count / 8, abs=4)


SMALL = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**SMALL, "vocab_size": 100, "num_key_value_heads": 2, "head_dim": 16}


def small(kind: str) -> Any:
    """The configuration of a small LLaVA or Qwen3-VL."""
    if kind == "llava":
        vision = {**SMALL, "model_type": "clip_vision_model", "image_size": 112, "patch_size": 14}
        text = {**TEXT, "model_type": "llama"}
        return LlavaConfig(vision_config=vision, text_config=text, image_token_index=99)
    vision = {"hidden_size": 64, "intermediate_size": 160, "depth": 2, "num_heads": 4, "out_hidden_size": 64}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 1e4}
    return Qwen3VLConfig(vision_config=vision, text_config={**TEXT, "rope_parameters": rope}, image_token_id=99)


def job_of(changes: dict[str, Any]) -> Config:
    """A job with a batch of 2 × 128 tokens."""
    table = {"mixture": "m", "output": "o", "steps": 1, "precision": "float32", "longest": 128, "model": {"path": "p"}}
    return Config.model_validate({**table, "optimizer": {"learning_rate": 1, "batch_size": 2}, **changes})


def inputs_of(kind: str, model: Any, config: Config) -> dict[str, torch.Tensor]:
    """A batch of as many tokens and patches as the estimate assumes."""
    tokens = tokens_of(model, config)
    ids = torch.ones(2, tokens.text, dtype=torch.long)
    if kind == "llava":
        ids[:, : tokens.patches - 1] = 99
        return {"input_ids": ids, "pixel_values": torch.rand(2, 3, 112, 112)}
    ids[:, 1 : tokens.patches // 4 + 1] = 99
    # 1 × 2 × (2 merged rows)
    grid = torch.tensor([[1, 4, tokens.patches // 4]] * 2)
    pixels = torch.rand(2 * tokens.patches, 3 * 2 * 16 * 16)
    kinds = (ids == 99).int()
    return {"input_ids": ids, "pixel_values": pixels, "image_grid_thw": grid, "mm_token_type_ids": kinds}


def kept_bytes(model: Any, inputs: dict[str, torch.Tensor], bf16: bool) -> int:
    """The bytes that autograd keeps after a forward pass, without the weights and their copies."""
    kept, weights = dict[int, int](), {value.untyped_storage().data_ptr() for value in model.parameters()}
    shapes = {shape for value in model.parameters() for shape in (value.shape, value.shape[::-1])}
    alive = []

    def pack(value: torch.Tensor) -> torch.Tensor:
        alive.append(value)
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights and not (value.dtype == torch.bfloat16 and value.shape in shapes):
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value), torch.autocast("cpu", enabled=bf16):
        model.model(**inputs, use_cache=False)
    return sum(kept.values())


@pytest.mark.parametrize("kind", ["llava", "qwen3"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16"},
        {"model": {"path": "p", "freeze": ["vision_tower", "visual"]}},
        {"model": {"path": "p", "attn_implementation": "eager"}},
        {"lora": {**LORA, "full": ["lm_head"]}},
    ],
    ids=["whole", "bf16", "frozen", "eager", "adapters"],
)
def test_activations_are_near_to_what_autograd_keeps(kind: str, changes: dict[str, Any]) -> None:
    found = small(kind)
    if "freeze" in changes.get("model", {}):
        name = {"llava": "vision_tower", "qwen3": "visual"}[kind]
        changes = {"model": {"path": "p", "freeze": [name]}}
    config = job_of(changes)
    attention = config.model.attn_implementation or "sdpa"
    model = AutoModelForImageTextToText.from_config(found, attn_implementation=attention)
    with_parts(model, config)
    measured = kept_bytes(model, inputs_of(kind, model, config), config.precision == "bf16")
    assert 1 / 1.25 < activation_bytes(model, config) / measured < 1.25


@pytest.mark.parametrize("kind", ["llava", "qwen3"])
def test_activations_grow_with_the_batch_and_shrink_with_checkpoints(kind: str) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(small(kind))
    base = activation_bytes(model, job_of({}))
    assert activation_bytes(model, job_of({"optimizer": {"learning_rate": 1, "batch_size": 4}})) == 2 * base
    assert activation_bytes(model, job_of({"longest": 256})) > 1.3 * base
    assert activation_bytes(model, job_of({"gradient_checkpointing": True})) < 0.8 * base


def test_the_command_prints_each_way(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.toml"
    tables = f'[model]\npath = "{start}"\n[optimizer]\nlearning_rate = 0.1\nbatch_size = 2\n'
    path.write_text(f'mixture = "m.toml"\noutput = "out"\nsteps = 5\n{tables}')
    job.estimate(path, 4)
    first, one, *ways = capsys.readouterr().out.splitlines()
    assert "assumed because `longest` is not set" in first and "no patches" in first
    assert re.match(r"one GPU: [1-9]\d*\.\d MiB \(parameters 0\.[1-9]", one)
    assert [line.split(":")[0] for line in ways] == [f"4 GPUs, {one}" for one in SHARDINGS]
    with pytest.raises(ConfigError, match="--gpus: 0 is less than 1"):
        job.estimate(path, 0)
    # the warning before the start
    config = load_config(path)
    assert len(start_lines(config, 1, 80 * 2**30)) == 1
    assert start_lines(config, 1, 1000)[1].startswith("warning: this probably does not fit")


def test_the_way_of_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched_sharding() == "ddp"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert launched_sharding() == "fsdp2"
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    assert launched_sharding() == "zero3"
