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

from bench.hostile.images import bombs, encoded, good_images, mutated, png_chunk, wide_profile
from strata.images import ImageError, as_jpeg, decode, without_metadata
from tests.images.marks import KINDS, MARK, PHOTO, exif, has_mark, marked, segment, xmp

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
        start = time.thread_time()
        try:
            assert len(without_metadata(data)) <= len(data)
        except ImageError as error:
            refused += 1
            assert error.kind in ("too_costly", "truncated")
        assert time.thread_time() - start < 10  # of the thread: about 1 s, and more if the cores are shared
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


# parts with the name of one that is kept, and other content


def between(data: bytes, place: int, more: bytes) -> bytes:
    return data[:place] + more + data[place:]


HIDDEN = MARK.encode()


@pytest.mark.parametrize("code", [0x02, 0x4F, 0xC8, 0xDC, 0xDE, 0xDF, 0xE0, 0xE2, 0xEE, 0xF0, 0xF7, 0xFD])
@pytest.mark.parametrize("start", [b"", b"JFIF\0", b"Adobe", b"ICC_PROFILE\0\1\1", b"Adobe" + bytes(7)])
def test_segments_of_a_jpeg_that_no_pixel_needs_are_removed(code: int, start: bytes) -> None:
    data = encoded(PHOTO, "JPEG", progressive=True)
    assert without_metadata(data) == data
    clean = without_metadata(between(data, 20, segment(code, start + HIDDEN)))
    assert not has_mark(clean) and decode(clean, LIMIT).size == PHOTO.size
    # of an Adobe segment the fixed fields stay, which decide what the colours are
    adobe = segment(code, (start + HIDDEN)[:12]) if code == 0xEE and start.startswith(b"Adobe") else b""
    assert clean == between(data, 20, adobe)
    # between the scans, where most programs stop reading segments
    scan = data.rindex(b"\xff\xda")
    assert without_metadata(between(data, scan, segment(code, start + HIDDEN))) == data


def test_a_profile_of_a_jpeg_stays_if_it_is_one() -> None:
    profile = wide_profile()
    data = encoded(PHOTO, "JPEG", icc_profile=profile)
    assert without_metadata(data) == data
    for bad in (profile[:36] + b"text" + profile[40:], profile[:36], HIDDEN * 9):
        clean = without_metadata(encoded(PHOTO, "JPEG", icc_profile=bad))
        assert clean == encoded(PHOTO, "JPEG")
    # in pieces, in another order, and without one of them
    first, second = (b"ICC_PROFILE\0" + bytes([n, 2]) + piece for n, piece in ((1, profile[:50]), (2, profile[50:])))
    plain = encoded(PHOTO, "JPEG")
    swapped = between(plain, 20, segment(0xE2, second) + segment(0xE2, first))
    assert without_metadata(swapped) == swapped
    assert without_metadata(between(plain, 20, segment(0xE2, first))) == plain


def test_a_webp_s_profile_stays_if_it_is_one() -> None:
    data = encoded(PHOTO, "WEBP", icc_profile=wide_profile())
    assert without_metadata(data) == data
    clean = without_metadata(encoded(PHOTO, "WEBP", icc_profile=HIDDEN * 9))
    assert not has_mark(clean) and decode(clean, LIMIT).size == PHOTO.size and not clean[20] & 0x20


ONCE = [b"pHYs", b"bKGD", b"tRNS", b"cHRM", b"gAMA", b"sRGB", b"sBIT", b"cICP", b"acTL", b"fcTL", b"fdAT", b"PLTE"]


@pytest.mark.parametrize("name", [*ONCE, b"IDAT", b"iCCP"])
def test_chunks_of_a_png_with_other_content_are_removed(name: bytes) -> None:
    data = encoded(PHOTO, "PNG")
    assert without_metadata(data) == data
    body = HIDDEN * 10
    if name == b"iCCP":
        body = b"icc\0\0" + zlib.compress(body)
    place = len(data) - 12 if name == b"IDAT" else 33
    gap = png_chunk(b"tEXt", b"a\0b") if name == b"IDAT" else b""
    assert without_metadata(between(data, place, gap + png_chunk(name, body))) == data


def test_a_png_has_each_chunk_once_and_nothing_in_its_end() -> None:
    data = encoded(PHOTO, "PNG")
    size = png_chunk(b"pHYs", struct.pack(">IIB", 3000, 3000, 1))
    once = between(data, 33, size)
    assert without_metadata(once) == once == without_metadata(between(data, 33, size * 5))
    assert without_metadata(data[:-12] + png_chunk(b"IEND", HIDDEN)) == data
