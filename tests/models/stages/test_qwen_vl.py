"""The captioner's back end for Qwen3-VL, on a tiny random checkpoint that is saved and loaded as a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from models.base import WeightsMissing
from models.building import build_stage
from models.items import CaptionRequest, Failure
from models.stages.qwen_vl import QwenVLCaptioner
from strata.core.profiles import StageSettings
from tests.models.tiny.tiny_models import make, qwen3_vl


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(qwen3_vl, tmp_path_factory.mktemp("qwen3-vl"))


def _stage(folder: Path, *, batch_size: int = 4, **parameters: object) -> QwenVLCaptioner:
    asked = {"scene_prompt": "Tell all.", "crop_prompt": "Name it.", "scene_tokens": 12, "crop_tokens": 6}
    settings = StageSettings(
        backend="qwen3_vl",
        model=f"local:{folder}",
        revision="",
        batch_size=batch_size,
        parameters=asked | {"max_pixels": 65_536} | parameters,
    )
    stage = build_stage("captioner", settings)
    assert isinstance(stage, QwenVLCaptioner)
    stage.load()
    return stage


def _requests() -> list[CaptionRequest]:
    """Scenes and crops in turn, of many sizes and colours."""
    colours = ("red", "lime", "blue", "white", "black", "orange", "purple")
    return [
        CaptionRequest(Image.new("RGB", (20 + 90 * n, 370 - 50 * n), colour), "crop" if n % 2 else "scene")
        for n, colour in enumerate(colours)
    ]


class _Spy:
    """Keeps what each call of `generate` was given."""

    def __init__(self, stage: QwenVLCaptioner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        generate = stage._model.generate

        def spying(**arguments: Any) -> Any:
            self.calls.append(arguments)
            return generate(**arguments)

        monkeypatch.setattr(stage._model, "generate", spying)


def test_order_and_answers_do_not_depend_on_the_batch(checkpoint: Path) -> None:
    stage = _stage(checkpoint, batch_size=7)
    requests = _requests()
    alone = [stage.run([request])[0] for request in requests]
    assert stage.run(requests) == alone
    assert _stage(checkpoint, batch_size=2).run(requests[::-1]) == alone[::-1]
    assert all(isinstance(text, str) for text in alone)
    assert len(set(alone)) > 4  # the images were looked at
    assert stage.run([]) == []


def test_each_kind_has_its_question_and_its_limit(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = _stage(checkpoint, batch_size=7)
    spy = _Spy(stage, monkeypatch)
    stage.run(_requests())
    asked = [
        (len(call["image_grid_thw"]), call["max_new_tokens"], call["do_sample"], call["num_beams"])
        for call in spy.calls
    ]
    assert asked == [(4, 12, False, 1), (3, 6, False, 1)]
    for call, words in zip(spy.calls, ("Tell all.", "Name it."), strict=True):
        for ids in call["input_ids"]:
            chat = stage._processor.tokenizer.decode(ids, skip_special_tokens=True)
            assert chat == f"user\n{words}\nassistant"
        assert call["attention_mask"][:, -1].all()  # padded on the left


def test_images_of_like_size_share_a_call(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = _stage(checkpoint, batch_size=2, min_pixels=1024, max_pixels=1_048_576)
    spy = _Spy(stage, monkeypatch)
    small, large = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (512, 512), "blue")
    stage.run([CaptionRequest(image, "crop") for image in (large, small, large, small)])
    assert [call["image_grid_thw"].tolist() for call in spy.calls] == [[[1, 4, 4]] * 2, [[1, 32, 32]] * 2]
    assert all(call["attention_mask"].all() for call in spy.calls)


def test_pixels_are_kept_between_the_bounds(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = _stage(checkpoint, min_pixels=64 * 64, max_pixels=128 * 128)
    spy = _Spy(stage, monkeypatch)
    for side in (8, 96, 800):
        stage.run([CaptionRequest(Image.new("RGB", (side, side), "red"))])
    assert [call["image_grid_thw"].tolist() for call in spy.calls] == [[[1, 4, 4]], [[1, 6, 6]], [[1, 8, 8]]]


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 2)])
def test_odd_sizes_have_a_phrase(size: tuple[int, int], checkpoint: Path) -> None:
    (answer,) = _stage(checkpoint).run([CaptionRequest(Image.new("RGB", size, "red"), "crop")])
    assert isinstance(answer, str)


def test_a_failing_image_fails_alone(checkpoint: Path) -> None:
    stage = _stage(checkpoint, batch_size=8)
    requests = _requests()
    expected = stage.run(requests)
    requests[2] = CaptionRequest(Image.new("RGB", (0, 10)), "scene")
    answers = stage.run(requests)
    failure = answers[2]
    assert isinstance(failure, Failure) and failure.stage == "captioner" and failure.detail
    assert answers[:2] + answers[3:] == expected[:2] + expected[3:]


def test_settings_that_cannot_be_met(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="nowhere"):
        _stage(tmp_path / "nowhere")
    with pytest.raises(ValidationError, match="temperature"):
        _stage(checkpoint, temperature=1)
    with pytest.raises(ValidationError, match="crop_prompt"):
        _stage(checkpoint, crop_prompt="")
