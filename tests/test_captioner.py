"""The captioner's two back ends, on tiny checkpoints of random weights that are saved and loaded as real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers import (
    AutoProcessor,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    OPTConfig,
    PreTrainedTokenizerFast,
)

from models.base import CaptionerStage, CaptionRequest, Failure, WeightsMissing
from models.captioner import BACKENDS
from samples.training.tokenizer import build_processor
from strata.profiles import StageSettings

TEXTS = ["A red car and an owl on a white background.", "The owl is to the left of the red car."]


def _florence(folder: Path) -> None:
    processor = build_processor(TEXTS, image_size=32, image_tokens=5)
    vision = {
        "depths": [1, 1],
        "embed_dim": [8, 16],
        "num_heads": [1, 2],
        "num_groups": [1, 2],
        "patch_size": [7, 3],
        "patch_stride": [4, 4],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "window_size": 4,
        "projection_dim": 16,
        "max_position_embeddings": 8,
    }
    text = {
        "model_type": "bart",
        "vocab_size": len(processor.tokenizer),
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "max_position_embeddings": 128,
    }
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=processor.image_token_id)
    _save(Florence2ForConditionalGeneration(config), processor, folder)


def _blip2(folder: Path) -> None:
    trained = build_processor(TEXTS, image_size=32, image_tokens=5).tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained.backend_tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>"
    )
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={**tower, "image_size": 32, "patch_size": 16, "initializer_range": 0.02},
        qformer_config={**tower, "vocab_size": 8},
        text_config=OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        ),
        num_query_tokens=4,
        image_token_index=tokenizer.get_vocab()["<image>"],
    )
    processor = Blip2Processor(images, tokenizer, num_query_tokens=4)
    _save(Blip2ForConditionalGeneration(config), processor, folder)


def _save(model: Any, processor: Any, folder: Path) -> None:
    with torch.no_grad():  # random weights of the usual size say the same of every image
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5)
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)


MAKERS = {"florence2": _florence, "blip2": _blip2}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)  # more only get in each other's way on models of this size
    torch.manual_seed(0)
    folders = {backend: tmp_path_factory.mktemp(backend) for backend in MAKERS}
    for backend, folder in folders.items():
        MAKERS[backend](folder)
    return folders


def _stage(backend: str, folder: Path, *, batch_size: int = 4, **parameters: object) -> CaptionerStage:
    limits = {"scene_tokens": 12, "crop_tokens": 6}
    settings = StageSettings(
        backend=backend,
        model=f"local:{folder}",
        revision="",
        batch_size=batch_size,
        parameters=limits | parameters,
    )
    stage = BACKENDS[backend](settings)
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
