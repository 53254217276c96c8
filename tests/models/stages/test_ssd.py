"""The detector of `everyday`, with its real weights, on photographs that scikit-image and scikit-learn ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import sklearn
from PIL import Image

from models.base import DetectorStage, WeightsMissing
from models.boxes import clipped, iou
from models.building import build_stage
from models.items import Detection, Failure
from models.kinds.coco import KINDS_BY_ID, KINDS_BY_PHRASE
from models.stages import ssd
from models.weights.inventory import PROFILES
from strata.core.profiles import StageSettings, load_profile

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
CHINA = Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"


def photograph(name: str) -> Image.Image:
    return Image.open(PHOTOGRAPHS / name).convert("RGB")


def make(**parameters: object) -> DetectorStage:
    settings = load_profile("everyday", PROFILES).stages["detector"]
    return build_stage("detector", settings.model_copy(update={"parameters": settings.parameters | parameters}))


@pytest.fixture(scope="module")
def detector() -> DetectorStage:
    stage = make()
    stage.load()
    return stage


def found(stage: DetectorStage, *images: Image.Image) -> list[list[Detection]]:
    results = stage.run(images)
    assert not any(isinstance(result, Failure) for result in results), results
    return results  # type: ignore[return-value]


# boxes drawn by hand, in pixels of the picture
@pytest.mark.parametrize(
    ("name", "phrase", "box"),
    [
        ("coffee.png", "a cup", (172, 12, 411, 240)),
        ("chelsea.png", "a cat", (10, 2, 451, 300)),
        ("motorcycle_left.png", "a motorcycle", (100, 66, 690, 450)),
        ("horse.png", "a horse", (15, 8, 390, 318)),
        ("astronaut.png", "a person", (10, 5, 370, 512)),
        ("camera.png", "a person", (60, 60, 300, 510)),
    ],
)
def test_the_surest_detection_is_the_thing_of_the_picture(
    name: str, phrase: str, box: tuple[float, ...], detector: DetectorStage
) -> None:
    image = photograph(name)
    ((best, *others),) = found(detector, image)
    assert best.phrase == phrase
    assert best.score > 0.75
    assert iou(best.box, box) > 0.7  # type: ignore[arg-type]
    assert [one.score for one in (best, *others)] == sorted((one.score for one in (best, *others)), reverse=True)
    for one in (best, *others):
        x1, y1, x2, y2 = one.box
        assert 0 <= x1 < x2 <= image.width
        assert 0 <= y1 < y2 <= image.height
        assert one.phrase in KINDS_BY_PHRASE


def test_where_no_kind_is_nothing_is_found(detector: DetectorStage) -> None:
    assert found(detector, Image.open(CHINA), photograph("rocket.jpg"), Image.new("RGB", (50, 900))) == [[], [], []]


def test_size_and_mode_change_little(detector: DetectorStage) -> None:
    """24 megapixels: OpenCV's own resizing would take one pixel of 20, and find less."""
    image = photograph("coffee.png")
    large = image.resize((6000, 4000), Image.Resampling.LANCZOS)
    (plain,), (sized,), (grey,) = (
        [one[0] for one in found(detector, each)] for each in (image, large, image.convert("L"))
    )
    assert sized.phrase == grey.phrase == plain.phrase == "a cup"
    assert iou(tuple(side / 10 for side in sized.box), plain.box) > 0.95  # type: ignore[arg-type]
    assert abs(sized.score - plain.score) < 0.02


def test_a_batch_gives_what_each_image_gives_alone(detector: DetectorStage) -> None:
    images = [photograph(name) for name in ("coffee.png", "chelsea.png", "horse.png")]
    assert found(detector, *images) == [found(detector, image)[0] for image in images]


class Answering:
    """A net that gives these rows for every image: category, score, box as fractions."""

    def __init__(self, *rows: tuple[float, ...]) -> None:
        self.rows = np.array([[0.0, *row] for row in rows], np.float32)

    def setInput(self, blob: Any) -> None:  # OpenCV's name
        assert blob.shape == (1, 3, ssd.SIDE, ssd.SIDE)

    def forward(self) -> Any:
        return self.rows[None, None]


def answer(*rows: tuple[float, ...], size: tuple[int, int] = (200, 100), **parameters: object) -> list[Detection]:
    stage = make(**parameters)
    stage._net = Answering(*rows)  # type: ignore[attr-defined]
    return found(stage, Image.new("RGB", size))[0]


def test_duplicates_of_one_kind_are_suppressed_and_of_two_are_not() -> None:
    cup, bowl, car = 47, 51, 3
    boxes = ((0.1, 0.1, 0.5, 0.5), (0.12, 0.1, 0.52, 0.5), (0.5, 0.5, 0.9, 0.9))
    rows = [
        (cup, 0.9, *boxes[1]),
        (cup, 0.95, *boxes[0]),
        (bowl, 0.6, *boxes[0]),
        (car, 0.4, *boxes[2]),
        (car, 0.2, *boxes[1]),
    ]
    result = answer(*rows, nms_iou=0.5, threshold=0.3)
    assert [(one.phrase, round(one.score, 3)) for one in result] == [("a cup", 0.95), ("a bowl", 0.6), ("a car", 0.4)]
    assert result[0].box == pytest.approx((20, 10, 100, 50))
    assert len(answer(*rows, nms_iou=0.95, threshold=0.1)) == 5


def test_boxes_are_cut_to_the_image_and_unknown_categories_dropped() -> None:
    rows = [(1, 0.9, -0.1, 0.2, 1.3, 0.7), (12, 0.9, 0.1, 0.1, 0.5, 0.5), (3, 0.9, 1.01, 0.1, 1.2, 0.5)]
    (one,) = answer(*rows)
    assert one.phrase == "a person"
    assert one.box == pytest.approx((0, 20, 200, 70))


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((-5, -5, 300, 50), (200, 100), (0, 0, 200, 50)),
        ((150, 90, 160, 140), (200, 100), (150, 90, 160, 100)),
        ((150, 90, 160, 140), (100, 200), None),
        ((10, 10, 10.5, 90), (200, 100), None),
        ((60, 10, 20, 90), (200, 100), None),
    ],
)
def test_clipped(box: tuple[float, ...], size: tuple[int, int], expected: tuple[float, ...] | None) -> None:
    assert clipped(box, size) == expected


def test_kinds_are_those_of_coco() -> None:
    ids = list(KINDS_BY_ID)
    assert len(ids) == len(KINDS_BY_PHRASE) == 80
    assert ids == sorted(ids)
    assert (ids[0], ids[-1]) == (1, 90)
    words = [line for line in (Path(ssd.__file__).with_name("coco-80.txt")).read_text().splitlines() if line[:1] != "#"]
    assert [kind.word for kind in KINDS_BY_ID.values()] == words
    phrases = {kind.word: kind.phrase for kind in KINDS_BY_ID.values()}
    assert phrases["orange"] == "an orange"
    assert phrases["dining table"] == "a dining table"
    assert phrases["skis"] == "skis"


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({}, WeightsMissing, "needs one .pb and one .pbtxt"),
        ({"a.pb": b"1", "b.pb": b"1", "a.pbtxt": b""}, WeightsMissing, "needs one .pb and one .pbtxt"),
        ({"a.pb": b"no graph", "a.pbtxt": b"node {"}, ValueError, "OpenCV cannot read"),
    ],
)
def test_weights_that_are_none(files: dict[str, bytes], error: type[Exception], words: str, tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    settings = StageSettings(backend="opencv_ssd", model=f"local:{tmp_path}", revision="")
    stage = build_stage("detector", settings)
    with pytest.raises(error, match=words):
        stage.load()
