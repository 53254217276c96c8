"""The training job: exact resume, losses per task, LoRA, clear errors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText
from trl.data_utils import prepare_multimodal_messages

from samples.scenes import HELD_OUT_SEED, make_scene
from strata.cli import exits
from strata.data.mixtures import Mixture, MixtureError, Share
from strata.data.reader import SampleReader
from strata.data.sources.files import conversation_source
from strata.errors import StrataError
from tests.checkout import CHECKOUT
from tests.data.public_sets import mix
from tests.training.tiny.squares import tiny_mixture
from tests.training.tiny.tiny_training import make_start, tiny_config
from training import train as job
from training.ablation.held_out import describe
from training.batches import Batches
from training.config import ConfigError, load_config
from training.inputs.examples import example_of
from training.losses import LossLog, running_means
from training.train import mixture_of, train
from training.trainer import WHOLE, last_checkpoint

LORA = {"rank": 2, "alpha": 4, "dropout": 0.3}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder."""
    return make_start(tmp_path_factory.mktemp("tiny"))


def losses(folder: Path) -> list[dict[str, Any]]:
    return LossLog(folder).read()


@pytest.fixture(scope="module")
def whole(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with LoRA and dropout without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    train(tiny_config(folder, start, lora=LORA), tiny_mixture())
    return folder


def test_a_killed_run_goes_on_as_if_nothing_had_been(start: Path, whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.tiny.tiny_training", str(tmp_path), str(start), "8"]
    killed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    assert losses(tmp_path)[-1]["step"] == 8
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-6"
    train(tiny_config(tmp_path, start, lora=LORA), tiny_mixture())
    assert losses(tmp_path) == losses(whole)


def test_an_unfinished_checkpoint_is_passed_over(start: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    newest = last_checkpoint(folder)
    assert newest is not None and newest.name == "checkpoint-10"
    (newest / WHOLE).unlink()
    (newest / "trainer_state.json").write_text("{")
    assert last_checkpoint(folder) == folder / "checkpoint-9"
    train(tiny_config(folder, start, lora=LORA), tiny_mixture())
    assert losses(folder) == losses(whole)


def test_losses_are_logged_per_task_and_plotted(whole: Path) -> None:
    lines = losses(whole)
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert {task for line in lines for task in line["tasks"]} == {"caption", "vqa"}
    for line in lines:
        tokens = sum(task["tokens"] for task in line["tasks"].values())
        mean = sum(task["loss"] * task["tokens"] for task in line["tasks"].values()) / tokens
        assert line["loss"] == pytest.approx(mean)
    assert (whole / "losses.png").stat().st_size > 5000


def test_lora_trains_adapters_alone(start: Path, whole: Path) -> None:
    base = AutoModelForImageTextToText.from_pretrained(start)
    adapted = PeftModel.from_pretrained(base, str(whole / "model"))
    changed = [name for name, value in adapted.named_parameters() if "lora_B" in name and value.abs().sum() > 0]
    assert changed and not list((whole / "model").glob("model*.safetensors"))


def test_full_training_learns_and_what_is_frozen_stays(start: Path, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        start,
        model={"path": str(start), "freeze": ["vision_tower"]},
        steps=25,
        save_steps=100,
    )
    folder = train(config, tiny_mixture(questions=0))
    lines = losses(tmp_path)
    assert lines[-1]["loss"] < lines[0]["loss"] - 2
    before, after = (AutoModelForImageTextToText.from_pretrained(path).state_dict() for path in (start, folder))
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert same == {name for name in before if "vision_tower" in name}
    scenes = [make_scene(HELD_OUT_SEED)]
    assert describe(folder, scenes) != describe(start, scenes)


def test_batches_go_on_at_any_step_and_differ_by_epoch() -> None:
    from strata.data.reader import SampleReader

    def keys(seen: int, count: int) -> list[list[str]]:
        reader = SampleReader(tiny_mixture(10, 0), seed=3, batch_size=4, drop_last=True)
        batches = iter(Batches(reader, 4, lambda samples: {"keys": [one.key for one in samples]}, seen=seen))
        return [next(batches)["keys"] for _ in range(count)]

    whole = keys(0, 7)
    assert whole[:2] != whole[2:4]
    assert all(keys(seen, 7 - seen) == whole[seen:] for seen in range(1, 7))


def test_errors_of_a_configuration_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    good = {"mixture": '"m.toml"', "output": '"out"', "steps": "5"}
    tables = '[model]\npath = "start"\n[optimizer]\nlearning_rate = 0.1\nbatch_size = 2\n'

    def error(changes: dict[str, str | None], rest: str = tables) -> str:
        lines = [f"{name} = {value}" for name, value in {**good, **changes}.items() if value is not None]
        path.write_text("\n".join([*lines, rest]))
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "mixture: Field required" in error({"mixture": None})
    assert "one of steps and epochs" in error({"epochs": "1"})
    assert "stepps" in error({"stepps": "5"})
    assert "optimizer.batch_size" in error({}, tables.replace("batch_size = 2", "batch_size = 0"))
    assert "line 1" in error({"mixture": "="})
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        load_config(path)


def test_paths_are_taken_from_the_configuration(tmp_path: Path) -> None:
    for name in ("monkey", "demo"):
        config = load_config(CHECKOUT / "training" / "configs" / f"{name}.toml")
        assert config.mixture == CHECKOUT / "training" / "mixtures" / f"{name}.toml"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": {"path": "/no/such/model"}}, "/no/such/model cannot be loaded"),
        ({"optimizer": {"learning_rate": 0.1, "batch_size": 31}}, "30 samples does not fill a batch of 31"),
        ({"model": {"freeze": ["no_such"]}}, "no module 'no_such'"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    start: Path, tmp_path: Path, changes: dict[str, dict[str, Any]], line: str
) -> None:
    model = {"path": str(start), **changes.pop("model", {})}
    with pytest.raises(StrataError) as caught:
        train(tiny_config(tmp_path, start, model=model, **changes), tiny_mixture())
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_mixture_that_cannot_be_read_is_one_line(start: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "out", start, mixture=tmp_path / "m.toml", store=str(tmp_path / "store"))
    with pytest.raises(ConfigError, match=r"m\.toml: No such file"):
        mixture_of(config)
    source = '[[sources]]\nname = "a"\nsnapshot = "no-such"\ninstruction = "Say."\nlayer = "{}"\n'
    for layer, line in (("captions", "no layer 'captions'"), ("caption", "no snapshot 'no-such'")):
        config.mixture.write_text('name = "m"\n' + source.format(layer))
        with pytest.raises(MixtureError, match=line) as caught:
            mixture_of(config)
        assert "\n" not in str(caught.value)


def test_the_module_keeps_the_traceback_of_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path / "no.toml")])
    with pytest.raises(SystemExit) as caught:
        job.main()
    assert caught.value.code == exits.USAGE
    assert capsys.readouterr().err == f"train: {tmp_path}/no.toml: No such file or directory\n"

    def broken(path: Path, allow_changes: bool) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(job, "run", broken)
    with pytest.raises(KeyError):
        job.main()


def test_half_a_line_of_the_log_is_forgotten(tmp_path: Path) -> None:
    log = LossLog(tmp_path)
    log.path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    log.rewind(1)
    assert log.path.read_text() == '{"step": 1, "loss": 2.0}\n'
    assert running_means([1.0, 3.0, 5.0], 2) == [1.0, 2.0, 4.0]


def test_trl_takes_them(tmp_path: Path) -> None:
    """TRL's own function places as many images as the sample has."""
    mix(tmp_path)
    source = conversation_source(f"{tmp_path}/mix.json", f"{tmp_path}/images", tmp_path / "cache")
    samples = sorted(SampleReader(Mixture([Share("mix", "mix", source, 6)])), key=lambda sample: sample.key)
    shapes = []
    for example in map(example_of, samples):
        messages = prepare_multimodal_messages(example["messages"], images=example["images"])
        shapes.append([[part["type"] for part in turn["content"]] for turn in messages])
    image, text = "image", "text"
    assert shapes[0][0] == [image, text] and shapes[1] == [[text], [text]]
    assert shapes[2][0] == [image, text, image, text] and shapes[3][0] == [image, image, text]
