"""The detector's two back ends, on tiny checkpoints of random weights that are saved and loaded as real ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.ops import box_iou
from transformers import (
    AutoProcessor,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
)
from transformers.modeling_outputs import BaseModelOutput

from models.base import DetectorStage, WeightsMissing
from models.building import build_stage
from models.items import Detection, Failure
from models.stages.detector import DENSE_CAPTIONS
from models.stages.florence import RegionParser, WrittenRegion
from strata.core.profiles import StageSettings
from tests.models.tiny.tiny_models import florence, make

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


@torch.no_grad()
@pytest.mark.parametrize("together", [1, 7, 20, 1024])
def test_probabilities_of_a_batch_are_those_of_each_text_alone(
    together: int, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.stages.detector.LOGITS_TOGETHER", together)
    stage: Any = _stage("florence2", checkpoints["florence2"])
    _, inputs = stage.prepare(_images())
    model, generator = stage._model, torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 60, (len(_images()), 8), generator=generator)
    encoded, mask = model.model(**inputs, use_cache=False).encoder_last_hidden_state, inputs["attention_mask"]
    found = stage._log_probabilities(tokens, encoded, mask)
    for place, row in enumerate(tokens):
        alone = model(
            encoder_outputs=BaseModelOutput(encoded[place : place + 1]),
            attention_mask=mask[place : place + 1],
            decoder_input_ids=row[None, :-1],
            use_cache=False,
        ).logits[0]
        expected = alone.log_softmax(-1).gather(1, row[1:, None])[:, 0]
        assert found[place] == pytest.approx(expected.tolist(), abs=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("beams", [1, 3])
def test_probabilities_are_of_the_image_s_own_states(
    beams: int, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`generate` repeats the states that it gets for each beam, so that those of image 1 lay in place 3."""
    stage: Any = _stage("florence2", checkpoints["florence2"], num_beams=beams)
    batch = stage.prepare(_images())
    expected = stage._model.model(**batch[1], use_cache=False).encoder_last_hidden_state
    given: list[torch.Tensor] = []
    whole = stage._log_probabilities

    def noted(tokens: torch.Tensor, states: torch.Tensor, mask: torch.Tensor) -> Any:
        given.append(states)
        return whole(tokens, states, mask)

    monkeypatch.setattr(stage, "_log_probabilities", noted)
    stage.compute(batch)
    assert len(given) == 1 and torch.equal(given[0], expected)


def _region(phrase: str, *bins: int) -> str:
    return phrase + "".join(f"<loc_{bin}>" for bin in bins)


MEN = [
    _region("a red car and an owl", 100, 200, 499, 799),
    _region("a red car and a background", 0, 0, 99, 99),
    _region("a red car and an owl", 500, 0, 999, 400),
]


@pytest.mark.parametrize("beams", [1, 3])
def test_florence_may_repeat_words_and_numbers(beams: int, tmp_path: Path) -> None:
    """The published checkpoints forbid to write three tokens in a row twice: the second region came out broken."""
    folder = make(lambda folder: florence(folder, "".join(MEN)), tmp_path)
    stage = _stage("florence2", folder, num_beams=beams, max_new_tokens=100)
    (found,) = (_found(result) for result in stage.run([Image.new("RGB", (200, 100))]))
    assert [entry.phrase for entry in found] == [text.partition("<")[0] for text in MEN]
    assert found[0].box == pytest.approx((20, 20, 100, 80), abs=0.2)
    assert found[1].box == pytest.approx((0, 0, 20, 10), abs=0.2)
    assert found[2].box == pytest.approx((100, 0, 200, 40), abs=0.2)


def _parser(checkpoints: dict[str, Path]) -> tuple[RegionParser, Any]:
    tokenizer = AutoProcessor.from_pretrained(checkpoints["florence2"]).tokenizer
    return RegionParser(tokenizer), tokenizer


def _parsed(text: str, checkpoints: dict[str, Path], sure: float = 0.5) -> list[WrittenRegion]:
    parser, tokenizer = _parser(checkpoints)
    tokens = [0, *tokenizer(text, add_special_tokens=False).input_ids, 2, 1, 1]
    return parser.parse(tokens, [math.log(sure)] * len(tokens))


def test_each_region_has_the_probability_of_its_own_tokens(checkpoints: dict[str, Path]) -> None:
    parser, tokenizer = _parser(checkpoints)
    parts = [tokenizer(text, add_special_tokens=False).input_ids for text in MEN[:2]]
    tokens = [0, *parts[0], *parts[1], 2]
    logs = [-9.0, *[math.log(0.9)] * len(parts[0]), *[math.log(0.3)] * len(parts[1]), -9.0]
    assert [round(region.score, 6) for region in parser.parse(tokens, logs)] == [0.9, 0.3]


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("", []),
        ("nothing", []),
        (_region("", 1, 2, 3, 4), []),  # a box without a phrase
        (_region("an owl", 1, 2, 3), []),  # cut off within the box
        (_region("an owl", 1, 2, 3, 4) + "a red", [("an owl", (1, 2, 3, 4))]),
        (_region("an owl", 1, 2, 3, 4, 5, 6, 7, 8), [("an owl", (1, 2, 3, 4)), ("an owl", (5, 6, 7, 8))]),
        # in circles: the same phrase and box again, or more and more phrases for one box
        (_region("an owl", 1, 2, 3, 4) * 9 + _region("a car", 5, 6, 7, 8), [("an owl", (1, 2, 3, 4))]),
        (
            "".join(_region(f"a {word}", 1, 2, 3, 4) for word in ("red", "car", "owl", "white", "left")),
            [(f"a {word}", (1, 2, 3, 4)) for word in ("red", "car", "owl")],
        ),
        (
            _region("a car", 1, 2, 3, 4) + _region("an owl", 1, 2, 3, 4),  # two things with one box
            [("a car", (1, 2, 3, 4)), ("an owl", (1, 2, 3, 4))],
        ),
    ],
)
def test_regions_of_an_answer(
    text: str, regions: list[tuple[str, tuple[int, ...]]], checkpoints: dict[str, Path]
) -> None:
    assert [(region.phrase, region.bins) for region in _parsed(text, checkpoints)] == regions


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
