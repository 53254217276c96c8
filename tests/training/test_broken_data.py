"""A training goes on over broken samples and large images, and refuses to go on as another run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor, smart_resize

from strata.data import Mixture, SampleError, SampleReader, Skipped, TooManySkipped
from tests.training.tiny.squares import tiny_mixture
from tests.training.tiny.tiny_training import make_start, tiny_config
from training.changes import ChangedRun, RunRecord
from training.config import Config, ConfigError
from training.inputs.collation import Collator, limit_images, shrunk
from training.losses import LossLog
from training.skips import SkipLog
from training.train import train

BROKEN = (1, 7)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder."""
    return make_start(tmp_path_factory.mktemp("tiny"))


def broken_mixture() -> Mixture:
    return tiny_mixture(broken=BROKEN)


@pytest.fixture(scope="module")
def whole(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over three epochs in which 2 of 30 samples are broken, without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    train(tiny_config(folder, start), broken_mixture())
    return folder


def test_broken_samples_are_listed_once_and_counted(whole: Path) -> None:
    lines = SkipLog(whole).read()
    assert {line["key"] for line in lines} == {"0001", "0007"} and len(lines) == 2
    assert {line["source"] for line in lines} == {"captions"}
    assert {line["reason"] for line in lines} == {"1: broken", "7: broken"}
    counts = [line.get("skipped", 0) for line in LossLog(whole).read()]
    assert counts == sorted(counts) and counts[-1] >= 4  # in each epoch again


def test_a_resumed_run_replaces_alike(start: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint-10")
    train(tiny_config(folder, start), broken_mixture())
    assert LossLog(folder).read() == LossLog(whole).read()
    assert SkipLog(folder).read() == SkipLog(whole).read()


def test_a_run_stops_above_the_limit_and_for_the_first_if_told(start: Path, tmp_path: Path) -> None:
    mixture = tiny_mixture(captions=60, questions=0, broken=range(0, 60, 2))
    with pytest.raises(TooManySkipped, match=r"^1\d of the \d+ samples read so far cannot be read .* is 1.0%"):
        train(tiny_config(tmp_path / "skip", start), mixture)
    with pytest.raises(SampleError, match=r"^\d+: broken"):
        train(tiny_config(tmp_path / "stop", start, on_error="stop"), mixture)


def test_the_list_of_skipped_samples_goes_back_to_a_step(tmp_path: Path) -> None:
    log = SkipLog(tmp_path)
    log.append(1, [Skipped("a", 1, "k", "u", "r"), Skipped("a", 1, "k", "u", "r")])
    log.append(2, [Skipped("a", 1, "k", "u", "r"), Skipped("b", 1, "k", "u", "r")])
    with log.path.open("a") as file:
        file.write('{"step": 2, "so')
    assert [line["source"] for line in log.read()] == ["a", "b"]
    log.rewind(1)
    assert [line["source"] for line in log.read()] == ["a"]
    log.append(2, [Skipped("b", 1, "k", "u", "r")])
    assert [line["step"] for line in log.read()] == [1, 2]


# other settings


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 3}, "seed: 0 → 3"),
        ({"steps": 12}, "steps: 10 → 12"),
        ({"precision": "bf16"}, "precision: float32 → bf16"),
        ({"longest": 100}, "longest: none → 100"),
        ({"evaluation": {"split": 0.3}}, "evaluation.split: none → 0.3"),
        ({"optimizer": {"learning_rate": 1e-3, "batch_size": 2}}, "optimizer.learning_rate: 0.005 → 0.001"),
    ],
)
def test_a_run_with_other_settings_is_not_continued(
    start: Path, whole: Path, change: dict[str, Any], line: str
) -> None:
    config = tiny_config(whole, start, **change)
    with pytest.raises(ChangedRun) as caught:
        RunRecord(config, broken_mixture(), 1).check(10, allow=False)
    assert line in str(caught.value) and "--allow-changes" in str(caught.value) and "\n" not in str(caught.value)
    assert any(line in found for found in RunRecord(config, broken_mixture(), 1).check(10, allow=True))


def test_a_run_on_another_mixture_or_model_is_not_continued(start: Path, whole: Path) -> None:
    with pytest.raises(
        ChangedRun, match=r"mixture: source captions: count 20 → 19; mixture: source captions: contents"
    ):
        train(tiny_config(whole, start), tiny_mixture(captions=19))
    with pytest.raises(ChangedRun, match=r"model\.path: "):
        train(tiny_config(whole, start / "other"), broken_mixture())
    with pytest.raises(ChangedRun, match=r"processes: 1 → 8"):
        RunRecord(tiny_config(whole, start), broken_mixture(), 8).check(10, allow=False)
    # what changes no result may change
    record = RunRecord(tiny_config(whole, start, readers=2, save_steps=7), broken_mixture(), 1)
    assert record.check(10, allow=False) == []


def test_allowed_changes_are_named(
    start: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    config = tiny_config(folder, start, steps=11)
    train(config, broken_mixture(), allow_changes=True)
    assert "changed, as --allow-changes says: steps: 10 → 11" in capsys.readouterr().out
    assert json.loads((folder / "run.json").read_text())["changes"] == [{"step": 10, "changes": ["steps: 10 → 11"]}]
    assert LossLog(folder).read()[-1]["step"] == 11


# images that are too large


class Counting:
    """In the place of TRL's collator: one token for each 10 × 10 pixels of an image, and one for each character."""

    processor = type("Processor", (), {"image_token_id": 9})()

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rows = []
        for example in examples:
            (image,) = example["images"]
            if image.width > 50 * image.height:
                raise ValueError("absolute aspect ratio must be smaller than 50")
            text = sum(len(turn["content"]) for turn in example["messages"])
            rows.append([9] * max(1, image.width * image.height // 100) + [1] * text)
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": ids.clone()}


def counted(images: Sequence[Image.Image], text: str = "four", longest: int | None = 100, stop: bool = True) -> Any:
    """The batch of a collator of samples with these images."""
    from dataclasses import replace

    reader = SampleReader(tiny_mixture(), on_error="stop" if stop else "skip")
    samples = [
        replace(sample, images=[image], conversation=[{"role": "user", "content": text}])
        for sample, image in zip(reader, images, strict=False)
    ]
    collator = Collator.__new__(Collator)
    collator.inner, collator.tasks, collator.reader = Counting(), ["caption", "vqa"], reader  # type: ignore[assignment]
    collator.example_of = lambda sample: {"images": sample.images, "messages": sample.conversation}
    collator.longest, collator.max_pixels = longest, None
    return collator(samples)


def test_a_large_image_becomes_smaller_until_it_fits() -> None:
    batch = counted([Image.new("RGB", (400, 300)), Image.new("RGB", (50, 40))])
    images = (batch["input_ids"] == 9).sum(1).tolist()
    assert 85 < images[0] <= 96 and images[1] == 20 and batch["input_ids"].shape[1] <= 100
    assert batch["skipped"] == []


def test_a_long_text_leaves_half_to_the_image_and_is_cut() -> None:
    batch = counted([Image.new("RGB", (400, 300))], "x" * 300)
    images = int((batch["input_ids"] == 9).sum())
    assert 40 < images <= 50 and batch["input_ids"].shape == batch["labels"].shape == (1, 100)


def test_an_image_that_the_processor_refuses_is_named_or_replaced() -> None:
    strip = Image.new("RGB", (900, 9))
    with pytest.raises(SampleError, match=r"^(captions|questions), sample \d{4}: absolute aspect ratio"):
        counted([Image.new("RGB", (50, 40)), strip])
    batch = counted([Image.new("RGB", (50, 40)), strip], stop=False, longest=None)
    ((skipped,),) = batch["skipped"]
    assert "absolute aspect ratio" in skipped.reason and len(batch["input_ids"]) == 2


def config_of(**changes: Any) -> Config:
    return tiny_config(Path("/out"), Path("/start"), **changes)


def test_the_largest_image_follows_from_the_longest_conversation() -> None:
    # preprocessor_config.json of Qwen/Qwen2.5-VL-7B-Instruct
    qwen = type("Processor", (), {})()
    qwen.image_processor = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056, patch_size=14, merge_size=2)
    assert limit_images(qwen, config_of(longest=4096)) is None
    size = dict(qwen.image_processor.size)
    height, width = smart_resize(2200, 1700, 28, size["shortest_edge"], size["longest_edge"])
    assert 3400 < height * width / 784 <= 3584  # 4,800 without
    limit_images(qwen, config_of(longest=4096, max_pixels=200_000, min_pixels=100_000))
    size = dict(qwen.image_processor.size)
    assert (size["shortest_edge"], size["longest_edge"]) == (100_000, 200_000)


def test_other_processors_get_smaller_images() -> None:
    other = type("Processor", (), {"image_processor": object()})()
    assert limit_images(other, config_of(max_pixels=500)) == 500
    with pytest.raises(ConfigError, match="min_pixels"):
        limit_images(other, config_of(min_pixels=500))
    assert shrunk(Image.new("RGB", (100, 50)), 1250).size == (50, 25)
    assert shrunk(Image.new("RGB", (100, 50)), 5000).size == (100, 50)
    assert shrunk(Image.new("RGB", (5000, 1)), 10).size[1] == 1


def test_an_allowed_change_of_the_optimizer_takes_effect(start: Path, whole: Path, tmp_path: Path) -> None:
    """The states of optimizer and schedule in a checkpoint have these settings too."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint-10")
    before = load_file(folder / "checkpoint-9" / "model.safetensors")
    changed = {"learning_rate": 1e-12, "weight_decay": 0.5, "beta1": 0.5, "schedule": "constant_with_warmup"}
    table = {"batch_size": 4, "accumulation": 2, "warmup_steps": 2, **changed}
    train(tiny_config(folder, start, optimizer=table), broken_mixture(), allow_changes=True)
    # at this rate nothing is learned in the step that follows
    assert LossLog(folder).read()[-1]["learning_rate"] == 1e-12
    after = load_file(folder / "checkpoint-10" / "model.safetensors")
    weights = {name: tensor for name, tensor in before.items() if "running_" not in name and tensor.is_floating_point()}
    assert all(torch.allclose(after[name], tensor, rtol=0, atol=1e-9) for name, tensor in weights.items())
    groups = torch.load(folder / "checkpoint-10" / "optimizer.pt", weights_only=True)["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}
    assert {(group["lr"], group["initial_lr"], group["betas"]) for group in groups} == {(1e-12, 1e-12, (0.5, 0.999))}
