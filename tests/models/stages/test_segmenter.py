"""The segmenter: the classical back end on pictures whose masks are known, SAM on tiny random checkpoints."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor, ImageDraw
from pydantic import ValidationError
from torch.utils._pytree import tree_map
from transformers import AutoImageProcessor, AutoModelForMaskGeneration, pipeline

from models.base import SegmenterStage, WeightsMissing
from models.building import build_stage
from models.items import Failure, Segment
from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from strata.core.profiles import StageSettings
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make


def _stage(backend: str = "classical", model: str = "builtin:classical", **parameters: object) -> SegmenterStage:
    settings = StageSettings(backend=backend, model=model, revision="1", parameters=parameters)
    stage = build_stage("segmenter", settings)
    stage.load()
    return stage


def _found(result: list[Segment] | Failure) -> list[Segment]:
    assert not isinstance(result, Failure), result
    return result


def _picture(size: tuple[int, int] = (200, 160)) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A canvas with soft stripes."""
    stripes = 120 + 8 * ((np.arange(size[0]) // 10) % 2)
    pixels = np.broadcast_to(stripes[None, :, None], (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(pixels.copy())
    return image, ImageDraw.Draw(image)


def _iou(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_masks_are_largest_first_with_tight_boxes() -> None:
    image, draw = _picture()
    draw.rectangle((20, 30, 59, 79), fill="red")
    draw.rectangle((120, 20, 189, 139), fill="white")
    large, small = _found(_stage().run([image])[0])
    for segment, box in ((large, (120, 20, 190, 140)), (small, (20, 30, 60, 80))):
        assert segment.box == pytest.approx(box, abs=2)
        assert segment.mask.shape == (160, 200)
        assert segment.mask.dtype == np.bool_
        inside = segment.mask[int(segment.box[1]) : int(segment.box[3]), int(segment.box[0]) : int(segment.box[2])]
        assert inside.sum() == segment.mask.sum()
        assert 0.6 < segment.score <= 1
    (only,) = _found(_stage(max_masks=1).run([image])[0])
    assert np.array_equal(only.mask, large.mask)


def test_things_that_touch_are_cut_apart_and_a_dumbbell_s_hole_is_not_a_thing() -> None:
    image, draw = _picture()
    draw.ellipse((20, 40, 90, 110), fill="blue")
    draw.ellipse((88, 50, 148, 110), fill="orange")
    draw.ellipse((110, 70, 126, 86), fill=(124, 124, 124))  # looks like the background
    segments = _found(_stage().run([image])[0])
    assert len(segments) == 2
    y, x = np.mgrid[:160, :200]
    blue = (x - 55) ** 2 + (y - 75) ** 2 <= 35**2
    assert _iou(segments[0].mask, blue) > 0.9
    assert not (segments[0].mask & segments[1].mask).any()
    assert segments[1].mask[78, 118]


def test_a_large_image_s_masks_have_its_size() -> None:
    image, draw = _picture((1500, 900))
    draw.rectangle((300, 200, 899, 699), fill="green")
    (segment,) = _found(_stage().run([image])[0])
    assert segment.mask.shape == (900, 1500)
    assert segment.box == pytest.approx((300, 200, 900, 700), abs=12)  # found at a fifth of the size


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (4000, 3), (16, 16)])
def test_odd_sizes_are_no_error(size: tuple[int, int]) -> None:
    assert _found(_stage().run([Image.new("RGB", size, "gray")])[0]) == []


def test_scenes_of_the_demo_world() -> None:
    scenes = [make_scene(HELD_OUT_SEED + 5_000 + place) for place in range(30)]
    results = _stage().run([scene.image for scene in scenes])
    best = [
        max((_iou(thing.mask, segment.mask) for segment in _found(result)), default=0.0)
        for scene, result in zip(scenes, results, strict=True)
        for thing in (*scene.objects, *scene.signs)
    ]
    assert np.mean([overlap >= 0.5 for overlap in best]) >= 0.8
    empty = [make_scene(HELD_OUT_SEED + place, SceneOptions(max_objects=0, signs=False)) for place in range(20)]
    assert _stage().run([scene.image for scene in empty]) == [[]] * 20


def _quadrants() -> Image.Image:
    image = Image.new("RGB", (64, 48), "red")
    for box, colour in (((32, 0, 64, 24), "lime"), ((0, 24, 32, 48), "blue"), ((32, 24, 64, 48), "yellow")):
        image.paste(colour, box)
    return image


def _halves() -> Image.Image:
    image = Image.new("RGB", (64, 48), "blue")
    image.paste("yellow", (0, 24, 64, 48))
    return image


@pytest.mark.parametrize("image", [_quadrants(), _halves(), _halves().rotate(90, expand=True)])
def test_a_picture_without_a_background_has_no_objects(image: Image.Image) -> None:
    assert _found(_stage().run([image])[0]) == []


COLOURS = st.sampled_from(["red", "lime", "blue", "yellow", "black", "white", "gray", "#787878", "#808080"])


@st.composite
def _plain_pictures(draw: st.DrawFn) -> Image.Image:
    """A checkerboard of up to five colours; with cells that are wide or high it is stripes, halves or quadrants."""
    width, height = draw(st.sampled_from([(1, 1), (64, 48), (48, 64), (320, 8), (8, 320), (200, 160), (9, 9), (1, 77)]))
    cell = draw(st.integers(1, width)), draw(st.integers(1, height))
    colours = np.array([ImageColor.getrgb(draw(COLOURS)) for _ in range(draw(st.integers(1, 5)))])
    y, x = np.mgrid[:height, :width]
    pixels = colours[(x // cell[0] + y // cell[1]) % len(colours)].astype(np.float64)
    # a gradient from left to right, and noise
    pixels += draw(st.sampled_from([0, 40, 255])) * (x / width)[..., None]
    pixels += np.random.default_rng(0).normal(0, draw(st.sampled_from([0, 8, 60])), pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@given(_plain_pictures(), st.sampled_from([0.0, 0.004]))
@settings(max_examples=150)
def test_any_plain_picture_is_segmented_at_once(image: Image.Image, smallest: float) -> None:
    stage = _stage(smallest=smallest)
    began = time.thread_time()
    segments = _found(stage.compute([image])[0])
    assert time.thread_time() - began < 5  # seconds of a processor: it is below 0.2 s
    taken = np.zeros((image.height, image.width), np.int64)
    for segment in segments:
        assert segment.mask.any()
        taken += segment.mask
    assert taken.max() <= 1


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.make(tiny_models.sam, tmp_path_factory.mktemp("sam"))


LENIENT: dict[str, object] = {
    "points_per_side": 3,
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.0,
    "nms_iou": 1.0,
    "smallest": 0.0,
}


def test_sam_s_masks_fit_their_images(sam: Path) -> None:
    images = [Image.new("RGB", (90, 60), "red"), Image.new("RGB", (40, 70), "blue")]
    images[0].paste("white", (20, 10, 60, 40))
    results = _stage("sam", f"local:{sam}", **LENIENT, max_masks=4).run(images)
    assert len(results) == 2
    assert any(_found(result) for result in results)
    for image, result in zip(images, results, strict=True):
        segments = _found(result)
        assert len(segments) <= 4
        areas = [segment.mask.sum() for segment in segments]
        assert areas == sorted(areas, reverse=True)
        for segment in segments:
            assert segment.mask.shape == (image.height, image.width)
            assert 0 <= segment.score <= 1


@pytest.mark.parametrize("maker", [tiny_models.sam, tiny_models.sam2])
def test_whatever_shapes_are_compiled_are_so_once_loaded(
    maker: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: dict[torch.nn.Module, set[str]] = {}
    varying: set[torch.nn.Module] = set()

    def note(module: torch.nn.Module, unnamed: tuple[Any, ...], named: dict[str, Any]) -> None:
        # where one size may vary, the compiler treats only 1 apart
        many = module in varying and len(unnamed[0]) > 1
        shapes = tree_map(lambda value: list(getattr(value, "shape", (value,)))[many:], (unnamed, named))
        met[module].add(f"{many} {shapes}")

    def compiled(module: torch.nn.Module, varies: bool = False) -> bool:  # as on a GPU
        met[module] = set()
        if varies:
            varying.add(module)
        module.register_forward_pre_hook(note, with_kwargs=True)
        return True

    monkeypatch.setattr("models.stages.sam.decoder.compile_on_gpu", compiled)
    stage = _stage("sam", f"local:{make(maker, tmp_path)}", **LENIENT, points_per_batch=4)
    loaded = {module: set(shapes) for module, shapes in met.items()}
    results = stage.run([Image.new("RGB", size, "red") for size in ((90, 60), (40, 70), (300, 20))])
    assert met == loaded and len(loaded) == 2 and all(len(shapes) == 2 for shapes in loaded.values()), loaded
    assert any(_found(result) for result in results)


def _noise(folder: Path) -> None:
    """SAM, whose masks and estimates are noise, as random weights give it."""
    tiny_models.sam(folder)
    model = AutoModelForMaskGeneration.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5)
    model.save_pretrained(folder)


MAKERS = {"sam": tiny_models.sam, "sam2": tiny_models.sam2, "noise": _noise}
SETTINGS: list[dict[str, object]] = [
    {"points_per_side": 4},
    {"points_per_side": 5, "points_per_batch": 7},
    {"points_per_side": 7, "pred_iou_thresh": 0.5},
    {"points_per_side": 5, "pred_iou_thresh": 0.0},
]


@pytest.fixture(scope="module", params=MAKERS)
def blots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, make(MAKERS[request.param], tmp_path_factory.mktemp(request.param))


@functools.cache
def _generator(folder: Path) -> Any:
    return pipeline(
        "mask-generation",
        model=AutoModelForMaskGeneration.from_pretrained(folder, dtype=torch.float32).eval(),
        image_processor=AutoImageProcessor.from_pretrained(folder),
        device="cpu",
    )


def _reference(folder: Path, image: Image.Image, **parameters: Any) -> list[tuple[np.ndarray[Any, Any], float]]:
    """What transformers' mask-generation pipeline answers, largest first."""
    answer = _generator(folder)(
        image,
        points_per_crop=parameters.get("points_per_side", 32),
        points_per_batch=parameters.get("points_per_batch", 64),
        pred_iou_thresh=parameters.get("pred_iou_thresh", 0.88),
        stability_score_thresh=parameters.get("stability_score_thresh", 0.95),
        crops_nms_thresh=parameters.get("nms_iou", 0.7),
    )
    masks = [np.asarray(mask, dtype=np.bool_) for mask in answer["masks"]]
    found = list(zip(masks, answer["scores"].tolist(), strict=True))
    return sorted(found, key=lambda entry: -int(entry[0].sum()))


@pytest.mark.parametrize("parameters", SETTINGS, ids=str)
def test_masks_are_those_of_the_library_s_pipeline(blots: tuple[str, Path], parameters: dict[str, Any]) -> None:
    name, folder = blots
    # stability and overlaps are judged in the model's size, and these masks have only a few pixels there
    parameters = parameters | {"stability_score_thresh": 0.0, "nms_iou": 1.0}
    # the pipeline places the points of SAM 2 right in square images only
    sizes = ((60, 60), (97, 97), (30, 30)) if name == "sam2" else ((90, 60), (40, 70), (64, 64))
    images = [Image.new("RGB", size, "red") for size in sizes]
    images[0].paste("white", (20, 10, 50, 40))
    results = _stage("sam", f"local:{folder}", **parameters, max_masks=10_000, smallest=0.0).run(images)
    for image, result in zip(images, results, strict=True):
        expected, found = _reference(folder, image, **parameters), _found(result)
        expected = [entry for entry in expected if entry[0].any()]
        assert len(found) == len(expected)
        assert expected
        # edges lie where logits are nil, which rounding decides; of equal masks, any score may be meant
        for segment in found:
            scores = [score for mask, score in expected if (mask ^ segment.mask).mean() < 0.005]
            assert min(abs(min(max(score, 0.0), 1.0) - segment.score) for score in scores) < 1e-4


def test_a_mask_is_judged_in_the_model_s_size_as_in_the_image_s() -> None:
    """The stability and the share of random blobs: at 256×256 as after enlarging them to six megapixels."""
    generator = torch.Generator().manual_seed(0)
    soft = torch.nn.functional.interpolate(torch.randn(12, 1, 9, 9, generator=generator), (256, 256), mode="bicubic")
    logits = (soft[:, 0] - 0.8) * torch.linspace(3, 40, 12)[:, None, None]
    whole = torch.nn.functional.interpolate(logits[:, None], (2000, 3000), mode="bilinear")[:, 0]
    for small, large in zip(logits, whole, strict=True):
        inner = [float((mask > 1).sum() / (mask > -1).sum()) for mask in (small, large)]
        share = [float((mask > 0).float().mean()) for mask in (small, large)]
        assert inner[0] == pytest.approx(inner[1], abs=0.01)
        assert share[0] == pytest.approx(share[1], abs=0.001)


@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_coordinates_and_scores_are_computed_in_float32(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("models.devices.best_precision", lambda: torch.bfloat16)
    stage: Any = _stage("sam", f"local:{make(MAKERS[name], tmp_path)}", **LENIENT)
    precise = AutoModelForMaskGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    points = torch.rand(1, 1, 500, 2, generator=torch.Generator().manual_seed(0)) * 63
    shape = (64, 64)
    expected = precise.prompt_encoder.shared_embedding(points, shape)
    embedded = stage._model.prompt_encoder.shared_embedding(points, shape)
    assert embedded.dtype is torch.bfloat16
    # rounding the result alone: a point that had moved would change the waves of high frequency
    assert torch.allclose(embedded.float(), expected, atol=0.01)
    # estimates that are no round numbers: bfloat16 cannot hold them
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in stage._model.mask_decoder.iou_prediction_head.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    (result,) = stage.run([Image.new("RGB", (64, 64), "red")])
    scores = torch.tensor([segment.score for segment in _found(result)])
    assert ((scores > 0) & (scores < 1) & (scores != scores.bfloat16().float())).any(), scores


def test_the_points_of_sam_2_reach_the_far_end_of_an_oblong_image(tmp_path: Path) -> None:
    folder = make(tiny_models.sam2, tmp_path)
    (result,) = _stage("sam", f"local:{folder}", points_per_side=8, max_masks=1000, smallest=0.0).run(
        [Image.new("RGB", (120, 40), "red")]
    )
    centres = [(segment.box[1] + segment.box[3]) / 2 for segment in _found(result)]
    assert max(centres) > 30  # a grid placed as SAM's would end at a third of the height


@pytest.mark.parametrize(("pixels", "most"), [(1, 1), (90_000, 1), (270_000, 3), (8_000_000, 10)])
def test_only_the_masks_that_are_kept_are_enlarged(
    pixels: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few at a time: of 24 megapixels, one mask takes 96 MB in float32, and 32 × 32 points give 3,072 masks."""
    stage: Any = _stage("sam", f"local:{make(_noise, tmp_path)}", **LENIENT | {"points_per_side": 8}, max_masks=5)
    counts: list[int] = []
    post_process = stage._processor.post_process_masks

    def noted(*arguments: Any, **named: Any) -> Any:
        whole = post_process(*arguments, **named)
        counts.extend(len(masks) for masks in whole)
        assert {tuple(masks.shape[1:]) for masks in whole} == {(1, 300, 300)}
        return whole

    monkeypatch.setattr(stage._processor, "post_process_masks", noted)
    monkeypatch.setattr("models.stages.segmenter.ENLARGED_TOGETHER", pixels)
    (result,) = stage.run([Image.new("RGB", (300, 300), "red")])
    assert len(_found(result)) == 5
    assert max(counts) <= most and sum(counts) <= 10 and len(counts) == -(-sum(counts) // most), counts


def test_sam_without_a_good_mask_gives_none(sam: Path) -> None:
    stage = _stage("sam", f"local:{sam}", points_per_side=3, pred_iou_thresh=1.0)
    assert stage.run([Image.new("RGB", (90, 60), "red")]) == [[]]


def test_settings_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="absent"):
        _stage("sam", f"local:{tmp_path / 'absent'}")
    for backend in ("classical", "sam"):
        with pytest.raises(ValidationError):
            _stage(backend, f"local:{tmp_path}", max_mask=3)
