"""The captioner's Florence-2 and BLIP-2, on tiny random checkpoints that are saved and loaded as real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers import AutoProcessor

from models.base import WeightsMissing
from models.building import build_stage
from models.items import CaptionRequest, Failure
from models.writers import CaptionerStage, WriterStage
from strata.core.profiles import StageSettings
from tests.models.tiny.tiny_models import blip2_captioner, florence, make

MAKERS = {"florence2": florence, "blip2": blip2_captioner}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {backend: make(maker, tmp_path_factory.mktemp(backend)) for backend, maker in MAKERS.items()}


def _stage(backend: str, folder: Path, *, batch_size: int = 4, **parameters: object) -> CaptionerStage:
    limits = {"scene_tokens": 12, "crop_tokens": 6}
    settings = StageSettings(
        backend=backend,
        model=f"local:{folder}",
        revision="",
        batch_size=batch_size,
        parameters=limits | parameters,
    )
    stage = build_stage("captioner", settings)
    assert isinstance(stage, WriterStage)
    stage.load()
    return stage


def _requests() -> list[CaptionRequest]:
    """Scenes and crops in turn, of many sizes and colours."""
    colours = ("red", "lime", "blue", "white", "black", "orange", "purple")
    return [
        CaptionRequest(Image.new("RGB", (20 + 9 * n, 70 - 5 * n), colour), "crop" if n % 2 else "scene")
        for n, colour in enumerate(colours)
    ]


@pytest.mark.parametrize("backend", MAKERS)
def test_order_and_answers_do_not_depend_on_the_batch(backend: str, checkpoints: dict[str, Path]) -> None:
    stage = _stage(backend, checkpoints[backend])
    requests = _requests()
    alone = [stage.run([request])[0] for request in requests]
    assert stage.run(requests) == alone
    assert all(isinstance(text, str) for text in alone)
    assert len(set(alone)) > 3  # the images were looked at
    assert stage.run([]) == []


@pytest.mark.parametrize("backend", MAKERS)
def test_one_call_for_each_kind_of_a_batch(
    backend: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage: Any = _stage(backend, checkpoints[backend], batch_size=8)
    generate, limits = stage._model.generate, []

    def counted(**arguments: Any) -> torch.Tensor:
        limits.append((len(arguments["pixel_values"]), arguments["max_new_tokens"]))
        result: torch.Tensor = generate(**arguments)
        return result

    monkeypatch.setattr(stage._model, "generate", counted)
    stage.run(_requests())
    assert limits == [(4, 12), (3, 6)]


@pytest.mark.parametrize("backend", MAKERS)
def test_a_failing_image_fails_alone(backend: str, checkpoints: dict[str, Path]) -> None:
    stage = _stage(backend, checkpoints[backend], batch_size=8)
    requests = _requests()
    expected = stage.run(requests)
    requests[2] = CaptionRequest(Image.new("RGB", (0, 10)), "scene")
    answers = stage.run(requests)
    failure = answers[2]
    assert isinstance(failure, Failure)
    assert failure.stage == "captioner"
    assert failure.detail
    assert answers[:2] + answers[3:] == expected[:2] + expected[3:]


def test_the_answer_does_not_repeat_the_prompt(checkpoints: dict[str, Path]) -> None:
    stage = _stage("blip2", checkpoints["blip2"], scene_prompt="A red car")
    for answer in stage.run(_requests()):
        assert isinstance(answer, str)
        assert not answer.startswith("A red car")


def test_the_task_decides(checkpoints: dict[str, Path]) -> None:
    stage: Any = _stage("florence2", checkpoints["florence2"], scene_task="<MORE_DETAILED_CAPTION>")
    words = stage._processor.tokenizer.decode(stage._inputs([_requests()[0].image], "scene")["input_ids"][0])
    assert "Describe with a paragraph what is shown in the image." in words


def test_an_unknown_parameter_is_an_error(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        _stage("florence2", checkpoints["florence2"], temperature=1)


@pytest.mark.parametrize("backend", MAKERS)
def test_missing_weights_are_named(backend: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="nowhere"):
        _stage(backend, tmp_path / "nowhere")


def test_loads_through_the_auto_class(checkpoints: dict[str, Path]) -> None:
    assert type(AutoProcessor.from_pretrained(checkpoints["florence2"])).__name__ == "Florence2Processor"


def test_blip2_writes_at_least_one_token(tmp_path: Path) -> None:
    # the end token is the likeliest first one
    stage = _stage("blip2", make(blip2_captioner, tmp_path, answer="</s>"))
    texts = stage.run(_requests())
    assert all(isinstance(text, str) and text for text in texts), texts
