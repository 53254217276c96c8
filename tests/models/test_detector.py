"""The detector's two back ends, on tiny checkpoints of random weights that are saved and loaded as real ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.ops import box_iou
from transformers import (
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
)

from models.base import DetectorStage, WeightsMissing
from models.building import build_stage
from models.items import Detection, Failure
from models.stages.detector import DENSE_CAPTIONS, FlorenceDetector
from strata.core.profiles import StageSettings
from tests.tiny_models import florence, make

LABELS = ("an owl", "a red car", "a sign")


def _labels(folder: Path) -> None:
    backbone = RTDetrResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic")
    backbone.set_output_features_output_indices(out_indices=[2, 3, 4], out_features=None)
    config = RTDetrV2Config(
        backbone_config=backbone,
        d_model=16,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 8, 8],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_queries=12,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    model: Any = RTDetrV2ForObjectDetection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)  # small enough for boxes that are not all points
    model.half().save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


MAKERS = {"transformers": _labels, "florence2": florence}
PARAMETERS: dict[str, dict[str, object]] = {"transformers": {"threshold": 0.0}, "florence2": {"max_new_tokens": 8}}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {backend: make(maker, tmp_path_factory.mktemp(backend)) for backend, maker in MAKERS.items()}


def _stage(backend: str, folder: Path, *, batch_size: int = 4, **parameters: object) -> DetectorStage:
    settings = StageSettings(
        backend=backend,
        model=f"local:{folder}",
        revision="",
        batch_size=batch_size,
        parameters=PARAMETERS[backend] | parameters,
    )
    stage = build_stage("detector", settings)
    stage.load()
    return stage


def _images() -> list[Image.Image]:
    """Images of many sizes, none like another."""
    sizes = ((64, 48), (200, 90), (33, 120), (80, 80), (51, 47))
    images = [Image.new("RGB", size, (40 * place, 90, 200 - 30 * place)) for place, size in enumerate(sizes)]
    for place, image in enumerate(images):
        image.paste("white", (5 + place, 6, 25, 30 - place))
    return images


def _found(result: list[Detection] | Failure) -> list[Detection]:
    assert not isinstance(result, Failure), result
    return result


def test_labels_are_phrases_in_boxes_of_the_given_image(checkpoints: dict[str, Path]) -> None:
    images = _images()
    results = _stage("transformers", checkpoints["transformers"]).run(images)
    assert len(results) == len(images)
    for image, result in zip(images, results, strict=True):
        found = _found(result)
        assert found
        assert [entry.score for entry in found] == sorted((entry.score for entry in found), reverse=True)
        for entry in found:
            x1, y1, x2, y2 = entry.box
            assert 0 <= x1 < x2 <= image.width
            assert 0 <= y1 < y2 <= image.height
            assert entry.phrase in LABELS
            assert 0 <= entry.score <= 1


def test_a_batch_gives_what_each_image_gives_alone(checkpoints: dict[str, Path]) -> None:
    images = _images()
    together = _stage("transformers", checkpoints["transformers"], batch_size=5).run(images)
    alone = _stage("transformers", checkpoints["transformers"], batch_size=1).run(images)
    for first, second in zip(together, alone, strict=True):
        assert [entry.phrase for entry in _found(first)] == [entry.phrase for entry in _found(second)]
        boxes, others = (torch.tensor([entry.box for entry in _found(result)]) for result in (first, second))
        assert torch.allclose(boxes, others, atol=0.01)


def test_threshold_and_suppression_across_labels(checkpoints: dict[str, Path]) -> None:
    folder = checkpoints["transformers"]
    everything = _stage("transformers", folder, nms_iou=1.0).run(_images())
    apart = _stage("transformers", folder, nms_iou=0.3).run(_images())
    assert sum(len(_found(result)) for result in apart) < sum(len(_found(result)) for result in everything)
    for result in apart:
        boxes = torch.tensor([entry.box for entry in _found(result)])
        overlaps = box_iou(boxes, boxes) - torch.eye(len(boxes))
        assert float(overlaps.max()) <= 0.31  # boxes were cut to the image after the suppression
    limit = max(entry.score for result in everything for entry in _found(result))
    none = _stage("transformers", folder, threshold=min(limit + 0.001, 1.0)).run(_images())
    assert none == [[]] * len(_images())


@pytest.mark.parametrize("backend", MAKERS)
def test_a_failing_image_fails_alone(backend: str, checkpoints: dict[str, Path]) -> None:
    class Broken(Image.Image):
        def convert(self, *args: object, **kwargs: object) -> Image.Image:
            raise OSError("image file is truncated")

        tobytes = load = convert  # type: ignore[assignment]

    images = _images()
    images[2] = Broken()
    results = _stage(backend, checkpoints[backend]).run(images)
    assert [isinstance(result, Failure) for result in results] == [False, False, True, False, False]
    failure = results[2]
    assert isinstance(failure, Failure)
    assert failure.stage == "detector"


def test_florence_answers_are_parsed_with_the_answer_s_probability(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = _stage("florence2", checkpoints["florence2"], num_beams=1)
    assert isinstance(stage, FlorenceDetector)
    tokenizer = stage._processor.tokenizer
    answers = [
        "a red car<loc_100><loc_200><loc_499><loc_799>an owl<loc_0><loc_0><loc_99><loc_99>",
        "an owl<loc_500><loc_500><loc_500><loc_500>",  # a point: no area
        "nothing to be parsed",
    ]
    rows = [[2, 0, *tokenizer(answer, add_special_tokens=False).input_ids, 2] for answer in answers]
    longest = max(map(len, rows))
    sequences = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
    # every token of every answer has probability one half: two logits of equal height, all others far below
    scores = []
    for place in range(1, longest):
        logits = torch.full((len(rows), len(tokenizer)), -100.0)
        logits[:, 3] = 0.0
        logits[torch.arange(len(rows)), sequences[:, place]] = 0.0
        scores.append(logits)
    answer = SimpleNamespace(sequences=sequences, scores=tuple(scores))
    monkeypatch.setattr(stage._model, "generate", lambda **_: answer)
    images = [Image.new("RGB", (200, 100)), Image.new("RGB", (50, 50)), Image.new("RGB", (60, 40))]
    first, *others = (_found(result) for result in stage.run(images))
    assert [entry.phrase for entry in first] == ["a red car", "an owl"]
    assert first[0].box == pytest.approx((20, 20, 100, 80), abs=1)
    assert first[1].box == pytest.approx((0, 0, 20, 10), abs=1)
    assert [entry.score for entry in first] == pytest.approx([0.5, 0.5], abs=0.01)
    assert others == [[], []]


@pytest.mark.parametrize("beams", [1, 3])
def test_florence_generates_for_a_batch(beams: int, checkpoints: dict[str, Path]) -> None:
    stage = _stage("florence2", checkpoints["florence2"], num_beams=beams)
    results = stage.run(_images())
    assert len(results) == len(_images())
    assert all(isinstance(result, list) for result in results)
    assert DENSE_CAPTIONS in stage._processor.task_prompts_without_inputs  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", MAKERS)
def test_settings_that_cannot_be_met(backend: str, tmp_path: Path) -> None:
    settings = StageSettings(backend=backend, model=f"local:{tmp_path / 'absent'}", revision="")
    with pytest.raises(WeightsMissing, match="absent"):
        build_stage("detector", settings).load()
    with pytest.raises(ValidationError):
        build_stage("detector", settings.model_copy(update={"parameters": {"treshold": 0.5}}))
