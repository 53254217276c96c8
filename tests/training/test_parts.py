"""What is trained, how fast, and on what: rates and adapters of parts, splits, groups of one length, windows."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForImageTextToText, AutoProcessor

from strata.data.reader import SampleReader
from tests.cli.test_cli import code_of
from tests.training.tiny.squares import keys_and_lengths, tiny_mixture
from tests.training.tiny.tiny_training import make_start, tiny_config
from training.batches import Batches, text_length
from training.config import Config, ConfigError, LoraTable
from training.inputs.windows import check_several_images, windows_of
from training.losses import LossLog
from training.merging import merged
from training.parts import adapter_of, parameter_groups
from training.splits import split
from training.train import load_model, parts_of, train
from training.trainer import StageTrainer

ATTENTION, MLP = r"layers\.\d+\.self_attn\.q_proj", r"layers\.\d+\.mlp\.up_proj"
BY_PARTS = {
    "rank": 2,
    "alpha": 2,
    "target_modules": rf".*language_model\.({ATTENTION}|{MLP})",
    "ranks": {MLP: 4},
    "full": ["multi_modal_projector"],
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """So small a model gains nothing by two threads, and they wait for each other when the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder."""
    return make_start(tmp_path_factory.mktemp("tiny"))


def trainer_of(config: Config) -> StageTrainer:
    """The trainer of a job."""
    model, processor = load_model(config)
    trained, validation = parts_of(config, tiny_mixture())
    return StageTrainer(model, processor, trained, config, validation)


def test_each_part_learns_at_its_rate(start: Path, tmp_path: Path) -> None:
    rates = {"vision_tower": 1e-6, "multi_modal_projector": 2e-3, "language_model.norm": 3e-3}
    table = {"learning_rate": 1e-4, "batch_size": 4, "weight_decay": 0.1, "rates": rates}
    trainer = trainer_of(tiny_config(tmp_path, start, optimizer=table))
    groups = trainer.create_optimizer().param_groups
    of = {parameter: group for group in groups for parameter in group["params"]}
    assert trainer.model is not None and len(of) == len(list(trainer.model.parameters()))
    for name, parameter in trainer.model.named_parameters():
        part = next((part for part in rates if f"{part}." in name), "")
        assert (of[parameter]["part"], of[parameter]["lr"]) == (part, rates.get(part, 1e-4)), name
        if name.endswith("bias") or "norm" in name:
            assert of[parameter]["weight_decay"] == 0.0
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}


def test_rates_of_what_is_not_there_or_not_trained_are_errors() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    model[0].requires_grad_(False)
    with pytest.raises(ConfigError, match="no module 'tower'"):
        parameter_groups(model, [], 0.1, {"tower": 0.2}, 0.0)
    with pytest.raises(ConfigError, match="nothing in '0' is trained"):
        parameter_groups(model, [], 0.1, {"0": 0.2}, 0.0)


def test_adapters_of_parts_are_merged_in_the_end(start: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, start, lora=BY_PARTS, steps=3)
    folder = train(config, tiny_mixture())
    before, after = (AutoModelForImageTextToText.from_pretrained(path).state_dict() for path in (start, folder))
    assert before.keys() == after.keys()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert {name.split(".")[-2] for name in changed if "language_model" in name} == {"q_proj", "up_proj"}
    assert all("language_model" in name or "multi_modal_projector" in name for name in changed)
    # a change of rank 2 in attention, and of 4 in the MLP
    ranks = {
        name.split(".")[-2]: torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-4)
        for name in changed
        if "language_model" in name
    }
    assert (int(ranks["q_proj"]), int(ranks["up_proj"])) == (2, 4)


def test_a_run_with_whole_parts_goes_on_from_its_checkpoint(start: Path, tmp_path: Path) -> None:
    config, log = tiny_config(tmp_path, start, lora=BY_PARTS, steps=4), LossLog(tmp_path)
    train(config, tiny_mixture())
    whole = log.read()
    # as if the run had been killed after step 3: its last step is trained again
    (tmp_path / "checkpoint-4" / "whole").unlink()
    train(config, tiny_mixture())
    assert log.read() == whole


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"ranks": {"no_such": 2}}, "lora.ranks: no module with an adapter is named 'no_such'"),
        ({"full": ["no_such"]}, "lora.full: the model has no module 'no_such'"),
        ({"full": ["language_model"]}, "has adapters in it"),
        ({"target_modules": ["no_such"]}, "lora.target_modules: the model has no module 'no_such'"),
    ],
)
@pytest.mark.parametrize("full", [True, False])
def test_adapters_of_what_is_not_there_are_errors(
    start: Path, tmp_path: Path, change: dict[str, Any], line: str, full: bool
) -> None:
    """With modules that are trained whole, where adapters lie in the model itself, and without."""
    table = {**BY_PARTS, **change} if full or "full" in change else {**BY_PARTS, "full": [], **change}
    with pytest.raises(ConfigError, match=line):
        trainer_of(tiny_config(tmp_path, start, lora=table))


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("nosuch", "the model has no module 'nosuch'"),
        (["0", "nosuch"], "the model has no module 'nosuch'"),
        ("(", "'(' is no regular expression"),
        ([], "it is empty"),
        ("", "'' is a Sequential, and adapters need a linear layer"),
        (["1"], "'1' is a LayerNorm, and adapters need a linear layer"),
        ("[01]", "'1' is a LayerNorm, and adapters need a linear layer"),
    ],
)
def test_target_modules_that_cannot_have_adapters(names: Any, line: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.LayerNorm(1))
    with pytest.raises(ConfigError, match=re.escape(f"lora.target_modules: {line}")):
        adapter_of(model, LoraTable(target_modules=names))
    with pytest.raises(ConfigError, match=r"lora.ranks: '\(.*' is no regular expression"):
        adapter_of(model, LoraTable(ranks={"(": 2}))


def test_a_wrong_name_ends_the_command_with_one_line(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.toml"
    tables = f'[model]\npath = "{start}"\n[optimizer]\nlearning_rate = 0.1\nbatch_size = 1\n'
    tables += '[lora]\ntarget_modules = "nosuch"\n'
    path.write_text(f'mixture = "m.toml"\noutput = "out"\nsteps = 5\n{tables}')
    assert code_of("train", str(path), "--estimate") == 2
    assert capsys.readouterr().err == "strata: lora.target_modules: the model has no module 'nosuch'\n"


def test_merging_adds_the_scaled_product() -> None:
    down, up, weight = torch.ones(1, 2), torch.tensor([[1.0], [2.0]]), torch.zeros(2, 2)
    state = {"a.base_layer.weight": weight, "a.lora_A.default.weight": down, "a.lora_B.default.weight": up}
    assert merged({**state, "b.bias": down}, {"a": 0.5})["a.weight"].tolist() == [[0.5, 0.5], [1.0, 1.0]]
    assert set(merged({**state, "b.bias": down}, {"a": 0.5})) == {"a.weight", "b.bias"}


def test_a_split_leaves_nothing_out_and_nothing_in_both() -> None:
    mixture = tiny_mixture()
    trained, held_out = split(mixture, 7, 0.2)
    assert (len(trained), len(held_out)) == (24, 6)

    def found(part: Any) -> list[tuple[int, int]]:
        shares, numbers = part.locate(np.arange(len(part)), 7)
        return list(zip(shares.tolist(), numbers.tolist(), strict=True))

    assert sorted(found(trained) + found(held_out)) == sorted(found(mixture))
    assert trained.identity != mixture.identity != held_out.identity != split(mixture, 8, 0.2)[1].identity
    assert {sample.key for sample in SampleReader(held_out, seed=7)}


def test_the_loss_on_held_out_samples_is_logged_and_changes_nothing(start: Path, tmp_path: Path) -> None:
    lines = []
    for every in (2, 100):
        folder = tmp_path / str(every)
        config = tiny_config(folder, start, steps=5, evaluation={"every": every, "split": 0.3})
        train(config, tiny_mixture())
        lines.append(LossLog(folder).read())
    assert lines[0] == lines[1]
    found = LossLog(tmp_path / "2", "validation.jsonl").read()
    assert [line["step"] for line in found] == [2, 4, 5]
    # 8 of the 9 samples held out fill batches of 4; the loss falls with that of the training
    assert found[-1]["loss"] < found[0]["loss"] and set(found[0]["tasks"]) == {"caption", "vqa"}
    events = EventAccumulator(str(tmp_path / "2" / "tensorboard")).Reload()
    logged = events.Scalars("train/loss")
    assert [event.step for event in logged] == [1, 2, 3, 4, 5]
    assert [event.value for event in logged] == pytest.approx([line["loss"] for line in lines[0]])
    assert {"train/loss/caption", "train/loss/vqa", "train/learning_rate", "eval/loss"} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("eval/loss")] == pytest.approx([line["loss"] for line in found])


def test_nothing_is_reported_if_the_job_says_so(start: Path, tmp_path: Path) -> None:
    train(tiny_config(tmp_path, start, steps=1, report_to=()), tiny_mixture())
    assert not (tmp_path / "tensorboard").exists()
    with pytest.raises(ConfigError, match="the package trackio is not installed: pip install trackio"):
        trainer_of(tiny_config(tmp_path, start, report_to=("trackio",)))


@pytest.mark.parametrize("workers", [0, 2])
def test_groups_of_one_length_go_on_at_any_batch(workers: int) -> None:
    def batches(seen: int, count: int, workers: int = 0) -> list[Any]:
        reader = SampleReader(tiny_mixture(), seed=3, batch_size=6, drop_last=True)
        found = iter(Batches(reader, 2, keys_and_lengths, workers, seen, group=3))
        return [next(found) for _ in range(count)]

    whole = batches(0, 30)
    assert len({key for batch in whole[:15] for key, _ in batch}) == 20
    # an epoch has 15 batches
    assert batches(7, 8, workers) == whole[7:15]
    if not workers:
        assert all(batches(seen, 20 - seen) == whole[seen:20] for seen in range(1, 20))
    # within a group no batch spans another
    for start in range(0, 30, 3):
        spans = sorted((min(n for _, n in batch), max(n for _, n in batch)) for batch in whole[start : start + 3])
        assert all(one[1] <= other[0] for one, other in pairwise(spans))


def test_all_ranks_compute_similar_lengths_at_one_time() -> None:
    def lengths(rank: int) -> list[float]:
        reader = SampleReader(tiny_mixture(64, 64), 1, rank, 2, batch_size=32, drop_last=True)
        batches = iter(Batches(reader, 4, lambda samples: {"mean": sum(map(text_length, samples)) / 4}, group=8))
        return [next(batches)["mean"] for _ in range(16)]

    one, other = np.array(lengths(0)), np.array(lengths(1))
    shuffled = list(other)
    random.Random(0).shuffle(shuffled)
    assert np.abs(one - other).mean() < np.abs(one - np.array(shuffled)).mean() / 2


def test_windows_are_monkeys(start: Path) -> None:
    image = Image.new("RGB", (1000, 500), "red")
    image.paste("blue", (500, 250, 1000, 500))
    views = windows_of(image, 448, 2)
    assert [view.size for view in views] == [(448, 448)] * 5
    # row by row, the whole last
    assert [view.getpixel((224, 224)) for view in views[:4]] == [(255, 0, 0)] * 3 + [(0, 0, 255)]
    assert views[4].getpixel((100, 100)) == (255, 0, 0) and views[4].getpixel((400, 400)) == (0, 0, 255)
    check_several_images(AutoProcessor.from_pretrained(start), 5)


def test_windows_are_trained_on(start: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, start, steps=2, windows={"side": 32, "across": 2})
    trainer = trainer_of(config)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["pixel_values"].shape[0] == 4 * 5
    tokens = (batch["input_ids"] == trainer.processing_class.image_token_id).sum(1)  # type: ignore[union-attr]
    assert tokens.tolist() == [5 * 4] * 4
    train(config, tiny_mixture())


def test_a_processor_for_one_image_is_refused(start: Path) -> None:
    class OneImage:
        """A processor that reads the first image of a sample only."""

        image_token_id = 1

        def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
            """Three image tokens, whatever is given."""
            return {"input_ids": torch.tensor([[1, 1, 1, 0]])}

    with pytest.raises(ConfigError, match="makes 3 image tokens of one image and 3 of 5"):
        check_several_images(OneImage(), 5)  # type: ignore[arg-type]
