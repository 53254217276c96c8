"""Masks of the kept regions by GrabCut, and the profile `everyday` as a whole, on real photographs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bench.photographs.judging import figures, verdict
from models.boxes import iou
from models.building import build_stage
from models.crops import decode_mask
from models.items import BoxedImage, ComposeRequest, Failure, Segment, check_results
from models.pipeline import LlmPipeline, VisionPipeline
from models.weights.inventory import PROFILES
from samples.labels import photographs
from strata.core.layers import NOTHING_FOUND
from strata.core.profiles import InvalidProfile, StageSettings, load_profile, read_profile
from strata.core.records import ImageReference, Record, Status
from tests.models.stages.test_ssd import photograph


def segmenter(**parameters: object) -> Any:
    settings = StageSettings(backend="grabcut", model="builtin:grabcut", revision="1", parameters=dict(parameters))
    stage = build_stage("segmenter", settings)
    stage.load()
    return stage


def drawing(size: tuple[int, int], box: tuple[int, int, int, int]) -> tuple[Image.Image, np.typing.NDArray[np.bool_]]:
    """An ellipse in a box before a background of another colour, both with noise, and its mask."""
    noise = np.random.default_rng(0).normal(0, 12, (size[1], size[0], 3))
    shape = Image.new("L", size)
    ImageDraw.Draw(shape).ellipse(box, 255)
    mask = np.asarray(shape) > 0
    pixels = np.where(mask[..., None], (200, 60, 40), (60, 120, 90)) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), mask


def overlap(segment: Segment, mask: np.typing.NDArray[np.bool_]) -> float:
    return float((segment.mask & mask).sum() / (segment.mask | mask).sum())


@pytest.mark.parametrize(
    ("size", "box"),
    [((300, 200), (60, 40, 200, 160)), ((1500, 1000), (300, 200, 1000, 800)), ((200, 300), (0, 150, 90, 299))],
)
def test_mask_of_a_box(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    image, mask = drawing(size, box)
    given: Any = tuple(map(float, box))
    ((segment,),) = segmenter().run([BoxedImage(image, (given,))])
    assert segment.mask.shape == mask.shape
    assert overlap(segment, mask) > 0.9
    assert segment.score == pytest.approx(iou(segment.box, given))


def test_a_batch_and_repetition_give_the_same() -> None:
    items = [BoxedImage(photograph("coffee.png"), ((172.0, 12.0, 411.0, 240.0),)), BoxedImage(*drawing_item())]
    first, again = segmenter().run(items), [segmenter().run([item])[0] for item in items]
    for one, other in zip(first, again, strict=True):
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(one, other, strict=True))


def drawing_item() -> tuple[Image.Image, tuple[Any, ...]]:
    return drawing((300, 200), (60, 40, 200, 160))[0], ((60.0, 40.0, 200.0, 160.0),)


def test_boxes_without_a_thing() -> None:
    image, _ = drawing((300, 200), (60, 40, 200, 160))
    flat = Image.new("RGB", (300, 200), "green")
    boxes = ((60.0, 40.0, 200.0, 160.0), (1.0, 1.0, 4.0, 4.0), (0.0, 0.0, 300.0, 200.0))
    masks, none, empty = segmenter().run([BoxedImage(image, boxes), BoxedImage(flat, boxes[:1]), BoxedImage(flat, ())])
    assert [segment is None for segment in masks[:2]] == [False, True]  # a box of three pixels shows nothing
    assert none == [None]
    assert empty == []
    # the largest boxes get the masks
    few = segmenter(max_masks=1).run([BoxedImage(image, (boxes[1], boxes[0]))])
    assert [segment is None for segment in few[0]] == [True, False]


def test_large_images_take_no_longer() -> None:
    """24 megapixels: the work is done at a reduced size, so that the time does not grow with the picture's."""
    image, mask = drawing((300, 200), (60, 40, 200, 160))
    large = image.resize((6000, 4000))
    began = time.process_time()
    ((segment,),) = segmenter().run([BoxedImage(large, ((1200.0, 800.0, 4000.0, 3200.0),))])
    assert time.process_time() - began < 20
    assert segment.mask.shape == (4000, 6000)
    assert overlap(Segment(segment.mask[::20, ::20], segment.box, 1.0), mask) > 0.85


def test_one_result_for_each_box_is_required() -> None:
    image, boxes = drawing_item()
    with pytest.raises(RuntimeError, match="0 masks for 1 boxes"):
        check_results("segmenter", [[]], [BoxedImage(image, boxes)])
    wrong = Segment(np.ones((5, 5), np.bool_), (0.0, 0.0, 5.0, 5.0), 1.0)
    with pytest.raises(ValueError, match="mask of another size"):
        check_results("segmenter", [[wrong]], [BoxedImage(image, boxes)])


def test_grabcut_needs_a_detector_and_no_captioner(tmp_path: Path) -> None:
    everyday = (PROFILES / "everyday.toml").read_text()
    stages = {part.split("]")[0]: part for part in everyday.split("\n[stages.")[1:]}
    alone = f"[stages.{stages['segmenter']}\n[stages.{stages['ocr']}"
    (tmp_path / "alone.toml").write_text(alone)
    with pytest.raises(InvalidProfile, match="needs the stage 'detector'"):
        read_profile(tmp_path / "alone.toml")
    (tmp_path / "other.toml").write_text(
        alone.replace('"grabcut"', '"classical"').replace("builtin:grabcut", "builtin:x")
    )
    with pytest.raises(InvalidProfile, match="needs the stage 'captioner'"):
        read_profile(tmp_path / "other.toml")


# the whole profile


@pytest.fixture(scope="module")
def everyday() -> tuple[VisionPipeline, LlmPipeline]:
    profile = load_profile("everyday", PROFILES)
    # without the OCR, which has tests of its own and takes most of the time
    stages = {name: stage for name, stage in profile.stages.items() if name != "ocr"}
    profile = profile.model_copy(update={"stages": stages})
    pipelines = VisionPipeline(profile), LlmPipeline(profile)
    for pipeline in pipelines:
        pipeline.load()
    return pipelines


def described(everyday: tuple[VisionPipeline, LlmPipeline], *images: Image.Image) -> list[Record]:
    vision, llm = everyday
    batch = [
        (Record(key="0", image=ImageReference(uri="a", size=1), width=image.width, height=image.height), image)
        for image in images
    ]
    records = llm.run([ComposeRequest(one) for one in vision.run(batch)])
    assert [record.status for record in records] == [Status.SUCCEEDED] * len(images), records
    return records


def test_what_everyday_says_of_photographs(everyday: tuple[VisionPipeline, LlmPipeline]) -> None:
    names = ("coffee.png", "chelsea.png", "motorcycle_left.png", "camera.png", "rocket.jpg")
    records = dict(zip(names, described(everyday, *map(photograph, names)), strict=True))
    texts = {name: record.description.text for name, record in records.items() if record.description}
    assert texts["coffee.png"].startswith("A cup is at the top of the picture.")
    assert texts["chelsea.png"].startswith("A cat takes up most of the picture.")
    assert texts["motorcycle_left.png"].startswith("A motorcycle takes up most of the picture.")
    assert "person" in texts["camera.png"]
    assert texts["rocket.jpg"] == NOTHING_FOUND
    # the second opinion: what the detector alone would say, with the reason why it is not said
    dropped = {region.phrase: region.reason for region in records["coffee.png"].regions or () if not region.kept}
    assert dropped["a bowl"] == "low_match"
    for record in records.values():
        assert record.caption is None
        for sentence in record.description.sentences if record.description else ():
            assert sentence.evidence or sentence.text == NOTHING_FOUND


# labelled photographs of both halves, and the things that are told of each
TOLD: dict[str, dict[str, int]] = {
    "giraffe-and-zebra": {"giraffe": 1, "zebra": 1},
    "laughing-dog": {"dog": 1},
    "polar-bear": {"bear": 1},
    "macaw": {"bird": 1},
    "apple": {},
    "hammer": {},
    "cup-and-cat": {"cup": 1},
    "orange": {"orange": 1},
    "car-rear": {"car": 1},
    "men-and-ball": {"person": 1},
    "tiger": {},
    "flower-bed": {},
}


def test_everyday_reaches_its_bar(everyday: tuple[VisionPipeline, LlmPipeline]) -> None:
    """95 % of the things are right, one is told on 70 % of the pictures with a kind, and nothing is invented.

    `python -m bench.photographs everyday` measures all 129 photographs.
    """
    known = {one.name: one for one in photographs()}
    images = [Image.open(known[name].file).convert("RGB") for name in TOLD]
    records = dict(zip(TOLD, described(everyday, *images), strict=True))
    verdicts = [verdict(known[name], record) for name, record in records.items()]
    assert {one.photograph.name: dict(one.right) for one in verdicts} == TOLD
    assert {one.photograph.name: one.words for one in verdicts if one.wrong} == {}
    silent = {one.photograph.name for one in verdicts if one.words == NOTHING_FOUND}
    assert silent == {name for name, things in TOLD.items() if not things}
    for half in ("tuning", "held-out"):
        measured = figures([one for one in verdicts if one.photograph.half == half])
        assert measured["share right"] >= 0.95 and measured["share told"] >= 0.7, (half, measured)
        assert measured["pictures without kinds"] and not measured["of these, something is invented"]


def test_masks_belong_to_kept_regions(everyday: tuple[VisionPipeline, LlmPipeline]) -> None:
    astronaut, nothing, large = described(
        everyday,
        photograph("astronaut.png"),
        photograph("rocket.jpg"),
        photograph("astronaut.png").resize((4100, 4100)),
    )
    for record in (astronaut, large):
        (thing,) = record.objects or []
        (region,) = (region for region in record.regions or () if region.kept)
        assert (
            (thing.phrase, thing.match, thing.kept) == (region.phrase, region.match, True) == ("a person", None, True)
        )
        assert iou(thing.box, region.box) > 0.75
        assert record.width is not None and record.height is not None
        assert tuple(thing.mask.size) == (record.height, record.width)
        assert decode_mask(thing.mask).sum() == thing.area > 0.2 * record.width * record.height
    assert nothing.objects == []


def test_a_segmenter_that_fails_fails_its_image_alone(
    everyday: tuple[VisionPipeline, LlmPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    vision, _ = everyday
    stage: Any = vision.stages["segmenter"]
    cut = stage._segments

    def failing(item: BoxedImage) -> Any:
        if item.image.size == (451, 300):
            raise ValueError("no")
        return cut(item)

    monkeypatch.setattr(stage, "_segments", failing)
    images = [photograph("chelsea.png"), photograph("coffee.png")]
    batch = [
        (Record(key="0", image=ImageReference(uri="a", size=1), width=i.width, height=i.height), i) for i in images
    ]
    failed, right = vision.run(batch)
    assert failed.status is Status.FAILED
    assert failed.failure is not None and failed.failure.stage == "segmenter"
    assert right.status is Status.SUCCEEDED
    assert not isinstance(right, Failure)
