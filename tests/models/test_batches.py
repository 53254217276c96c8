"""Same answer, batched or not: each stage on shuffled batches of many sizes, with the demo's weights and tiny ones.

How near answers must be is what the stages' modules promise for float32. The tiny ones run in bfloat16 too, as on a
GPU: there only that every cast is in its place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.base import Stage
from models.building import build_stage
from models.crops import crop_segment
from models.items import CaptionRequest, Detection, Failure, Pair, ReadLine, Segment
from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from strata.core.profiles import StageSettings, load_profile
from tests.checkout import CHECKOUT
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make

Kind = tuple[str, str, Callable[..., None], dict[str, Any]]  # stage, back end, maker, parameters
REGIONS = "a red car<loc_100><loc_200><loc_499><loc_799>an owl<loc_500><loc_0><loc_999><loc_499>"
FINDING = partial(tiny_models.florence, answer=REGIONS)
TINY: dict[str, Kind] = {
    "blip2": ("captioner", "blip2", tiny_models.blip2_captioner, {"scene_tokens": 12, "crop_tokens": 6}),
    "blip2, beams": ("captioner", "blip2", tiny_models.blip2_captioner, {"scene_tokens": 9, "scene_beams": 3}),
    "florence2": ("captioner", "florence2", tiny_models.florence, {"scene_tokens": 12, "crop_tokens": 6}),
    "regions": (
        "detector",
        "florence2",
        FINDING,
        {"num_beams": 1, "max_new_tokens": 20},
    ),
    "regions, beams": (
        "detector",
        "florence2",
        FINDING,
        {"num_beams": 3, "max_new_tokens": 20},
    ),
    "sam": ("segmenter", "sam", tiny_models.sam, {"points_per_side": 8}),
    "sam2": ("segmenter", "sam", tiny_models.sam2, {"points_per_side": 8}),
    "itm": ("matcher", "blip2", tiny_models.blip2_matcher, {}),
    "siglip2": ("matcher", "open_clip", tiny_models.siglip2, {}),
}


def _loaded(stage: str, settings: StageSettings) -> Stage[Any, Any]:
    loaded: Stage[Any, Any] = build_stage(stage, settings)
    loaded.load()
    return loaded


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(kind[2], tmp_path_factory.mktemp("tiny")) for name, kind in TINY.items()}


def _tiny(name: str, checkpoints: dict[str, Path], batch_size: int = 16) -> Stage[Any, Any]:
    stage, backend, _, parameters = TINY[name]
    model = f"local:{checkpoints[name]}"
    return _loaded(
        stage, StageSettings(backend=backend, model=model, revision="", batch_size=batch_size, parameters=parameters)
    )


def _pictures(count: int) -> list[Image.Image]:
    """Pictures of many sizes, none like another."""
    generator = np.random.default_rng(count)
    sizes = [(24 + 13 * i % 60, 20 + 29 * i % 70) for i in range(count)]
    images = [Image.new("RGB", size, (20 * i % 256, 90, 250 - 19 * i)) for i, size in enumerate(sizes)]
    for i, image in enumerate(images):
        image.paste("white", (5 + i, 6, 15 + i, 16))
        noise = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        image.paste(Image.fromarray(noise), (2, 8))
    return images


def _items(stage: str, images: Sequence[Image.Image], phrases: Sequence[str]) -> list[Any]:
    if stage == "captioner":
        return [CaptionRequest(image, "crop" if i % 3 else "scene") for i, image in enumerate(images)]
    if stage == "matcher":
        pairs = [Pair(image, phrases[i % len(phrases)]) for i, image in enumerate(images)]
        return pairs + [Pair(image, phrases[0]) for image in images[::2]]
    return list(images)


def _same(one: Any, other: Any) -> None:
    """That two answers differ by no more than the stages promise."""
    assert type(one) is type(other)
    if isinstance(one, (str, Failure)):
        assert one == other
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-3)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            _same(first, second)
    elif isinstance(one, Detection):
        assert one.phrase == other.phrase
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.box == pytest.approx(other.box, abs=0.01)
    elif isinstance(one, ReadLine):
        assert one.text == other.text
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.box == pytest.approx(other.box, abs=0.01)
    else:
        assert isinstance(one, Segment)
        assert (one.mask ^ other.mask).mean() < 1e-4
        assert one.score == pytest.approx(other.score, abs=1e-4)


def _check(stage: Stage[Any, Any], items: list[Any], different: int) -> None:
    """That each item's answer alone is its answer in shuffled batches of many sizes; and that answers differ."""
    stage.settings = stage.settings.model_copy(update={"batch_size": 1})
    stage._size = 1
    alone = stage.run(items)
    assert not any(isinstance(answer, Failure) for answer in alone), alone
    assert len({str(answer) for answer in alone}) >= different, "the items were not looked at"
    for size in (2, 3, 5, 16):
        order = list(range(len(items)))
        random.Random(size).shuffle(order)
        stage.settings = stage.settings.model_copy(update={"batch_size": size})
        stage._size = size
        for place, answer in zip(order, stage.run([items[i] for i in order]), strict=True):
            _same(answer, alone[place])


@pytest.mark.parametrize("name", TINY)
def test_tiny_checkpoints_say_the_same_in_any_batch(name: str, checkpoints: dict[str, Path]) -> None:
    items = _items(TINY[name][0], _pictures(11), ("a red car", "a dog", "an owl on the car"))
    _check(_tiny(name, checkpoints), items, different=2)


@pytest.mark.parametrize("name", TINY)
def test_every_stage_computes_its_probe(name: str, checkpoints: dict[str, Path]) -> None:
    stage = _tiny(name, checkpoints)
    computed: list[int] = []
    compute = stage.compute

    def counted(batch: Any) -> list[Any]:
        results = compute(batch)
        computed.append(len(results))
        return results

    stage.compute = counted  # type: ignore[method-assign]
    stage.probe()
    assert computed == [1]


@pytest.mark.parametrize("name", TINY)
def test_half_precision_runs_through_every_stage(
    name: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("devices", "shared", "stages.clip"):
        monkeypatch.setattr(f"models.{module}.best_precision", lambda: torch.bfloat16)
    stage: Any = _tiny(name, checkpoints)
    items = _items(stage.name, _pictures(5), ("a red car", "a dog"))
    answers = stage.run(items)
    assert len(answers) == len(items)
    assert not any(isinstance(answer, Failure) for answer in answers), answers
    if name != "siglip2":  # it keeps float32 and casts as it goes
        assert torch.bfloat16 in {parameter.dtype for parameter in stage._model.parameters()}


@pytest.mark.parametrize("name", [name for name in TINY if name != "siglip2"])
def test_attention_is_torch_s_own(name: str, checkpoints: dict[str, Path]) -> None:
    stage: Any = _tiny(name, checkpoints)
    configs = {id(part.config): part.config for part in stage._model.modules() if hasattr(part, "config")}
    assert configs
    assert {config._attn_implementation for config in configs.values()} == {"sdpa"}


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    options = SceneOptions(min_objects=1, max_objects=4)
    return [make_scene(HELD_OUT_SEED + 6_000 + seed, options).image for seed in range(9)]


@pytest.mark.parametrize("stage", ["captioner", "detector", "segmenter", "ocr", "matcher"])
def test_the_demo_s_models_say_the_same_in_any_batch(stage: str, scenes: list[Image.Image]) -> None:
    settings = load_profile("demo", CHECKOUT / "models" / "profiles").stages
    segmenter = _loaded("segmenter", settings["segmenter"])
    images = scenes
    if stage in ("captioner", "matcher"):
        found = zip(scenes, segmenter.run(scenes), strict=True)
        crops = [crop_segment(image, own) for image, some in found if not isinstance(some, Failure) for own in some]
        images = [image for some in zip(crops, scenes, strict=False) for image in some]
    _check(_loaded(stage, settings[stage]), _items(stage, images, ("a red car", "an owl", "a tree")), different=5)
