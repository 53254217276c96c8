"""`strata mixture check --training`: what a training would leave out or cut is told before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from strata.cli import exits
from tests.cli.test_cli import code_of
from tests.fakes import jpeg
from tests.training.tiny.tiny_training import make_start, tiny_config
from training.config import QuestionsTable
from training.evaluation.held_out import Answerer, Question

LONGEST = 40  # tokens; the tiny model makes 4 of an image


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("tiny"))


def entry(number: int, images: int = 1, words: int = 1) -> dict[str, Any]:
    turns = [{"from": "human", "value": "what ?"}, {"from": "gpt", "value": "red " * words}]
    return {"id": f"e{number}", "image": ["0.jpg"] * images, "conversations": turns}


def write(folder: Path, start: Path, entries: list[dict[str, Any]], settings: str = "") -> list[str]:
    """Arguments of `strata mixture check` for a mixture of these entries and a training on it."""
    (folder / "0.jpg").write_bytes(jpeg(40))
    (folder / "said.json").write_text(json.dumps(entries))
    (folder / "mixture.toml").write_text("name = 'm'\n[[sources]]\nname = 'said'\nconversations = 'said.json'\n")
    (folder / "train.toml").write_text(
        f"mixture = 'mixture.toml'\noutput = 'out'\nsteps = 1\nlongest = {LONGEST}\n{settings}\n"
        f"[model]\npath = '{start}'\n[optimizer]\nlearning_rate = 1.0\nbatch_size = 1\n"
    )
    where = ["--store", str(folder / "store"), "--cache", str(folder / "cache")]
    return ["mixture", "check", str(folder / "mixture.toml"), "--training", str(folder / "train.toml"), *where]


def checked(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, dict[str, Any]]:
    code = code_of(*arguments, "--json")
    (found,) = json.loads(capsys.readouterr().out)["sources"]
    return code, found


def test_what_does_not_fit_is_counted_and_the_first_is_named(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [*map(entry, range(6)), entry(6, images=12), entry(7, words=60)]
    code, found = checked(capsys, write(tmp_path, start, entries))
    assert code == exits.MIXTURE_INCOMPLETE and found["unfit"] == 1
    of = "of 8 samples that were tried for the training"
    assert found["problem"].startswith(f"{of}, 1 do not fit and are left out; the first: said, sample e6: ")
    assert found["note"] == f"{of}, 1 are cut after {LONGEST} tokens"
    # fewer than the training's limit are only noted
    code, found = checked(capsys, write(tmp_path, start, entries, "skip_limit = 0.2"))
    assert (code, found["problem"]) == (0, None) and "1 do not fit and are left out" in found["note"]
    code, found = checked(capsys, write(tmp_path, start, entries[:6]))
    assert (code, found["problem"], found["note"], found["unfit"]) == (0, None, None, 0)


def test_no_image_that_fits_is_told_as_the_training_does(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write(tmp_path, start, [entry(0)])
    (tmp_path / "train.toml").write_text((tmp_path / "train.toml").read_text().replace(f"= {LONGEST}", "= 5"))
    assert code_of(*arguments) == exits.USAGE
    assert "longest: 5 tokens are too few: an image and a short question take" in capsys.readouterr().err


def test_questions_show_images_as_the_training_does(start: Path, tmp_path: Path) -> None:
    Image.new("RGB", (80, 40), "red").save(tmp_path / "a.png")
    question = Question("1", tmp_path / "a.png", "what ?", ("red",))
    table = QuestionsTable(name="a", file=tmp_path / "a.jsonl")
    config = tiny_config(tmp_path, start, windows={"side": 32}, max_pixels=800)
    answerer = Answerer(start, config)
    (message,) = answerer._messages(question, table.instruction)
    assert [part.get("image", Image.new("RGB", (1, 1))).size for part in message["content"]] == [(32, 32)] * 5 + [
        (1, 1)
    ]
    answerer.windows = None
    (message,) = answerer._messages(question, table.instruction)
    assert message["content"][0]["image"].size == (40, 20)
    assert len(answerer.answer([question], table)) == 1
