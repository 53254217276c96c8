"""The picture of a record's layers."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageChops
from pycocotools import mask as coco

from app.images import overlay
from app.images.decoding import PICTURE_BYTES, PICTURE_PIXELS
from app.images.lettering import LEFT_OUT, drawable
from app.images.masks import mask_image
from app.images.overlay import COLOURS, MIN_LONG_SIDE, READ, STRIP, draw_overlay
from samples.scenes import HELD_OUT_SEED, Scene, SceneOptions, make_scene
from strata.core.records import (
    Caption,
    Description,
    ImageReference,
    Mask,
    ObjectMask,
    Record,
    Region,
    Sentence,
    TextLine,
)


def encode(pixels: np.ndarray) -> Mask:
    rle = coco.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return Mask(size=(rle["size"][0], rle["size"][1]), counts=rle["counts"].decode())


def record_of(scene: Scene) -> Record:
    """A scene's truth as a record."""
    objects = [
        ObjectMask(box=thing.box, mask=encode(thing.mask), area=int(thing.mask.sum()), phrase=thing.phrase, score=0.9)
        for thing in scene.objects
    ]
    return Record(
        key="k",
        image=ImageReference(uri="file:///a.tar", size=1),
        width=scene.image.width,
        height=scene.image.height,
        caption=Caption(text=scene.caption),
        regions=[Region(box=thing.box, phrase=thing.phrase, match=0.97) for thing in scene.objects],
        objects=objects,
        text=[TextLine(box=sign.box, text=sign.text, score=0.9) for sign in scene.signs],
        description=Description(text=scene.caption, sentences=[Sentence(text=scene.caption, evidence=["caption"])]),
    )


def colours_in(image: Image.Image) -> set[object]:
    return {colour for _, colour in image.getcolors(image.width * image.height) or ()}


@pytest.mark.parametrize("index", range(6))
def test_masks_are_decoded_as_coco_encodes_them(index: int) -> None:
    rng = np.random.default_rng(index)
    shape = tuple(rng.integers(1, 60, 2))
    pixels = rng.random(shape) < (0.0, 1.0, 0.5, 0.02, 0.98, 0.3)[index]
    decoded = mask_image(encode(pixels))
    assert decoded is not None and decoded.mode == "L"
    assert (np.asarray(decoded) == pixels * np.uint8(255)).all()


def test_scene_masks_are_decoded_as_coco_encodes_them() -> None:
    for thing in make_scene(HELD_OUT_SEED, SceneOptions(min_objects=3)).objects:
        decoded = mask_image(encode(thing.mask))
        assert decoded is not None and (np.asarray(decoded) > 0).tolist() == thing.mask.tolist()


def test_long_runs_are_decoded() -> None:
    pixels = np.zeros((3000, 2000), np.bool_)
    pixels[:, 1900:] = True
    decoded = mask_image(encode(pixels))
    assert decoded is not None and (np.asarray(decoded) > 0).tolist() == pixels.tolist()


@pytest.mark.parametrize("size", [(0, 7), (5, -7), (2**31, 2**31), (2**15, 2**15)])
def test_masks_of_impossible_sizes_are_not_decoded(size: tuple[int, int]) -> None:
    assert mask_image(Mask(size=size, counts="")) is None


HOSTILE = """
import sys
from app.images.lettering import LEFT_OUT, drawable
from app.images.masks import mask_image
from strata.core.records import Mask
for line in sys.stdin:
    height, width, *counts = line.rstrip("\\n").split(" ", 2)
    decoded = mask_image(Mask(size=(int(height), int(width)), counts="".join(counts)))
    assert decoded is None or decoded.size == (int(width), int(height)), line
    assert decoded is None or set(decoded.tobytes()) <= {0, 255}, line
    print(decoded is None)
"""


def test_damaged_masks_do_no_harm() -> None:
    """In a process of its own, whose allocator fills and checks memory: the library's C code reads and writes there."""
    rng = random.Random(0)
    cases = [
        "5 7 ",
        "5 7 ~~~~",
        "5 7 " + "o" * 500,
        "5 7 P",
        "5 7 PPP",
        "5 7 " + "o" * 40 + "0",
        "5 7 \u00e9",
        "5 7 1\0",
    ]
    whole = encode(np.random.default_rng(0).random((50, 70)) < 0.3).counts
    cases += [f"50 70 {whole[: rng.randrange(len(whole))]}" for _ in range(200)]
    cases += ["50 70 " + "".join(chr(rng.randint(40, 120)) for _ in range(rng.randint(1, 50))) for _ in range(200)]
    cases += ["50 70 " + "".join(chr(rng.randint(48, 111)) for _ in range(rng.randint(1, 50))) for _ in range(500)]
    environment = {**os.environ, "MALLOC_PERTURB_": "165", "MALLOC_CHECK_": "3"}
    command = [sys.executable, "-c", HOSTILE]
    told = subprocess.run(
        command, input="\n".join(cases), env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert told.returncode == 0, told.stderr
    assert len(told.stdout.split()) == len(cases)
    assert told.stdout.split()[:8] == ["True"] * 8


def test_a_last_run_that_is_cut_off_is_not_read_on() -> None:
    """Unchecked, the C code reads this one across the end of the text, finds a run of none, and calls it good."""
    pixels = np.zeros((1, 1124), np.bool_)
    pixels[:, 100:612] = True
    whole = encode(pixels)
    assert mask_image(whole) is not None
    assert mask_image(Mask(size=whole.size, counts=whole.counts + "P")) is None


def test_an_object_whose_mask_is_damaged_is_drawn_without_it() -> None:
    thing = ObjectMask(box=(9, 9, 50, 50), mask=Mask(size=(64, 64), counts="P"), area=9, phrase="a box", score=1)
    record = Record(key="k", image=ImageReference(uri="u", size=1), width=64, height=64, objects=[thing])
    assert draw_overlay(Image.new("RGB", (64, 64)), record).mode == "RGB"


def test_a_small_picture_is_scaled_up_and_gets_a_strip() -> None:
    scene = make_scene(HELD_OUT_SEED + 5, SceneOptions(min_objects=5))
    picture = draw_overlay(scene.image, record_of(scene))
    assert max(picture.width, picture.height) >= MIN_LONG_SIDE
    factor = MIN_LONG_SIDE / max(scene.image.size)
    assert picture.width == round(scene.image.width * factor)
    assert picture.height > round(scene.image.height * factor)
    found = colours_in(picture)
    assert {*COLOURS[: len(scene.objects)], STRIP} <= found
    assert (READ in found) == bool(scene.signs)


def test_the_box_is_drawn_at_its_place_whatever_the_picture_was_scaled_to() -> None:
    image = Image.new("RGB", (1600, 800), "white")
    region = Region(box=(100, 100, 200, 150), phrase="a car", match=0.5)
    record = Record(key="k", image=ImageReference(uri="u", size=1), width=400, height=200, regions=[region])
    picture = draw_overlay(image, record)
    assert picture.size == image.size
    assert {picture.getpixel(corner) for corner in ((400, 500), (800, 500), (600, 600))} == {COLOURS[0]}
    assert picture.getpixel((600, 500)) == (255, 255, 255)


def test_masks_are_translucent() -> None:
    pixels = np.zeros((640, 640), np.bool_)
    pixels[200:400, 200:400] = True
    thing = ObjectMask(box=(200, 200, 400, 400), mask=encode(pixels), area=40000, phrase="a box", score=1)
    record = Record(key="k", image=ImageReference(uri="u", size=1), width=640, height=640, objects=[thing])
    picture = draw_overlay(Image.new("RGB", (640, 640), "black"), record)
    inside = picture.getpixel((300, 300))
    assert isinstance(inside, tuple)
    assert 0 < max(inside) < max(COLOURS[0])
    assert picture.getpixel((500, 500)) == (0, 0, 0)


def test_what_was_dropped_is_dashed_and_duplicates_are_left_out() -> None:
    def drawn(reason: str) -> Image.Image:
        region = Region(box=(100, 100, 500, 500), phrase="a ghost", match=0.1, kept=False, reason=reason)
        record = Record(key="k", image=ImageReference(uri="u", size=1), width=640, height=640, regions=[region])
        return draw_overlay(Image.new("RGB", (640, 640), "white"), record)

    blank = Image.new("RGB", (640, 640), "white")
    assert ImageChops.difference(drawn("duplicate"), blank).getbbox() is None
    edge = {drawn("low_match").getpixel((x, 100)) for x in range(100, 500)}
    assert len(edge) == 2


def crowded(size: tuple[int, int]) -> Record:
    """A record whose boxes lie at and beyond the edges, with long texts."""
    boxes = ((-50.0, -50.0, 1e6, 1e6), (5.0, 5.0, 5.0, 5.0), (9.0, 9.0, 1.0, 1.0))
    words = "x" * 400 + " and more" * 300
    return Record(
        key="k",
        image=ImageReference(uri="u", size=1),
        width=size[0],
        height=size[1],
        regions=[Region(box=box, phrase="word " * 60, match=0.5) for box in boxes],
        text=[TextLine(box=box, text="\n\u4f60\u597d \x1b[31m", score=0.5) for box in boxes],
        description=Description(text=words, sentences=[]),
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (30, 20), (3000, 2000)])
def test_any_size_and_any_box_can_be_drawn(size: tuple[int, int]) -> None:
    assert draw_overlay(Image.new("RGB", size), crowded(size)).mode == "RGB"


@pytest.mark.parametrize("size", [(65_500, 24), (24, 65_500), (333_334, 3), (1, 1_000_000), (1_000_000, 1)])
def test_a_very_long_picture_is_drawn_within_the_bounds(size: tuple[int, int]) -> None:
    """Letters of a 44th of the width made 1.6 GiB of a picture of 65500 × 244, and an error of one of a million."""
    picture = draw_overlay(Image.new("RGB", size), crowded(size))
    bare = draw_overlay(Image.new("RGB", size), Record(key="k", image=ImageReference(uri="u", size=1)))
    assert max(bare.size) == overlay.MAX_LONG_SIDE
    assert picture.width == bare.width and picture.height - bare.height <= overlay.MAX_STRIP_HEIGHT
    assert picture.width * picture.height <= overlay.MAX_CANVAS_PIXELS


@pytest.mark.parametrize(
    ("size", "text"), [((640, 480), 15), ((4000, 3000), 4000 / 44), ((8000, 500), 8000 / 44), ((8192, 30), 45.07)]
)
def test_the_text_follows_from_the_picture_s_size(size: tuple[int, int], text: float) -> None:
    assert overlay._text_size(size) == pytest.approx(text, abs=0.01)


LARGEST = """
import io, resource, sys
from PIL import Image
from app.images.overlay import draw_overlay
from strata.core.records import Record
record = Record.model_validate_json(sys.stdin.read())
image = Image.new("RGB", (4000, 4000))
peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
file = io.BytesIO()
picture = draw_overlay(image, record)
picture.save(file, "PNG")
print(peak() - before + 4 * image.width * image.height, *picture.size)
"""


def test_the_largest_picture_takes_no_more_memory_than_is_held_for_it() -> None:
    pixels = np.zeros((12_000, 10_000), np.bool_)
    pixels[5000:7000, 300:9000] = True
    thing = ObjectMask(box=(300, 5000, 9000, 7000), mask=encode(pixels), area=1, phrase="a box", score=1)
    record = crowded((10_000, 12_000)).model_copy(update={"objects": [thing]})
    command = [sys.executable, "-c", LARGEST]
    told = subprocess.run(command, input=record.model_dump_json(), capture_output=True, text=True, check=True)
    taken, width, height = map(int, told.stdout.split())
    assert width * (height - width) > 1_000_000 and width == 4000 and width**2 == PICTURE_PIXELS
    # noise as a PNG has 3 bytes for each pixel, which are copied once
    assert taken + 6 * PICTURE_PIXELS <= PICTURE_BYTES


def test_a_failed_record_says_so() -> None:
    record = Record(key="k", image=ImageReference(uri="u", size=1)).failed("captioner", "OSError", "no such file")
    picture = draw_overlay(Image.new("RGB", (640, 480)), record)
    assert picture.height > 480


@pytest.mark.parametrize("text", ["Café Größe", "ΕΞΟΔΟΣ", "ВЫХОД", "50 € – ★ ✓ →", "a\tb\n"])
def test_the_font_has_the_letters_of_signs(text: str) -> None:
    assert drawable(text) == text


@pytest.mark.parametrize(
    ("text", "drawn"), [("鑫", LEFT_OUT), ("EXIT 出口 2", f"EXIT {LEFT_OUT} 2"), ("🦕🦖 x", f"{LEFT_OUT} x")]
)
def test_what_has_no_glyph_is_left_out(text: str, drawn: str) -> None:
    assert drawable(text) == drawn
    # no box for a missing glyph is drawn: the label is the one of the text without it
    image, record = Image.new("RGB", (64, 64), "white"), record_of(make_scene(HELD_OUT_SEED))
    line = TextLine(box=(5, 20, 40, 30), text=text, score=0.9)
    empty = {"width": 64, "height": 64, "regions": [], "objects": [], "description": None}
    pictures = [
        draw_overlay(image, record.model_copy(update=empty | {"text": [line.model_copy(update={"text": words})]}))
        for words in (text, drawn)
    ]
    assert ImageChops.difference(*pictures).getbbox() is None
