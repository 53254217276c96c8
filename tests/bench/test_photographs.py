"""The labelled photographs, and the evaluation of a profile on them."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.photographs.__main__ import answers, by_half, table
from bench.photographs.contact_sheet import MOST_BYTES, draw
from bench.photographs.judging import figures, noun, verdict
from samples.labels import FOLDER, licence, packages, photographs, reads
from samples.make_photographs import LONGEST_SIDE, reduce, resource
from strata.core import ImageReference, Record
from strata.core.layers import Region, Tag, TextLine

SET = photographs()
NAMED = {photograph.name: photograph for photograph in SET}
COCO = set(Path("models/stages/coco-80.txt").read_text("utf-8").split("\n"))


def test_the_set_is_large_and_varied() -> None:
    assert len(SET) == len({photograph.name for photograph in SET}) >= 60
    assert sum(not photograph.kinds for photograph in SET) >= 15  # nothing of COCO's kinds
    assert sum(bool(photograph.text) for photograph in SET) >= 12
    assert sum(not photograph.text and not photograph.text_unsure for photograph in SET) >= 25
    shown = {kind for photograph in SET for kind in photograph.kinds}
    assert {"person", "cat", "dog", "cup", "orange", "car", "bicycle", "chair", "bed"} <= shown <= COCO
    halves = [sum(photograph.half == half for photograph in SET) for half in ("tuning", "held-out")]
    assert min(halves) > len(SET) // 3


def test_every_picture_is_there_without_metadata_and_has_a_licence() -> None:
    known = packages()
    assert {file.stem for file in FOLDER.glob("*.jpg")} == {photograph.name for photograph in SET}
    for photograph in SET:
        with Image.open(photograph.file) as image:
            assert max(image.size) <= LONGEST_SIDE
            assert not image.getexif() and not {"icc_profile", "comment", "xmp", "photoshop"} & set(image.info)
        assert photograph.package in known and licence(photograph)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 6_000_000


def test_a_picture_is_turned_upright_and_loses_its_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010E] = "secret words"
    Image.new("RGB", (1280, 320), "red").save(tmp_path / "turned.jpg", exif=exif, comment=b"secret words")
    with Image.open(tmp_path / "turned.jpg") as image:
        picture = reduce(image)
    picture.save(tmp_path / "reduced.jpg")
    assert picture.size == (160, 640)
    assert b"secret" not in (tmp_path / "reduced.jpg").read_bytes()


def packed(names: list[str], payload: bytes, flags: int) -> bytes:
    """Write a Qt resource file of nested folders with one file at their end, as `rcc --format-version 2` does."""
    strings = [struct.pack(">HI", len(name), 0) + name.encode("utf-16-be") for name in names]
    offsets = [sum(map(len, strings[:number])) for number in range(len(strings))]
    tree = struct.pack(">IHIIQ", 0, 2, 1, 1, 0)  # the root: a folder with one child, entry 1
    for number, offset in enumerate(offsets[:-1]):
        tree += struct.pack(">IHIIQ", offset, 2, 1, number + 2, 0)
    tree += struct.pack(">IHHHIQ", offsets[-1], flags, 0, 0, 0, 0)
    data = struct.pack(">I", len(payload)) + payload
    return (
        struct.pack(">4sIIII", b"qres", 2, 20, 20 + len(tree), 20 + len(tree) + len(data))
        + tree
        + data
        + b"".join(strings)
    )


def test_files_are_read_from_qt_resource_files() -> None:
    plain = packed(["images", "кот.webp"], b"pixels", 0)
    assert resource(plain, "images/кот.webp") == b"pixels"
    squeezed = struct.pack(">I", 6) + zlib.compress(b"pixels")
    assert resource(packed(["a", "b", "c.png"], squeezed, 1), "a/b/c.png") == b"pixels"
    with pytest.raises(KeyError):
        resource(plain, "images/dog.webp")


def record(
    name: str, *phrases: str, tags: tuple[str, ...] = (), text: tuple[str, ...] = (), kept: bool = True
) -> Record:
    """A record of a photograph with regions, tags and lines of text."""
    box = (0.0, 0.0, 9.0, 9.0)
    return Record(
        key=name,
        image=ImageReference(uri=name, size=1),
        regions=[Region(box=box, phrase=phrase, kept=kept, reason=None if kept else "low_match") for phrase in phrases],
        tags=[Tag(word=word) for word in tags],
        text=[TextLine(box=box, text=line, score=0.9) for line in text],
    )


def test_kinds_are_right_as_often_as_the_picture_shows_them() -> None:
    dogs = verdict(NAMED["two-dogs"], record("two-dogs", "a dog", "a dog", "a dog", "a brown cat"))
    assert (dict(dogs.right), dict(dogs.wrong), set(dogs.kinds)) == ({"dog": 2}, {"dog": 1, "brown cat": 1}, {"dog"})
    # uncounted kinds may be told any number of times, and what the labels allow too
    boats = verdict(NAMED["boats"], record("boats", *["a boat"] * 9, tags=("lakeside", "volcano")))
    assert (dict(boats.right), dict(boats.wrong)) == ({"boat": 9, "lakeside": 1}, {"volcano": 1})
    # words are compared as a whole, in singular and plural; what was dropped is not told
    coffee = record("coffee", "cups on a table", "a hiccup")
    assert verdict(NAMED["coffee"], coffee).wrong == {"hiccup": 1}
    assert not verdict(NAMED["coffee"], record("coffee", "an elephant", kept=False)).wrong
    assert [noun(phrase) for phrase in ("A Cup.", "two people", "skis")] == ["cup", "people", "skis"]


def test_text_is_right_if_it_stands_in_the_picture() -> None:
    hotel = verdict(NAMED["hotel"], record("hotel", text=("Hotel", "鑫")))
    assert (hotel.read, hotel.misread) == (("Hotel",), ("鑫",))
    assert reads(NAMED["sports-centre-sign"], "Sports Centr") and reads(NAMED["sudoku"], "anything") is None
    assert reads(NAMED["coffee"], "8") is False and reads(NAMED["hotel"], "!") is False
    assert reads(NAMED["priory-galleries"], "pRÍORy galleríes at the shíp")


def test_figures_of_both_halves_and_a_sheet(tmp_path: Path) -> None:
    said = [
        verdict(NAMED["coffee"], record("coffee", "a cup", "an elephant")),
        verdict(NAMED["chelsea"], record("chelsea")),
        verdict(NAMED["moon"], record("moon", "a pizza", text=("8",))),
        verdict(NAMED["brick"], record("brick").failed("decode", "OSError", "cut off")),
    ]
    measured = figures(said)
    assert (measured["things told"], measured["things right"], measured["share told"]) == (3, 1, 0.5)
    assert (measured["of these, something is invented"], measured["lines misread or invented"]) == (1, 1)
    assert measured["failed"] == 1
    halves = by_half(said)
    assert sum(halves[half]["things told"] for half in ("tuning", "held-out")) == halves["all"]["things told"] == 3
    assert "share right" in table(halves) and json.dumps(answers(said))
    draw(said, tmp_path / "sheet.jpg")
    assert 0 < (tmp_path / "sheet.jpg").stat().st_size <= MOST_BYTES
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        frames = np.asarray(sheet.convert("RGB"))[:60].reshape(-1, 3)
    red, green, blue = frames.T
    assert ((red > 150) & (green < 90) & (blue < 90)).any()
