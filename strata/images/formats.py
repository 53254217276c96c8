"""What decoding an image would cost, from its header alone: no pixel is made, and no code of Pillow runs.

Each format of the allow-list has a reader here, which walks the file's structure with bounds. `inspect` gives the size
and the memory that the decoder will need; `refuse_costly` raises ImageError for what exceeds the bounds. Where a header
cannot be read here, `inspect` gives None, and Pillow's own error is the answer.

The figures of memory are those of Pillow 13 (libjpeg-turbo 3, libwebp 1.6, libtiff 4.7), measured and rounded up. They
need not be exact: `sandbox.py` enforces them, whatever a header claims.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

from strata.errors import DataError
from strata.images.boxes import BOXES, family_of, largest_size

Kind = Literal["empty", "not_an_image", "truncated", "too_many_pixels", "unsupported", "too_costly", "decoder_crashed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")
HEIF_MISSING = "HEIC and HEIF need the package pillow-heif: install strata[heif], or convert the image to JPEG"

MIB = 2**20
MEMORY = 448 * MIB  # bytes that decoding one image may take; an image of 100 million RGB pixels takes 382 MiB
SPARE_MEMORY = 48 * MIB  # of a decoder, beside the pixels: tables, buffers of rows, metadata
# a scan of a progressive JPEG visits all blocks, however few bytes it has; encoders write 3 to 18
FEW_SCANS, MAX_SCANS, SCAN_PIXELS = 24, 100, 2_000_000_000
MAX_MARKERS = 10_000  # of a JPEG, each read in Python
MAX_TILES = 100_000  # of a TIFF: Pillow takes 6 to 10 µs for each. Some programs write each row as a strip
MAX_TAGS = 4096  # of a TIFF's directory; real ones have less than 100
CPU_SECONDS, CPU_PER_PIXEL, CPU_PER_BYTE = 3.0, 1.5e-7, 1e-7  # several times what the slowest format takes


class ImageError(DataError, ValueError):
    """The bytes cannot be decoded. `kind` is part of the API and stable; `detail` is one line that may change."""

    def __init__(self, kind: Kind, detail: str) -> None:
        line = " ".join(detail.split())[:200]
        super().__init__(f"{kind}: {line}")
        self.kind: Kind = kind
        self.detail = line


@dataclass(frozen=True)
class Header:
    """What a file says of its first frame. memory: bytes that decoding takes at its peak, without those of the file.

    scans: of a JPEG, each of which visits all pixels. tiles: tiles or strips of a TIFF. ended: False for a JPEG without
    its end marker. whole: whether the scans of such a JPEG begin with all that its pixels need.
    """

    format: str
    width: int
    height: int
    memory: int
    scans: int = 1
    tiles: int = 0
    ended: bool = True
    whole: bool = True

    @property
    def pixels(self) -> int:
        """Width × height."""
        return self.width * self.height


def inspect(data: bytes) -> Header | None:
    """The header of an image file; None if it cannot be read here. Raises ImageError for a structure that has no end
    in sight.
    """
    for magic, reader in _READERS.items():
        if data.startswith(magic, 4 if magic == BOXES else 0):
            try:
                return reader(data)
            except (struct.error, IndexError, OverflowError):  # the file ends too early
                return None
    return None


def pixels_of(data: bytes) -> int:
    """Width × height in the header of an image file; 0 if it cannot be read here."""
    if not data.startswith(b"\xff\xd8\xff"):
        with suppress(ImageError):
            header = inspect(data)
            return 0 if header is None else header.pixels
        return 0
    # a JPEG's scans need not be counted
    with suppress(ImageError, struct.error, IndexError):
        for code, body in _segments(data):
            if code in JPEG_FRAMES:
                height, width = struct.unpack_from(">HH", body, 1)
                return int(width * height)
    return 0


def memory_limit(max_pixels: int) -> int:
    """Bytes that decoding one image may take, for an operator's limit of pixels."""
    return max(MEMORY, 4 * max_pixels + SPARE_MEMORY)


def memory_of(header: Header | None, size: int, max_pixels: int) -> int:
    """Bytes that decoding a file of `size` bytes may take; all that are allowed if its header cannot be read here."""
    if header is None:
        return memory_limit(max_pixels)
    return header.memory + SPARE_MEMORY + 3 * size


def seconds_of(header: Header | None, size: int, max_pixels: int) -> float:
    """Seconds of processor time that decoding may take."""
    pixels = max_pixels if header is None else header.pixels
    return CPU_SECONDS + CPU_PER_PIXEL * pixels + CPU_PER_BYTE * size


def refuse_costly(header: Header | None, max_pixels: int) -> None:
    """Raise ImageError if an image of this header exceeds a bound."""
    if header is None:
        return
    if header.pixels > max_pixels:
        detail = f"{header.width} × {header.height} pixels; at most {max_pixels:,} are allowed"
        raise ImageError("too_many_pixels", detail)
    if header.scans > MAX_SCANS or (header.scans > FEW_SCANS and header.scans * header.pixels > SCAN_PIXELS):
        detail = f"{header.scans} scans of {header.width} × {header.height} pixels"
        raise ImageError("too_costly", f"{detail}; at most {FEW_SCANS} to {MAX_SCANS} are decoded, by the size")
    if header.tiles > MAX_TILES:
        raise ImageError("too_costly", f"{header.tiles:,} tiles or strips; at most {MAX_TILES:,} are decoded")
    needed, limit = header.memory + SPARE_MEMORY, memory_limit(max_pixels)
    if needed > limit:
        detail = f"{header.format}, {header.width} × {header.height}: decoding takes {needed // MIB:,} MiB of memory"
        raise ImageError("too_costly", f"{detail}; at most {limit // MIB:,} MiB are allowed")


# JPEG

JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a stuffed byte nor a restart marker
JPEG_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
JPEG_SCAN, JPEG_END, JPEG_START = 0xDA, 0xD9, 0xD8


def _jpeg(data: bytes) -> Header | None:
    frame: bytes | None = None
    scans, ended = list[bytes](), False
    for code, body in _segments(data):
        if code in JPEG_FRAMES and frame is None:
            frame = body
        elif code == JPEG_SCAN:
            scans.append(body)
        ended = ended or code == JPEG_END
    if frame is None:
        return None
    _, height, width, components = struct.unpack_from(">BHHB", frame)
    sampling = [divmod(frame[7 + 3 * number], 16) for number in range(components)]
    memory = 4 * width * height
    # several scans: all coefficients are kept, 2 bytes each, of blocks that fill the largest unit
    if len(scans) != 1 or scans[0][0] < components:
        across, down = (max((pair[axis] for pair in sampling), default=1) for axis in (0, 1))
        units = -(-width // (8 * across or 8)) * -(-height // (8 * down or 8))
        memory += units * sum(h * v for h, v in sampling) * 64 * 2
    # the pixels of a JPEG without end are made twice, to see which are missing
    memory *= 1 if ended else 2
    whole = ended or _all_sent(scans, components)
    return Header("JPEG", width, height, memory, scans=len(scans), ended=ended, whole=whole)


_UNSENT = b"\xff" * 64  # of a component, of which no scan was seen
_SENT = bytes(64)


def _all_sent(scans: Sequence[bytes], components: int) -> bool:
    """Whether scans, by their headers, send all coefficients of so many components (ITU-T T.81, section G.1.1.1)."""
    missing: dict[int, bytearray] = {}  # bits of each coefficient that are still to be sent, by component
    for scan in scans:
        count = scan[0]
        first, end, bits = scan[1 + 2 * count], min(scan[2 + 2 * count], 63) + 1, scan[3 + 2 * count]
        sent = bytes((bits & 15,)) * (end - first)
        for component in scan[1 : 1 + 2 * count : 2]:
            missing.setdefault(component, bytearray(_UNSENT))[first:end] = sent
    return len(missing) >= components and all(one == _SENT for one in missing.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The code and the content of each marker segment with the end of the image; a scan's content is its header."""
    position, markers = 2, 0
    while found := JPEG_MARKER.search(data, position):
        code, position = data[found.end() - 1], found.end()
        markers += 1
        if code == JPEG_END:
            yield code, b""
            return
        if markers > MAX_MARKERS:
            raise ImageError("too_costly", f"JPEG: more than {MAX_MARKERS:,} segments")
        if code in (0x01, JPEG_START):  # without content
            continue
        (length,) = struct.unpack_from(">H", data, position)
        yield code, data[position + 2 : position + length]
        position += max(length, 2)


# PNG

_PNG_BYTES = {0: 1, 2: 4, 3: 1, 4: 4, 6: 4}  # bytes of a pixel in Pillow's memory, by the colour type


def _png(data: bytes) -> Header | None:
    if data[12:16] != b"IHDR":
        return None
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    size = _PNG_BYTES.get(colour, 4) * (2 if (depth, colour) == (16, 0) else 1)
    return Header("PNG", width, height, width * height * size)


# WebP

_WEBP_BYTES = 17  # of a pixel: the canvas and the frame before it, the frame's own pixels, their copies as bytes


def _webp(data: bytes) -> Header | None:
    if data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        return None
    return Header("WEBP", width, height, width * height * _WEBP_BYTES)


# GIF and BMP


def _gif(data: bytes) -> Header | None:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("GIF", width, height, width * height * 4)


_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes


def _bmp(data: bytes) -> Header | None:
    (size,) = struct.unpack_from("<I", data, 14)
    if size not in _BMP_HEADERS:  # a text may begin with "BM"
        return None
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    # run lengths, which Pillow decodes in Python
    packed = size > 12 and struct.unpack_from("<I", data, 30)[0] in (1, 2)
    return Header("BMP", abs(width), abs(height), abs(width * height) * (8 if packed else 4))


# TIFF

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _ORIENTATION, _SAMPLES, _ROWS = 256, 257, 258, 259, 273, 274, 277, 278
_TILE_WIDTH, _TILE_HEIGHT, _TILES = 322, 323, 324
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
TIFF_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True)
class _Tag:
    """One tag of a directory: how many values it has, and the largest of the first ones."""

    count: int
    value: int


def _tiff(data: bytes) -> Header | None:
    tags = _directory(data)
    if _WIDTH not in tags or _HEIGHT not in tags:
        return None

    def value(tag: int, default: int) -> int:
        return tags[tag].value if tag in tags else default

    width, height = value(_WIDTH, 0), value(_HEIGHT, 0)
    bits = value(_BITS, 1) * min(max(value(_SAMPLES, 1), tags[_BITS].count if _BITS in tags else 1), 8)
    turned = value(_ORIENTATION, 1) in range(2, 9)  # Pillow turns the pixels while it loads them
    memory = (8 if turned else 4) * width * height
    # a strip or a tile is decoded as a whole, unless it is stored as it is
    if value(_COMPRESSION, 1) != 1:
        rows = min(value(_ROWS, height), height)
        across, down = (value(_TILE_WIDTH, width), value(_TILE_HEIGHT, rows)) if _TILES in tags else (width, rows)
        memory += across * down * max(4, bits // 8)
    pieces = max((tags[tag].count for tag in (_STRIPS, _TILES) if tag in tags), default=0)
    if value(_ORIENTATION, 1) in (5, 6, 7, 8):
        width, height = height, width
    return Header("TIFF", width, height, memory, tiles=pieces)


def orientation_of(exif: bytes) -> int | None:
    """The orientation in EXIF, which has the form of a TIFF; None if it tells none. Raises as `_directory`."""
    tags = _directory(exif)
    return tags[_ORIENTATION].value if _ORIENTATION in tags else None


def _directory(data: bytes) -> dict[int, _Tag]:
    """The tags of the first directory. Raises ImageError if they claim more bytes than a directory needs."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    entry, first, place = (20, start + 8, "Q") if big else (12, start + 2, "I")
    if count > MAX_TAGS:
        raise ImageError("too_costly", f"TIFF: a directory of {count:,} tags; at most {MAX_TAGS:,} are read")
    tags: dict[int, _Tag] = {}
    claimed = 0
    for at in range(first, min(first + count * entry, len(data) - entry + 1), entry):
        tag, kind, values = struct.unpack_from(order + "HH" + place, data, at)
        length, body = values * TIFF_SIZES.get(kind, 1), at + entry - struct.calcsize(place)
        # values that do not fit into the tag lie elsewhere
        if length > struct.calcsize(place):
            (body,) = struct.unpack_from(order + place, data, body)
            claimed += length
        few = min(values, 4)
        if kind in TIFF_CODES and few and body + few * TIFF_SIZES[kind] <= len(data):
            tags[tag] = _Tag(values, max(struct.unpack_from(f"{order}{few}{TIFF_CODES[kind]}", data, body)))
    # each tag's bytes are copied, and tags may share them
    if claimed > 2 * len(data) + MIB:
        raise ImageError("too_costly", f"TIFF: tags of {claimed:,} bytes in a file of {len(data):,}")
    return tags


# AVIF and HEIC

_BOXES_BYTES = 16  # of a pixel: the planes of 8 to 12 bits, the frame before, and the pixels as RGBA, twice


def _boxes(data: bytes) -> Header | None:
    family, size = family_of(data), largest_size(data)
    return Header(family, *size, size[0] * size[1] * _BOXES_BYTES) if family and size else None


TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*")
_READERS: dict[bytes, Callable[[bytes], Header | None]] = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"RIFF": _webp,
    b"GIF8": _gif,
    b"BM": _bmp,
    BOXES: _boxes,
    **dict.fromkeys(TIFF_MAGIC, _tiff),
}
