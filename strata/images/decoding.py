"""Image bytes to pixels: RGB, EXIF-upright, first frame; what it costs is bounded before pixels are made.

A service decodes its callers' images in a pool of processes (`pool.py`); `decode` here is for a user's own data.
"""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile
from PIL.ImageCms import PyCMSError

from strata.images.boxes import family_of
from strata.images.colours import Colours, png_profile
from strata.images.formats import FORMATS, HEIF_MISSING, Header, ImageError, Kind, inspect, refuse_costly
from strata.images.jpeg_ends import missing_end, with_end
from strata.images.metadata import jpeg_pixels, png_pixels

FULL_SIZE = "full size"  # the key of `Image.info` with the width and height of an image that was shrunk
MISSING = "missing"  # the key of `Image.info` with a line on what is missing at the end of the file
MAX_JPEG_SIDE = 65_500  # pixels that libjpeg reads or writes (JPEG_MAX_DIMENSION)
QUALITY = 95  # JPEG quality of images that are converted from another format
BAND_PIXELS = 500_000  # that are converted at a time where an image is read in bands
_TOO_MUCH = "decoding takes more memory than its size allows"
# Pillow's debug log has the values of all EXIF tags
logging.getLogger("PIL").setLevel(logging.INFO)
# decoding needs no thread, and the sandbox allows none
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
with contextlib.suppress(ImportError):  # the extra `heif`
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
# the exceptions that Pillow's plugins raise for damaged files
_BROKEN: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, TypeError, AttributeError)
_BROKEN += (LookupError, EOFError, ArithmeticError, AssertionError, RuntimeError, struct.error, zlib.error)
_BROKEN += (PyCMSError,)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# how the pixels are turned for each EXIF orientation (Exif 2.3, tag 0x0112), as in Pillow's ImageOps.exif_transpose
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FROM_BELOW, _BY_COLUMNS, _FROM_RIGHT = (3, 4), (5, 6, 7, 8), (7, 8)


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame as RGB, upright by its EXIF orientation, in the colours of sRGB, transparency on white.

    data: a JPEG, PNG, WebP, GIF, TIFF, BMP or AVIF file, or HEIC with pillow-heif. max_pixels: largest width × height,
    checked on the header. If some of its last lines are missing, `info["missing"]` tells it. Raises ImageError.
    """
    frame = Frame(data, max_pixels)
    image = frame.rows(0, frame.height)
    # comments and the like are not passed on: Pillow would write them into other files
    image.info = {MISSING: frame.missing} if frame.missing else {}
    return image


def as_jpeg(data: bytes, max_pixels: int, keep_metadata: bool = False) -> tuple[bytes, tuple[int, int]]:
    """The image as a JPEG that is upright without EXIF, in the colours of sRGB, and its width and height.

    The pixels of a JPEG that is so already stay as they are, and are not decoded; only its metadata are removed. With
    keep_metadata its bytes stay. Raises ImageError, also for an image that is too wide or too high for a JPEG.
    """
    header, image = _checked(data, max_pixels), _open_small(data, max_pixels)
    width, height = image.size
    if max(width, height) > MAX_JPEG_SIDE:
        detail = f"{width} × {height}: a JPEG holds at most {MAX_JPEG_SIDE:,} pixels a side"
        raise ImageError("unsupported", detail)
    # keep the pixels as they are where possible: encoding again costs time and quality
    upright = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and _orientation(image) == 1
    if upright and header and header.ended and Colours.of(image.info.get("icc_profile"), image.mode) is None:
        return data if keep_metadata else jpeg_pixels(data), image.size
    decoded, buffer = decode(data, max_pixels), io.BytesIO()
    decoded.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue(), decoded.size


class Frame:
    """The decoded first frame of an image, whose rows can be read as RGB.

    Converting some rows at a time needs little memory beside the frame. data, max_pixels: as for `decode`; whole: of a
    JPEG whose header was checked before, and which has its end. width, height: of the upright image. missing: a line on
    what is missing at the end of the file, or an empty text. Raises ImageError, also in `rows`.
    """

    def __init__(self, data: bytes, max_pixels: int, whole: bool = False) -> None:
        header = None if whole else _checked(data, max_pixels)
        profile, self.missing = None, ""
        if header is not None and header.format == "PNG":
            # Pillow fails for large texts and profiles, which no pixel needs
            profile, data = png_profile(data), png_pixels(data)
        unended = header is not None and not header.ended
        self._image = _open_small(with_end(data) if unended else data, max_pixels)
        self._stated = self._image.size
        with self._explained():
            self._image.load()
            if header is not None and unended:
                self.missing = missing_end(self._image, data, header, _open)
            self._turn = _orientation(self._image)
            self._colours = Colours.of(profile or self._image.info.get("icc_profile"), self._image.mode)
            self._divisor = _divisor(self._image) if _is_deep(self._image) else None
        self.width, self.height = self._image.size[::-1] if self._turn in _BY_COLUMNS else self._image.size

    def rows(self, top: int, bottom: int) -> Image.Image:
        """The rows from top to before bottom, of the upright image as RGB."""
        with self._explained():
            box = self._box(top, bottom)
            part = self._image if box == (0, 0, *self._image.size) else self._image.crop(box)
            if self._turn != 1:
                part = part.transpose(_TURNS[self._turn])
            return _from_deep(part, self._divisor) if _is_deep(part) else _rgb(part, self._colours)

    def bands(self, multiple: int = 1) -> Iterator[Image.Image]:
        """All rows from top to bottom, some at a time: a multiple of `multiple` rows, except the last ones."""
        rows = max(BAND_PIXELS // max(self.width, 1) // multiple, 1) * multiple
        for top in range(0, self.height, rows):
            yield self.rows(top, min(top + rows, self.height))

    def _box(self, top: int, bottom: int) -> tuple[int, int, int, int]:
        """Where some rows of the upright image lie in the frame as it is stored."""
        width, height = self._image.size
        if self._turn in _BY_COLUMNS:
            left, right = (width - bottom, width - top) if self._turn in _FROM_RIGHT else (top, bottom)
            return left, 0, right, height
        return (0, height - bottom, width, height - top) if self._turn in _FROM_BELOW else (0, top, width, bottom)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise what Pillow raises for a damaged image as ImageError."""
        name, (width, height) = self._image.format, self._stated
        try:
            yield
        except _BOMB as error:
            raise ImageError("too_many_pixels", str(error)) from None
        except MemoryError:
            raise ImageError("too_costly", f"{name}, {width} × {height}: {_TOO_MUCH}") from None
        except ImageError:
            raise
        except _BROKEN as error:
            kind: Kind = "unsupported" if _is_unsupported(error) else "truncated"
            raise ImageError(kind, f"{name}, {width} × {height}: {error}") from None


def _checked(data: bytes, max_pixels: int) -> Header | None:
    """The header, if it can be read without Pillow. A small file can contain a huge image. Raises ImageError."""
    if not data:
        raise ImageError("empty", "there are no bytes")
    header = inspect(data)
    refuse_costly(header, max_pixels)
    return header


def _open_small(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header with Pillow, and check its size too."""
    try:
        image = _open(data)
    except MemoryError:
        raise ImageError("too_costly", f"the header: {_TOO_MUCH}") from None
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
    prefix, family = data[:16], family_of(data)
    for name in FORMATS if family is None else (family,):
        # the plugin's own check of the first bytes
        factory, accept = Image.OPEN.get(name, (None, None))
        if accept is None or factory is None or accept(prefix) is not True:
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
    if family == "HEIF":
        raise ImageError("unsupported", HEIF_MISSING)
    other = _other_format(data)
    if other:
        raise ImageError("unsupported", f"{other} is not supported; send JPEG, PNG, WebP, AVIF, GIF, TIFF or BMP")
    if data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        raise ImageError("not_an_image", "the file is an HTML page")
    raise ImageError("not_an_image", "the first bytes match no image format")


def _other_format(data: bytes) -> str | None:
    """The name of a known format that is not supported, or None."""
    head = data[:256].lstrip().lower()
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in data[:1024].lower()):
        return "SVG"
    # ISO base media files: bytes 8 to 12 are the brand, such as "heic" or "avif"
    if data[4:8] == b"ftyp":
        return f"{data[8:12].decode('ascii', 'replace').strip().upper()} (a video, or a picture in an unknown format)"
    strong = {b"%!PS": "EPS", b"8BPS": "PSD", b"\x00\x00\x01\x00": "ICO", b"\x00\x00\x00\x0cjP": "JPEG 2000"}
    strong |= {b"\xff\x4f\xff\x51": "JPEG 2000", b"qoif": "QOI", b"DDS ": "DDS", b"%PDF": "PDF"}
    return next((name for magic, name in strong.items() if data.startswith(magic)), None)


def _is_unsupported(error: Exception) -> bool:
    """Whether Pillow has no decoder for the file, as opposed to a truncated file."""
    if isinstance(error, PyCMSError):
        return True
    text = str(error).lower()
    return any(word in text for word in ("decoder", "unsupported", "not supported", "unknown")) and (
        "truncated" not in text and "broken data stream" not in text
    )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if it is missing. The pixels of an image with damaged EXIF are still usable."""
    with contextlib.suppress(*_BROKEN):
        found = image.getexif().get(ExifTags.Base.Orientation)
        return found if found in _TURNS else 1
    return 1


def _is_deep(image: Image.Image) -> bool:
    """Whether a pixel is one number of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def _rgb(image: Image.Image, colours: Colours | None) -> Image.Image:
    """Any mode of 8 bits as RGB."""
    # grey multiplied by its opacity: Pillow converts it only to grey with opacity
    if image.mode == "La":
        image = image.convert("LA")
    transparent = image.has_transparency_data
    if colours is not None:
        image = colours.apply(image.convert("RGBA") if transparent and image.mode != "LA" else image)
    if transparent:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    # `convert` would copy what is RGB already: a fifth of the time of decoding a photograph
    return Image.Image._new(image, image.im) if image.mode == "RGB" else image.convert("RGB")


def _divisor(image: Image.Image) -> float | None:
    """By what 16 and 32 bit grey is divided to get 8 bits: Pillow's `convert` would clip all values above 255.

    None for floats in 0..1, which are multiplied by 255.
    """
    step = max(BAND_PIXELS // max(image.width, 1), 1)
    parts = (image.crop((0, top, image.width, min(top + step, image.height))) for top in range(0, image.height, step))
    largest = max((float(_values(part).max(initial=0.0)) for part in parts), default=0.0)
    if image.mode == "F" and largest <= 1.0:
        return None
    # integers with more than 8 bits
    if image.mode.startswith("I;16") or largest > 255:
        return 257.0 if largest <= 65535 else largest / 255
    return 1.0


def _from_deep(image: Image.Image, divisor: float | None) -> Image.Image:
    values = _values(image)
    values = values * np.float32(255) if divisor is None else values / np.float32(divisor)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")


def _values(image: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The pixels as floats; not-a-number and infinity become 0."""
    return np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
