"""The matcher "yes": the probability of yes against no, on tiny random checkpoints of Qwen3-VL."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from models.base import MatcherStage
from models.building import build_stage
from models.items import Failure, Pair
from models.stages.qwen_vl import first_tokens
from strata.core.profiles import StageSettings
from tests.models.tiny.tiny_models import make, qwen3_vl


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(qwen3_vl, tmp_path_factory.mktemp("qwen3-vl"))


def _stage(folder: Path, batch_size: int = 8, stage: str = "matcher", **parameters: object) -> MatcherStage:
    settings = StageSettings(
        backend="yes", model=f"local:{folder}", revision="", batch_size=batch_size, parameters=parameters
    )
    built: MatcherStage = build_stage(stage, settings)
    built.load()
    return built


def _pairs() -> list[Pair]:
    """Crops of many sizes, with phrases of many lengths."""
    colours = ("red", "lime", "blue", "white", "black", "orange", "purple")
    return [
        Pair(Image.new("RGB", (20 + 60 * n, 300 - 40 * n), colour), f"a {colour} thing" + " of a kind" * n)
        for n, colour in enumerate(colours)
    ]


def test_a_probability_does_not_depend_on_the_batch(checkpoint: Path) -> None:
    alone: Any = _stage(checkpoint, batch_size=1).run(_pairs())
    together: Any = _stage(checkpoint).run(_pairs())
    assert together == pytest.approx(alone, abs=1e-4)
    assert len({round(value, 3) for value in alone}) > 4
    assert all(0 <= value <= 1 for value in alone)


def test_it_is_the_softmax_of_yes_and_no_at_the_answer_s_first_token(checkpoint: Path) -> None:
    stage: Any = _stage(checkpoint)
    (pair,) = _pairs()[:1]
    (value,) = stage.run([pair])
    with torch.inference_mode():
        logits = stage._model(**stage.prepare([pair])).logits[0, -1]
    # in the tiny checkpoint's tokenizer the tokens are letters; the space before both words tells nothing
    ids = {letter: stage._processor.tokenizer.convert_tokens_to_ids(letter) for letter in "YyNn"}
    odds = {letter: float(logits[token].exp()) for letter, token in ids.items()}
    assert value == pytest.approx((odds["Y"] + odds["y"]) / sum(odds.values()), abs=1e-4)


def test_swapped_answers_are_the_opposite(checkpoint: Path, tmp_path: Path) -> None:
    """A model whose yes is another's no: had the stage confused the two, nobody would see it in one model alone."""
    swapped = tmp_path / "swapped"
    shutil.copytree(checkpoint, swapped)
    stage: Any = _stage(checkpoint)
    ids = stage._processor.tokenizer.convert_tokens_to_ids(["Y", "y", "N", "n"])
    weights = load_file(swapped / "model.safetensors")
    head = weights["lm_head.weight"]
    head[ids] = head[[ids[2], ids[3], ids[0], ids[1]]].clone()
    save_file(weights, swapped / "model.safetensors", {"format": "pt"})
    right: Any = stage.run(_pairs())
    wrong: Any = _stage(swapped).run(_pairs())
    assert wrong == pytest.approx([1 - value for value in right], abs=1e-4)


def test_the_phrase_stands_in_the_question_without_its_full_stop(checkpoint: Path) -> None:
    stage: Any = _stage(checkpoint, question="Is {} here?")
    inputs = stage.prepare([Pair(Image.new("RGB", (64, 64)), " a red\ncar. "), Pair(Image.new("RGB", (64, 64)), "{}")])
    first, second = (stage._processor.tokenizer.decode(row) for row in inputs["input_ids"])
    assert "Is a red car here?" in first and "Is {} here?" in second


@pytest.mark.parametrize("question", ["Is it here?", "{} or {}?"])
def test_a_question_has_one_place_for_the_phrase(question: str, checkpoint: Path) -> None:
    with pytest.raises(ValidationError, match="must stand in the question once"):
        _stage(checkpoint, question=question)


def test_all_usual_spellings_count(checkpoint: Path) -> None:
    class Words:
        def __call__(self, text: str, add_special_tokens: bool) -> Any:
            assert not add_special_tokens
            return type("Encoded", (), {"input_ids": [hash(text)]})

    spellings = ("yes", "Yes", "YES", " yes", " Yes", " YES")
    assert first_tokens(Words(), "yes") == {hash(text) for text in spellings}


def test_what_fails_fails_alone_and_under_the_stage_s_name(checkpoint: Path) -> None:
    second = _stage(checkpoint, stage="second_matcher")
    pairs = _pairs()
    right: Any = second.run(pairs)
    broken = [*pairs[:2], Pair(Image.new("RGB", (0, 10)), "nothing"), *pairs[2:]]
    results: Any = second.run(broken)
    failure = results.pop(2)
    assert isinstance(failure, Failure) and failure.stage == "second_matcher"
    assert results == pytest.approx(right, abs=1e-4)
    second.probe()


def test_half_precision_computes_too(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.devices.best_precision", lambda: torch.bfloat16)
    monkeypatch.setattr("models.shared.best_precision", lambda: torch.bfloat16)
    stage: Any = _stage(checkpoint)
    assert stage._model.dtype is torch.bfloat16
    assert all(0 <= value <= 1 for value in stage.run(_pairs()))
