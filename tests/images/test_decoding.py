"""Decoding: hostile and unusual images give pixels or an ImageError with a stable kind, nothing else."""

from __future__ import annotations

import contextlib
import io
import random
import resource
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from strata.images import ImageError, as_jpeg, decode
from strata.images.formats import FORMATS

LIMIT = 100_000_000


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int = 40, height: int = 30) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8))


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header states a huge size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def kind_of(data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, limit)
    assert "\n" not in caught.value.detail
    return caught.value.kind


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind: str) -> None:
    image = decode(encode(picture(), kind), LIMIT)
    assert (image.mode, image.size) == ("RGB", (40, 30))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"hello, I am a text file called .jpg\n" * 20, "not_an_image"),
        (b"BMW is a car maker and this is a text about it", "not_an_image"),
        (b"\x00" * 500, "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        (b"\x00\x00\x00\x18ftypisom" + b"\0" * 50, "unsupported"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "unsupported"),
        (b"\xff\xd8\xff\xe0", "truncated"),
    ],
)
def test_no_image(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_truncated(kind: str) -> None:
    data = encode(picture(200, 200), kind)
    assert kind_of(data[: len(data) // 2]) == "truncated"


def test_bomb_is_refused_at_once_and_without_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.thread_time()
    assert kind_of(bomb(30_000, 30_000)) == "too_many_pixels"
    assert time.thread_time() - start < 0.2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_limit_is_ours_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert kind_of(encode(picture(), "PNG"), limit=1199) == "too_many_pixels"
    assert decode(encode(picture(), "PNG"), 1200).size == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_webp_canvas_bomb() -> None:
    canvas = (16382).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert kind_of(b"RIFF" + struct.pack("<I", len(body)) + body) in ("too_many_pixels", "truncated")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_upright(kind: str, orientation: int) -> None:
    """A red corner at the top left comes out where an image viewer shows it."""
    upright = Image.new("RGB", (64, 32), "blue")
    upright.paste("red", (0, 0, 16, 16))
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    source = upright.transpose(stored) if stored is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encode(source, kind, exif=exif), LIMIT)
    assert image.size == (64, 32)
    pixels = np.asarray(image).astype(int)
    assert pixels[6, 6, 0] > 200 and pixels[6, 6, 2] < 60
    assert pixels[26, 58, 2] > 200


def test_broken_exif_turns_nothing() -> None:
    data = encode(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03\0\0")
    assert decode(data, LIMIT).size == (40, 30)


def test_modes() -> None:
    assert decode(encode(picture().convert("CMYK"), "JPEG"), LIMIT).mode == "RGB"
    assert decode(encode(Image.new("1", (9, 9), 1), "PNG"), LIMIT).getpixel((3, 3)) == (255, 255, 255)
    assert decode(encode(Image.new("RGB", (1, 1), "red"), "PNG"), LIMIT).getpixel((0, 0)) == (255, 0, 0)
    assert decode(encode(Image.new("LA", (5, 5), (10, 0)), "PNG"), LIMIT).getpixel((0, 0)) == (255, 255, 255)
    clear = Image.new("RGBA", (5, 5), (0, 0, 0, 0))
    assert decode(encode(clear, "WEBP"), LIMIT).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_pixels_are_without_their_file(kind: str) -> None:
    image = decode(encode(picture(), kind), LIMIT)
    assert type(image) is Image.Image and image.format is None and image.info == {}
    assert image.copy().tobytes() == Image.open(io.BytesIO(encode(picture(), kind))).convert("RGB").tobytes()


def test_sixteen_bits_are_scaled_not_cut() -> None:
    ramp = Image.fromarray(np.linspace(0, 65535, 64 * 4).astype(np.uint16).reshape(4, 64))
    for kind in ("PNG", "TIFF"):
        values = np.asarray(decode(encode(ramp, kind), LIMIT))[..., 0].ravel().astype(int)
        assert values[0] == 0 and values[-1] == 255 and abs(values[128] - 128) <= 1
    floats = Image.fromarray(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4))
    assert decode(encode(floats, "TIFF"), LIMIT).getpixel((3, 3)) == (255, 255, 255)


def test_palette_with_transparency_is_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((4, 4), 1)
    decoded = decode(encode(image, "PNG", transparency=0), LIMIT)
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options), LIMIT)
    assert image.getpixel((8, 8)) == (255, 0, 0)


@pytest.mark.filterwarnings("ignore")
def test_fuzz() -> None:
    """Broken bytes give an image or an ImageError: no other exception."""
    rng = random.Random(0)
    sources = [encode(picture(), kind) for kind in FORMATS]
    sources.append(encode(picture(), "TIFF", compression="tiff_lzw"))
    for _ in range(1500):
        data = bytearray(rng.choice(sources))
        for _ in range(rng.randint(1, 12)):
            data[rng.randrange(min(len(data), 300))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        with contextlib.suppress(ImageError):
            assert decode(bytes(data), 1_000_000).mode == "RGB"


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_does_no_harm() -> None:
    """The pixels come out, turned or not, and `as_jpeg` finds the same size without decoding them."""
    rng = random.Random(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8769] = 6, "x" * 30, {0x9003: "2020"}
    whole, sizes = exif.tobytes(), set()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randint(0, 6)):
            damaged[rng.randrange(6, len(damaged))] = rng.randrange(256)
        data = encode(picture(), "JPEG", exif=bytes(damaged))
        size = decode(data, LIMIT).size
        assert as_jpeg(data, LIMIT)[1] == size
        sizes.add(size)
    assert sizes == {(40, 30), (30, 40)}


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(picture(), "HEIF")
    monkeypatch.delitem(Image.OPEN, "HEIF")
    with pytest.raises(ImageError, match=r"install strata\[heif\]") as caught:
        decode(data, LIMIT)
    assert caught.value.kind == "unsupported"
