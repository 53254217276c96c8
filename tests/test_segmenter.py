"""The segmenter: the classical back end on pictures whose masks are known, SAM on tiny random checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError

from models.base import Failure, Segment, SegmenterStage, WeightsMissing
from models.segmenter import BACKENDS
from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from strata.profiles import StageSettings
from tests import tiny_models


def _stage(backend: str = "classical", model: str = "builtin:classical", **parameters: object) -> SegmenterStage:
    settings = StageSettings(backend=backend, model=model, revision="1", parameters=parameters)
    stage = BACKENDS[backend](settings)
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


def test_sam_without_a_good_mask_gives_none(sam: Path) -> None:
    stage = _stage("sam", f"local:{sam}", points_per_side=3, pred_iou_thresh=1.0)
    assert stage.run([Image.new("RGB", (90, 60), "red")]) == [[]]


def test_settings_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="absent"):
        _stage("sam", f"local:{tmp_path / 'absent'}")
    for backend in BACKENDS:
        with pytest.raises(ValidationError):
            _stage(backend, f"local:{tmp_path}", max_mask=3)
