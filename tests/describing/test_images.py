"""What `describe` takes: each kind of image gives the same record, and what is none has a clear reason."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from strata.core.settings import Settings
from strata.describing import Describer, DescriptionFailed
from strata.describing.images import ImageSource
from strata.errors import InvalidInput
from strata.images import ImageError
from tests.fakes import jpeg

PIXELS = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)


def read(given: Any) -> Image.Image:
    pixels = ImageSource(given).read(Settings()).pixels
    assert pixels is not None
    return pixels


def test_each_kind_of_image_is_described(describer: Describer, picture: Path) -> None:
    data = picture.read_bytes()
    hugging_face = [{"bytes": data, "path": None}, {"bytes": None, "path": str(picture)}]
    kinds = [picture, str(picture), data, bytearray(data), memoryview(data), io.BytesIO(data), Image.open(picture)]
    for given in [*kinds, PIXELS, *hugging_face]:
        described = describer.describe(given)
        assert (described.width, described.height) == (32, 24)
        assert str(described) == "32 by 24"
        assert described.picture().size == (32, 24)
        assert (described.profile, len(described.fingerprint or "")) == ("fake", 16)


def test_a_key_is_the_name_of_a_file_or_comes_from_the_content(describer: Describer, picture: Path) -> None:
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    named, unnamed = describer.describe(picture), describer.describe(picture.read_bytes())
    assert (named.key, unnamed.key) == ("a picture.jpg", digest[:16])
    assert named.image.sha256 == unnamed.image.sha256 == digest
    assert named.image.uri == str(picture)
    assert describer.describe(PIXELS).key == describer.describe(Image.fromarray(PIXELS)).key


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"]
)
def test_every_mode_of_pillow_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (8, 6), "white")
    for step in {"PA": ("P", "PA"), "RGBa": ("RGBA", "RGBa"), "La": ("LA", "La"), "LA": ("L", "LA")}.get(mode, (mode,)):
        image = image.convert(step)
    found = read(image)
    assert (found.mode, found.size) == ("RGB", (8, 6))


def test_pixels_are_those_that_a_file_of_them_has() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read(clear).getpixel((0, 0)) == (255, 255, 255)  # transparency on white
    deep = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    assert read(deep).getpixel((0, 0)) == (255, 255, 255)
    turned = Image.new("RGB", (8, 4), "red")
    turned.getexif()[0x0112] = 6
    assert read(turned).size == (4, 8)  # upright


def test_arrays() -> None:
    assert np.array_equal(np.asarray(read(PIXELS)), PIXELS)
    assert np.array_equal(np.asarray(read(PIXELS / 255)), PIXELS)
    assert read(PIXELS[:, :, :1]).getpixel((3, 3)) == read(PIXELS[:, :, 0]).getpixel((3, 3))
    assert read(np.array([[True, False]])).getpixel((0, 0)) == (255, 255, 255)
    assert np.array_equal(np.asarray(read(PIXELS[::-1, ::-2])), PIXELS[::-1, ::-2])


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (PIXELS.transpose(2, 0, 1), "transpose"),
        (PIXELS.astype(np.int64), "int64"),
        (PIXELS.astype(float), "0 to 1"),
        (np.full((2, 2), np.nan), "0 to 1"),
        (np.zeros(3), "not 3"),
        (np.zeros((2, 2, 2)), "not 2 × 2 × 2"),
        (np.array(["a"]), "not 1"),
    ],
)
def test_an_array_that_is_no_image_is_told(array: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        read(array)


def test_an_empty_array_has_no_pixels() -> None:
    with pytest.raises(ImageError, match="empty"):
        read(np.zeros((0, 5, 3), np.uint8))


def test_what_is_no_image_is_told(describer: Describer, tmp_path: Path) -> None:
    for given in (None, 3, "", {}, {"pixels": 1}, io.StringIO("text")):
        with pytest.raises((InvalidInput, DescriptionFailed)) as told:
            describer.describe(given)
        assert "\n" not in str(told.value)
    for named in ("missing.jpg", "/missing.jpg", os.fsdecode(b"missing\xff.jpg")):
        with pytest.raises(OSError, match=r"No such file") as missing:
            describer.describe(named)
        assert str(missing.value).count("missing") == 1
    with pytest.raises(DescriptionFailed, match="an empty str"):
        describer.describe("")
    for address in ("ftp://a.org/b.jpg", "s3://bucket/b.jpg", "file:///b.jpg"):
        with pytest.raises(DescriptionFailed, match="http:// or https://"):
            describer.describe(address)
    with pytest.raises(InvalidInput, match="no images in this folder"):
        describer.describe(tmp_path)
    with pytest.raises(DescriptionFailed, match="not_an_image") as failed:
        describer.describe(b"no image")
    assert failed.value.described.failure is not None


def test_a_pipe_is_not_waited_for(describer: Describer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DescriptionFailed, match="not a file"):
        describer.describe(tmp_path / "pipe.jpg")


def test_an_image_with_too_many_pixels_is_refused_before_it_is_read(describer: Describer) -> None:
    with pytest.raises(DescriptionFailed, match="too_many_pixels"):
        describer.describe(np.broadcast_to(np.uint8(0), (2000, 2000)))


def test_a_name_or_alt_text_that_is_not_utf8_is_told_with_question_marks(describer: Describer, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"bad\xff.jpg")
    path.write_bytes(jpeg())
    found = describer.describe([path, str(path), tmp_path / "sub"], alt_text=["a\udcff", None, None])
    one, other, failed = found
    assert one.succeeded and other.succeeded and not failed.succeeded
    assert (one.key, one.alt_text, Path(one.image.uri).name) == ("bad?.jpg", "a?", "bad?.jpg")
    assert one.picture().size == (32, 24) and "bad?" in one.model_dump_json()


def test_a_url_follows_the_rules_of_image_url(describer: Describer) -> None:
    with pytest.raises(OSError, match="could not be fetched"):
        describer.describe("http://127.0.0.1/cat.jpg")


def test_a_folder_is_its_images_by_name(describer: Describer, tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "sub folder/ü\n.jpg", ".hidden.jpg", "note.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg())
    (tmp_path / "link.jpg").symlink_to(tmp_path / "b.jpg")
    assert [one.key for one in describer.describe(tmp_path)] == ["a.PNG", "b.jpg", "sub folder/ü_.jpg"]
