"""The matcher's two back ends, on tiny checkpoints of random weights that are saved and loaded as real ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    BlipImageProcessor,
    PreTrainedTokenizerFast,
)

from models.base import MatcherStage, WeightsMissing
from models.building import build_stage
from models.devices import pixels
from models.items import Failure, Pair
from models.stages.clip import on_tensors
from models.stages.matcher import lavis_text, probabilities
from models.weights.cache import BUNDLED
from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from strata.core.profiles import StageSettings
from tests.models.tiny.tiny_models import blip2_matcher, ending, make, siglip2

RED, BLUE = Image.new("RGB", (40, 20), "red"), Image.new("RGB", (9, 30), "blue")


def _open_clip(folder: Path, *, bias: float | None = -3.0) -> None:
    config: dict[str, Any] = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    if bias is not None:
        config["init_logit_bias"] = bias
    torch.manual_seed(0)
    model = CLIP(**config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def _blip2(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "car", "dog"]
    (folder / "vocab.txt").write_text("\n".join(words))
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": 32, "width": 32}), BertTokenizer(str(folder / "vocab.txt"))
    )
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={**tower, "image_size": 32, "patch_size": 16, "initializer_range": 0.02},
        qformer_config={
            **tower,
            "vocab_size": len(words) + 1,
            "encoder_hidden_size": 16,
            "use_qformer_text_input": True,
        },
        num_query_tokens=4,
        image_text_hidden_size=8,
        image_token_index=None,
    )
    torch.manual_seed(0)
    Blip2ForImageTextRetrieval(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def _stage(backend: str, folder: Path, **parameters: Any) -> MatcherStage:
    settings = StageSettings(backend=backend, model=f"local:{folder}", revision="", batch_size=4, parameters=parameters)
    return build_stage("matcher", settings)


@pytest.mark.parametrize("backend", ["open_clip", "blip2"])
def test_pairs_are_scored_in_order_whatever_else_is_in_the_batch(backend: str, tmp_path: Path) -> None:
    {"open_clip": _open_clip, "blip2": _blip2}[backend](tmp_path)
    stage = _stage(backend, tmp_path)
    stage.load()
    pairs = [Pair(RED, "a red car"), Pair(BLUE, "a dog"), Pair(RED, "a dog"), Pair(BLUE, "a red car"), Pair(RED, "a")]
    together = stage.run(pairs)
    alone = [stage.run([pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == len(pairs)
    assert all(isinstance(score, float) and 0 < score < 1 for score in together)


def test_open_clip_with_a_bias_answers_the_sigmoid_of_its_logits(tmp_path: Path) -> None:
    _open_clip(tmp_path, bias=-1.5)
    stage = _stage("open_clip", tmp_path)
    stage.load()
    encoders: Any = stage._encoders  # type: ignore[attr-defined]
    model = encoders.model
    transform = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    with torch.no_grad():
        logits = model.get_logits(transform(RED)[None], encoders._tokenizer(["a dog"]))[0]
    assert stage.run([Pair(RED, "a dog")]) == pytest.approx([float(logits.sigmoid())], abs=1e-5)


def test_clip_without_a_bias_needs_a_calibration(tmp_path: Path) -> None:
    _open_clip(tmp_path, bias=None)
    with pytest.raises(ValueError, match="set its calibration"):
        _stage("open_clip", tmp_path).load()
    flat = _stage("open_clip", tmp_path, calibration=(0.0, 1.0))
    flat.load()
    assert flat.run([Pair(RED, "a dog")]) == pytest.approx([1 / (1 + math.exp(-1))])


def test_a_calibration_beside_the_models_own_bias_is_refused(tmp_path: Path) -> None:
    _open_clip(tmp_path)
    with pytest.raises(ValueError, match="remove its calibration"):
        _stage("open_clip", tmp_path, calibration=(10.0, -1.0)).load()


@pytest.mark.parametrize("backend", ["open_clip", "blip2"])
def test_missing_weights_and_unknown_parameters_say_so(backend: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="strata models fetch"):
        _stage(backend, tmp_path / "nothing").load()
    {"open_clip": _open_clip, "blip2": _blip2}[backend](tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(WeightsMissing, match="safetensors"):
        _stage(backend, tmp_path).load()
    with pytest.raises(ValidationError):
        _stage(backend, tmp_path, temperature=2)


def test_a_bad_crop_fails_alone(tmp_path: Path) -> None:
    _open_clip(tmp_path)
    stage = _stage("open_clip", tmp_path)
    stage.load()
    good, bad, also = stage.run([Pair(RED, "a dog"), Pair(Image.new("RGB", (0, 0)), "a dog"), Pair(BLUE, "a dog")])
    assert isinstance(good, float) and isinstance(also, float)
    assert isinstance(bad, Failure) and bad.stage == "matcher"


def test_not_a_number_is_an_error() -> None:
    with pytest.raises(ArithmeticError):
        probabilities(torch.tensor([0.5, math.nan]))


@pytest.mark.skipif(not (BUNDLED / "matcher").is_dir(), reason="the demo's matcher is not in this checkout")
def test_the_bundled_matcher_knows_a_true_phrase_from_a_false_one() -> None:
    stage = build_stage("matcher", StageSettings(backend="open_clip", model="bundled:matcher", revision=""))
    stage.load()
    true, false = [], []
    for seed in range(HELD_OUT_SEED + 500, HELD_OUT_SEED + 512):
        scene = make_scene(seed, SceneOptions(min_objects=2, signs=False))
        for obj, other in zip(scene.objects, scene.objects[1:] + scene.objects[:1], strict=True):
            crop = scene.image.crop(obj.box)
            true.append(Pair(crop, obj.phrase))
            false.append(Pair(crop, other.phrase if other is not obj else "a zeppelin"))
    scores = stage.run(true + false)
    assert all(isinstance(score, float) for score in scores)
    right = [float(score) > 0.5 for score in scores[: len(true)] if not isinstance(score, Failure)]
    wrong = [float(score) > 0.5 for score in scores[len(true) :] if not isinstance(score, Failure)]
    assert sum(right) / len(right) > 0.9
    assert sum(wrong) / len(wrong) < 0.1


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(90, 60), (40, 70), (33, 33), (300, 20)])
def test_tensors_are_resized_as_open_clip_resizes_pillow_s_images(mode: str, size: tuple[int, int]) -> None:
    image = make_scene(HELD_OUT_SEED).image.resize(size)
    transform = image_transform_v2(PreprocessCfg(size=64, resize_mode=mode), is_train=False)
    resized, normalized = on_tensors(transform)
    ours = normalized(resized(pixels([image])[0]).float() / 255).cpu()
    theirs = transform(image)
    assert ours.shape == theirs.shape == (3, 64, 64)
    assert float((ours - theirs).abs().mean()) * 255 * 0.27 < 0.2  # levels; 0.27: what a pixel was divided by


@pytest.mark.parametrize(
    ("template", "side", "begin", "told"),
    [
        ("$A", "right", None, "does not end with the end token"),
        ("$A <|im_end|>", "left", None, "padded on the left"),
        ("<|im_start|> $A <|im_end|>", "right", "<|im_start|>", "begins with a begin token"),
        ("$A <|im_end|>", "right", "<|im_start|>", ""),
    ],
)
def test_a_siglip_model_with_another_models_tokens_is_refused(
    template: str, side: str, begin: str | None, told: str, tmp_path: Path
) -> None:
    make(siglip2, tmp_path)
    tokenizer = ending(PreTrainedTokenizerFast.from_pretrained(tmp_path, padding_side=side), template)
    tokenizer.bos_token = begin
    tokenizer.save_pretrained(tmp_path)
    stage = _stage("open_clip", tmp_path)
    if not told:
        stage.load()
        return
    with pytest.raises(WeightsMissing, match=told):
        stage.load()


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ('A "Red" car.', "a red car"),
        ("(two) dogs: #1 *and* 2!", "two dogs 1 and 2"),
        ("it's  a well-known\ncat; black, white?", "it's a well-known cat black, white?"),
        (" ".join(["Word"] * 60), " ".join(["word"] * 50)),
        ("...", ""),
    ],
)
def test_blip2_gets_the_texts_of_lavis(phrase: str, text: str, tmp_path: Path) -> None:
    assert lavis_text(phrase) == text
    make(blip2_matcher, tmp_path)
    stage: Any = _stage("blip2", tmp_path)
    stage.load()
    # in the model's own input: at most 32 tokens, the end token among them
    batch = stage.prepare([Pair(RED, phrase)])
    words = stage._processor.tokenizer(text, truncation=True, max_length=32).input_ids
    assert batch["input_ids"][0].tolist() == words and len(words) <= 32
    assert stage.run([Pair(RED, phrase), Pair(BLUE, "a dog")])[0] == pytest.approx(
        stage.run([Pair(RED, text)])[0], abs=1e-5
    )
