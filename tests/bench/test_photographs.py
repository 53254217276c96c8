"""The labelled photographs, and the evaluation of a profile on them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from samples.labels import FOLDER, licence, packages, photographs
from samples.make_photographs import LONGEST_SIDE, reduce, resource

SET = photographs()
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
