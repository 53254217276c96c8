"""Metadata are removed from files of every format, and the pixels come out as before, turned as before."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from bench.hostile.images import bombs, encoded, good_images, mutated, png_chunk
from strata.images import ImageError, as_jpeg, decode, without_metadata
from tests.marks import KINDS, MARK, PHOTO, exif, has_mark, marked, xmp

LIMIT = 100_000_000
GOOD = good_images()


@pytest.mark.parametrize("kind", KINDS)
def test_no_mark_stays_and_no_pixel_changes(kind: str) -> None:
    data = marked(kind)
    assert has_mark(data)
    clean = without_metadata(data)
    assert not has_mark(clean)
    assert decode(clean, LIMIT).tobytes() == decode(data, LIMIT).tobytes()
    # what is clean already stays as it is: it has one identity
    assert without_metadata(clean) == clean
    with Image.open(io.BytesIO(clean)) as image:
        assert (kind == "TIFF" or not image.getexif()) and not {"comment", "xmp", "photoshop"} & set(image.info)
        # a browser still shows the animation, and the right colours
        assert getattr(image, "n_frames", 1) == (2 if kind in ("APNG", "GIF") else 1)
        assert ("icc_profile" in image.info) == (kind in ("JPEG", "MPO", "WEBP"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_picture_stays_upright(kind: str, turn: int) -> None:
    data = marked(kind, turn)
    clean = without_metadata(data)
    assert not has_mark(clean)
    expected, found = decode(data, LIMIT), decode(clean, LIMIT)
    assert (found.size, found.tobytes()) == (expected.size, expected.tobytes())
    assert found.size == ((32, 48) if turn > 4 else (48, 32))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_in_xmp_is_kept(kind: str) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", xmp(6).decode())
    data = encoded(PHOTO, kind, **({"pnginfo": texts} if kind == "PNG" else {"xmp": xmp(6)}))
    assert decode(data, LIMIT).size == decode(without_metadata(data), LIMIT).size == (32, 48)


def test_an_orientation_in_imagemagick_s_raw_profile_is_kept() -> None:
    digits = exif(6).tobytes().hex()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(digits) // 2:8}\n{digits}\n", zip=True)
    data = encoded(PHOTO, "PNG", pnginfo=texts)
    clean = without_metadata(data)
    assert decode(data, LIMIT).size == decode(clean, LIMIT).size == (32, 48) and b"Raw" not in clean


@pytest.mark.parametrize("name", GOOD)
def test_every_good_image_keeps_its_pixels(name: str) -> None:
    clean = without_metadata(GOOD[name])
    assert decode(clean, LIMIT).tobytes() == decode(GOOD[name], LIMIT).tobytes()
    assert without_metadata(clean) == clean


def test_damaged_images_give_bytes_or_an_image_error() -> None:
    for name, data in mutated(5, 1500):
        with suppress(ImageError):
            clean = without_metadata(data)
            assert len(clean) <= 2 * len(data) + 100, name


MAGIC = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(7), b"RIFF\x99\0\0\0WEBP", b"II*\0\x08\0\0\0", b"BM"]
MAGIC += [b"\0\0\0\x10ftypavif\0\0\0\0\0\0\0\x60meta", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"]


@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=300))
def test_any_bytes_give_bytes_or_an_image_error(magic: bytes, rest: bytes) -> None:
    with suppress(ImageError):
        without_metadata(magic + rest)


def test_bombs_give_few_bytes() -> None:
    for data in bombs().values():
        with suppress(ImageError):
            assert len(without_metadata(data)) <= len(data) + 100


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def structures_without_end() -> Iterator[bytes]:
    """Files that cost much time for each of their bytes, if nothing bounds it."""
    gif = b"GIF89a" + bytes(7)
    yield gif + b"\x21\xfe\x01a\0" * 600_000
    yield gif + b"\x21\xfe" + b"\x01a" * 2_000_000
    yield b"RIFF" + struct.pack("<I", 5_000_000) + b"WEBP" + (b"ANMF" + struct.pack("<I", 16) + bytes(16)) * 150_000
    yield b"\x89PNG\r\n\x1a\n" + png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(2**20))) * 5000
    yield b"\xff\xd8" + b"\xff\xe1\0\x08Exif\0\0" * 150_000
    avif, deep = box(b"ftyp", b"avif" + bytes(4)), b""
    yield avif + box(b"free", b"") * 150_000
    for _ in range(3000):
        deep = box(b"trak", deep)
    yield avif + box(b"moov", deep)
    # items with places of no length, and one item that is the whole file many times
    item = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"Exif\0")
    for sizes, entry, count in ((0, b"", 65_535), (0x44, struct.pack(">II", 0, 2**31), 20_000)):
        places = (
            bytes(4) + bytes([sizes, 0]) + struct.pack(">H", 9) + (struct.pack(">HHH", 1, 0, count) + entry * count) * 9
        )
        meta = bytes(4) + box(b"iinf", bytes(4) + struct.pack(">H", 1) + item) + box(b"iloc", places)
        yield avif + box(b"meta", meta)


def test_structures_without_end_end_soon() -> None:
    refused = 0
    for data in structures_without_end():
        start = time.process_time()
        try:
            assert len(without_metadata(data)) <= len(data)
        except ImageError as error:
            refused += 1
            assert error.kind in ("too_costly", "truncated")
        assert time.process_time() - start < 3
    assert refused == 7  # a million comments are read, and of the texts in a PNG one


def test_the_colours_of_an_adobe_jpeg_stay() -> None:
    data = encoded(PHOTO.convert("CMYK"), "JPEG", comment=MARK)
    at = data.index(b"Adobe")
    # the byte that says whether the pixels are CMYK or YCCK
    both = [data[: at + 11] + bytes([transform]) + data[at + 12 :] for transform in (0, 2)]
    decoded = [decode(one, LIMIT).tobytes() for one in both]
    assert decoded[0] != decoded[1]
    assert [decode(without_metadata(one), LIMIT).tobytes() for one in both] == decoded


@pytest.mark.parametrize("data", [b"", b"a text", b"\0\0\0\x18ftypisom" + bytes(50), b"RIFF1234WAVE"])
def test_what_is_no_image_is_told(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        without_metadata(data)
    assert caught.value.kind == "not_an_image"


# PNG


def test_a_png_with_much_text_is_decoded() -> None:
    """ComfyUI writes its whole graph into each picture."""
    data, plain = encoded(PHOTO, "PNG"), PHOTO.tobytes()
    graph = b"workflow\0" + b'{"nodes": []}' * 200_000
    for chunk in (
        png_chunk(b"tEXt", graph),
        png_chunk(b"zTXt", b"prompt\0\0" + zlib.compress(graph)),
        png_chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(graph)),
        png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2_500_000))),
        png_chunk(b"eXIf", bytes(2_500_000)),
    ):
        for large in (data[:33] + chunk + data[33:], data[:-12] + chunk + data[-12:]):
            assert decode(large, LIMIT).tobytes() == plain
            assert decode(without_metadata(large), LIMIT).tobytes() == plain


# exports


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_for_others_has_no_metadata(kind: str) -> None:
    data = marked(kind, 6 if kind in ("JPEG", "PNG", "WEBP", "AVIF") else None)
    jpeg, size = as_jpeg(data, LIMIT)
    assert not has_mark(jpeg) and size == decode(data, LIMIT).size
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.format == "JPEG" and not image.getexif() and "icc_profile" not in image.info


def test_an_upright_jpeg_keeps_its_pixels_and_on_request_its_bytes() -> None:
    plain = encoded(PHOTO, "JPEG", quality=80)
    data = encoded(PHOTO, "JPEG", quality=80, exif=exif(1), comment=MARK)
    assert as_jpeg(data, LIMIT)[0] == plain
    assert as_jpeg(data, LIMIT, keep_metadata=True)[0] == data
