"""The OCR stage, with the models that rapidocr's wheel carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from models import deadlines
from models.base import OcrStage, WeightsMissing
from models.building import build_stage
from models.deadlines import DEADLINES
from models.evidence.filter import text_judged
from models.items import Failure
from models.stages.ocr import RapidOcr, enclosing_box, working_size
from models.stages.text_lines import LINE_HEIGHT, WIDEST, WIDTH_AT_ONCE
from samples.labels import photographs, reads
from samples.scenes import HELD_OUT_SEED, make_scene
from strata.core import EvidenceSettings, ImageReference, Record
from strata.core.layers import TextLine
from strata.core.profiles import StageSettings


def _settings(model: str = "builtin:rapidocr", **parameters: object) -> StageSettings:
    return StageSettings(backend="rapidocr", model=model, revision="", parameters=parameters)


@pytest.fixture(scope="module")
def stage() -> OcrStage:
    """A loaded OCR."""
    stage = build_stage("ocr", _settings())
    stage.load()
    return stage


def _sign(text: str, colour: str = "black", board: str = "white") -> Image.Image:
    image = Image.new("RGB", (300, 200), "lightblue")
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 70, 240, 130), board)
    draw.text((80, 80), text, colour, font=ImageFont.load_default(size=32))
    return image


def test_a_sign_is_read_where_it_stands(stage: OcrStage) -> None:
    (lines,) = stage.run([_sign("BAKERY")])
    assert isinstance(lines, list)
    (line,) = lines
    assert line.text == "BAKERY"
    assert 0.85 < line.score <= 1
    left, top, right, bottom = line.box
    assert 60 <= left <= 85 and 70 <= top <= 90
    assert 190 <= right <= 240 and 105 <= bottom <= 130


def test_each_image_keeps_its_own_lines(stage: OcrStage) -> None:
    blank = Image.new("RGB", (120, 90), "gray")
    answers = stage.run([_sign("OPEN"), blank, _sign("EXIT", "white", "darkred")])
    assert [[line.text for line in lines] for lines in answers if isinstance(lines, list)] == [["OPEN"], [], ["EXIT"]]


def test_a_short_line_is_padded_no_further_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stage = RapidOcr(_settings(line_width=160))
    stage.load()
    (engine,) = stage._engines
    recognize = Mock(wraps=engine.text_rec.session)
    monkeypatch.setattr(engine.text_rec, "session", recognize)
    (lines,) = stage.run([_sign("EXIT")])
    assert isinstance(lines, list) and [line.text for line in lines] == ["EXIT"]
    assert [call.args[0].shape for call in recognize.call_args_list] == [(1, 3, LINE_HEIGHT, 160)]


def test_a_page_of_long_lines_costs_a_bounded_amount(stage: OcrStage, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Image.new("L", (1000, 140), 255)
    for y in range(10, 120, 22):
        ImageDraw.Draw(page).text((0, y), "THE QUIET GARDEN " * 12, 0, font=ImageFont.load_default(size=9))
    assert isinstance(stage, RapidOcr)
    shapes: list[tuple[int, ...]] = []
    told: set[int] = set()
    for engine in stage._engines:
        network = engine.text_rec.session

        def noting(pixels: Any, network: Callable[[object], object] = network) -> object:
            shapes.append(pixels.shape)
            return network(pixels)

        monkeypatch.setattr(engine.text_rec, "session", noting)
    # each batch of lines is told to the watchdog
    monkeypatch.setattr(deadlines, "PROGRESS_SECONDS", 0.0)
    DEADLINES.report(lambda activities, _: told.update(one.progress for one in activities.values()), DEADLINES.limits)
    try:
        (lines,) = stage.run([page])
    finally:
        DEADLINES.report(None, DEADLINES.limits)
    assert isinstance(lines, list) and len(lines) == 5
    # at the recognizer's height the lines would be about 4,000 pixels wide
    assert {height for _, _, height, _ in shapes} == {LINE_HEIGHT}
    assert max(width for *_, width in shapes) == WIDEST
    assert all(count * width <= WIDTH_AT_ONCE for count, _, _, width in shapes)
    assert told == set(range(len(shapes) + 1)) and len(shapes) == 3


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (31, 31)])
def test_odd_sizes_have_no_text(stage: OcrStage, size: tuple[int, int]) -> None:
    assert stage.run([Image.new("RGB", size, "white")]) == [[]]


def test_no_network_meets_denormal_numbers(stage: OcrStage, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot take them as zeros")
    tiny, met = torch.tensor(1e-40), []
    assert isinstance(stage, RapidOcr) and tiny * 1 > 0
    for engine in stage._engines:
        network = engine.text_det.session

        def noting(pixels: object, network: Callable[[object], object] = network) -> object:
            met.append(float(tiny * 1))
            return network(pixels)

        monkeypatch.setattr(engine.text_det, "session", noting)
    stage.run([_sign("OPEN")])
    assert met == [0.0]


def test_two_lines_of_a_grey_image_come_from_top_to_bottom(stage: OcrStage) -> None:
    image = Image.new("L", (320, 240), 255)
    draw = ImageDraw.Draw(image)
    for y, text in ((40, "GARDEN"), (140, "MUSEUM")):
        draw.text((70, y), text, 0, font=ImageFont.load_default(size=36))
    (lines,) = stage.run([image])
    assert isinstance(lines, list)
    assert [line.text for line in lines] == ["GARDEN", "MUSEUM"]


def test_signs_of_held_out_scenes_are_read(stage: OcrStage) -> None:
    scenes = [make_scene(seed) for seed in range(HELD_OUT_SEED + 700, HELD_OUT_SEED + 718)]
    scenes = [scene for scene in scenes if scene.signs]
    answers = stage.run([scene.image for scene in scenes])
    wanted = [(sign.text, i) for i, scene in enumerate(scenes) for sign in scene.signs]
    read = [{line.text for line in lines} if isinstance(lines, list) else set() for lines in answers]
    assert len(wanted) >= 8
    assert sum(text in read[i] for text, i in wanted) >= 0.95 * len(wanted) - 1


def test_images_are_read_at_a_size_that_keeps_their_shape_and_has_bounds() -> None:
    assert working_size((240, 160), 320, 1600) == (480, 320)
    assert working_size((640, 480), 320, 1600) == (640, 480)
    assert working_size((4000, 3000), 320, 1600) == (1600, 1200)
    assert working_size((3, 400), 320, 1600) == (12, 1600)
    assert working_size((20000, 1), 320, 1600) == (1600, 1)


def test_a_box_encloses_its_polygon_inside_the_image() -> None:
    polygon = np.array([[-2, 5], [50, 1], [52, 22], [1, 25]], np.float32)
    assert enclosing_box(polygon, (51, 24)) == (0, 1, 51, 24)


def test_a_line_that_stands_on_its_head_needs_the_angle_classifier(stage: OcrStage) -> None:
    turned = _sign("MUSEUM").rotate(180)
    (without,) = stage.run([turned])
    assert isinstance(without, list)
    assert "MUSEUM" not in [line.text for line in without]
    classifying = build_stage("ocr", _settings(angle_classifier="ch_ppocr_mobile_v2.0_cls_mobile.onnx"))
    classifying.load()
    (lines,) = classifying.run([turned])
    assert isinstance(lines, list)
    assert [line.text for line in lines] == ["MUSEUM"]


def test_another_version_than_pinned_is_refused() -> None:
    settings = StageSettings(backend="rapidocr", model="builtin:rapidocr", revision="0.1")
    with pytest.raises(WeightsMissing, match=r"is installed, the profile says 0\.1"):
        build_stage("ocr", settings).load()


def test_missing_models_and_unknown_parameters_say_so() -> None:
    with pytest.raises(WeightsMissing, match="no_such"):
        build_stage("ocr", _settings(detector="no_such.onnx")).load()
    with pytest.raises(WeightsMissing):
        build_stage("ocr", _settings("local:/no/such/folder")).load()
    with pytest.raises(ValidationError):
        build_stage("ocr", _settings(speed="fast"))


ROW = Record(key="a", image=ImageReference(uri="a.tar", size=1))
WITHOUT_TEXT = """coffee scissors china kiwi hammer chair spoons camels robin sheep pliers light-bulb church horses
moose windmill bucket koala apple fig heron""".split()
WITH_TEXT = "cup-and-cat parking-ramp sports-centre-sign copy-centre hotel freephone-sign projector".split()


def test_text_that_is_no_text_is_dropped_from_photographs(stage: OcrStage) -> None:
    named = {photograph.name: photograph for photograph in photographs()}
    chosen = [named[name] for name in WITHOUT_TEXT + WITH_TEXT]
    images = [Image.open(photograph.file).convert("RGB") for photograph in chosen]
    right: dict[bool, list[tuple[str, str]]] = {True: [], False: []}  # whether it is kept
    false: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for photograph, image, lines in zip(chosen, images, stage.run(images), strict=True):
        assert not isinstance(lines, Failure)
        text = [TextLine(box=line.box, text=line.text, score=line.score) for line in lines]
        record = ROW.model_copy(update={"width": image.width, "height": image.height, "text": text})
        for entry in text_judged(record, EvidenceSettings()).text or ():
            answer = reads(photograph, entry.text)
            if answer is not None and (entry.score or 0) >= EvidenceSettings().text:
                (right if answer else false)[entry.kept].append((photograph.name, entry.text))
    assert not false[True] and not right[False]
    assert {("coffee", "8"), ("scissors", "8")} <= set(false[False])
    assert len(right[True]) >= 18 and ("hotel", "HOTEL") in right[True]


@pytest.mark.parametrize(
    ("text", "width", "kept"),
    [
        ("8", 60, False),  # 0.36 of the image
        ("鑫", 51, False),
        ("8", 50, True),  # a quarter
        ("60", 71, False),
        ("GO", 70, True),  # a sign from near by
        ("YAMAHA", 99, True),
    ],
)
def test_how_much_of_an_image_a_character_may_cover(text: str, width: int, kept: bool) -> None:
    line = TextLine(box=(0, 0, width, width), text=text, score=0.99)
    record = ROW.model_copy(update={"width": 100, "height": 100, "text": [line]})
    judged = text_judged(record, EvidenceSettings()).text
    assert judged is not None
    assert (judged[0].kept, judged[0].reason) == ((True, None) if kept else (False, "too_large"))


@pytest.mark.parametrize(
    ("text", "kept"), [("★", False), ("***", False), ("→ —", False), ("№ 7", True), ("出口", True)]
)
def test_a_line_without_letters_or_digits_is_no_text(text: str, kept: bool) -> None:
    line = TextLine(box=(10, 10, 30, 20), text=text, score=0.99)
    record = ROW.model_copy(update={"width": 100, "height": 100, "text": [line]})
    judged = text_judged(record, EvidenceSettings()).text
    assert judged is not None
    assert (judged[0].kept, judged[0].reason) == ((True, None) if kept else (False, "no_letters"))


def test_how_many_letters_a_line_needs() -> None:
    lines = [TextLine(box=(10, 10, 30, 20), text=text, score=0.99) for text in ("8", "8 .", "GO", "小", "小心")]
    record = ROW.model_copy(update={"width": 100, "height": 100, "text": lines})
    judged = text_judged(record, EvidenceSettings(text_letters=2)).text or []
    assert [line.reason for line in judged] == ["too_short", "too_short", None, "too_short", None]
    assert all(line.kept for line in text_judged(record, EvidenceSettings()).text or [])
