"""Image bytes to pixels: RGB, EXIF-upright, first frame; pixels are counted before they are decoded."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from strata.errors import DataError

Kind = Literal["empty", "not_an_image", "truncated", "too_many_pixels", "unsupported"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
QUALITY = 95  # JPEG quality of images that are converted from another format
# the exceptions that Pillow's plugins raise for damaged files
_BROKEN: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, TypeError, AttributeError)
_BROKEN += (LookupError, EOFError, ArithmeticError, AssertionError, RuntimeError, struct.error, zlib.error)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class ImageError(DataError, ValueError):
    """The bytes cannot be decoded. `kind` is part of the API and stable; `detail` is one line that may change."""

    def __init__(self, kind: Kind, detail: str) -> None:
        line = " ".join(detail.split())[:200]
        super().__init__(f"{kind}: {line}")
        self.kind: Kind = kind
        self.detail = line


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame as RGB, upright by its EXIF orientation, transparency on white.

    data: a JPEG, PNG, WebP, GIF, TIFF or BMP file. max_pixels: largest width × height, checked on the header.
    Raises ImageError.
    """
    image = _open_small(data, max_pixels)
    width, height = image.size
    try:
        image.load()
        # the pixels of an image with damaged EXIF are still usable
        with contextlib.suppress(*_BROKEN):
            ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image)
    except _BOMB as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except MemoryError:
        raise ImageError("too_many_pixels", f"{width} × {height} pixels do not fit into memory") from None
    except _BROKEN as error:
        kind: Kind = "unsupported" if _is_unsupported(error) else "truncated"
        raise ImageError(kind, f"{image.format}, {width} × {height}: {error}") from None


def size_of(data: bytes, max_pixels: int) -> tuple[int, int]:
    """The width and height in the header, of an image that `decode` may decode. Raises ImageError as it does."""
    return _open_small(data, max_pixels).size


def as_jpeg(data: bytes, max_pixels: int) -> tuple[bytes, tuple[int, int]]:
    """The image as a JPEG that is upright without EXIF, and its width and height.

    A JPEG that is upright already is returned as it is; its pixels are not decoded. Raises ImageError.
    """
    image = _open(data)
    # keep the original bytes where possible: encoding again costs time and quality
    if image.format == "JPEG" and image.mode in ("RGB", "L") and _is_upright(image):
        return data, image.size
    upright, buffer = decode(data, max_pixels), io.BytesIO()
    upright.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue(), upright.size


def _open_small(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header, and check the size in it before decoding: a small file can contain a huge image."""
    if not data:
        raise ImageError("empty", "there are no bytes")
    image = _open(data)
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError("too_many_pixels", f"{width} × {height} pixels; at most {max_pixels:,} are allowed")
    return image


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header with the plugin that accepts the magic bytes.

    `Image.open` is not used for two reasons: its check against decompression bombs depends on a global variable of
    Pillow, and it tries plugins such as EPS, which start other programs.
    """
    Image.init()
    prefix = data[:16]
    for name in FORMATS:
        # the plugin's own check of the first bytes
        factory, accept = Image.OPEN[name]
        if accept is None or accept(prefix) is not True:
            continue
        try:
            image: ImageFile.ImageFile = factory(io.BytesIO(data), "")
        except _BOMB as error:
            raise ImageError("too_many_pixels", str(error)) from None
        except _BROKEN as error:
            kind: Kind = "not_an_image" if name == "BMP" else "truncated"  # text may also begin with "BM"
            raise ImageError(kind, f"the {name} header is cut off or damaged: {error}") from None
        return image
    # name the format if it is a known one that is not supported
    other = _other_format(data)
    if other:
        raise ImageError("unsupported", f"{other} is not supported; send JPEG, PNG, WebP, GIF, TIFF or BMP")
    raise ImageError("not_an_image", "the first bytes match no image format")


def _other_format(data: bytes) -> str | None:
    """The name of a known format that is not supported, or None."""
    head = data[:256].lstrip().lower()
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in data[:1024].lower()):
        return "SVG"
    # ISO base media files: bytes 8 to 12 are the brand, such as "heic" or "avif"
    if data[4:8] == b"ftyp":
        return f"{data[8:12].decode('ascii', 'replace').strip().upper()} (HEIF, AVIF or a video)"
    strong = {b"%!PS": "EPS", b"8BPS": "PSD", b"\x00\x00\x01\x00": "ICO", b"\x00\x00\x00\x0cjP": "JPEG 2000"}
    strong |= {b"\xff\x4f\xff\x51": "JPEG 2000", b"qoif": "QOI", b"DDS ": "DDS", b"%PDF": "PDF"}
    return next((name for magic, name in strong.items() if data.startswith(magic)), None)


def _is_unsupported(error: Exception) -> bool:
    """Whether Pillow has no decoder for the file, as opposed to a truncated file."""
    text = str(error).lower()
    return any(word in text for word in ("decoder", "unsupported", "not supported", "unknown")) and (
        "truncated" not in text and "broken data stream" not in text
    )


def _is_upright(image: Image.Image) -> bool:
    """Whether `exif_transpose` would leave the image as it is; reads the header only."""
    with contextlib.suppress(*_BROKEN):
        return image.getexif().get(ExifTags.Base.Orientation) not in range(2, 9)
    return True


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB, 8 bits."""
    if image.mode.startswith(("I", "F")):
        return _from_deep(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """16 and 32 bit grey scaled to 8 bits: Pillow's `convert` would clip all values above 255 to white."""
    # not-a-number and infinity become 0
    values = np.asarray(image).astype(np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    # floats in 0..1, or integers with more than 8 bits
    if image.mode == "F" and top <= 1.0:
        values = values * np.float32(255)
    elif image.mode.startswith("I;16") or top > 255:
        values = values / np.float32(257 if top <= 65535 else top / 255)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
