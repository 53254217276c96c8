"""A TIFF's first picture as a new file: its pixels as they are, and only the tags that decoding needs (TIFF 6.0)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from strata.images.formats import MAX_TAGS, MAX_TILES, TIFF_CODES, TIFF_SIZES, ImageError

# width to planar configuration without texts, resolution, transfer function, predictor to tile sizes, ink set, extra
# samples and formats, JPEG tables, YCbCr, reference black and white, the colour profile, LERC's parameters
_KEPT = {256, 257, 258, 259, 262, 266, 274, 277, 278, 282, 283, 284, 290, 291, 292, 293, 296, 301, 317, 318, 319, 320}
_KEPT |= {322, 323, 332, 334, 338, 339, 340, 341, 342, 347, 529, 530, 531, 532, 34675, 50674}
_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES = 273, 279, 324, 325
_OLD_JPEG, _OLD_JPEG_TAGS = 6, {512, 513, 514, 515, 517, 518, 519, 520, 521}
_ASCII = 2


class _Entry(NamedTuple):
    """A tag's kind, how many values it has, and their bytes."""

    kind: int
    number: int
    values: bytes


def tiff_copy(data: bytes) -> bytes:
    """A TIFF of the first picture. Raises ImageError for what cannot be copied, struct.error and IndexError."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43 or data[2:4] == b"+\0"
    tags = _entries(data, order, big)
    if 259 in tags and _numbers(tags[259], order)[:1] == [_OLD_JPEG]:
        raise ImageError(
            "unsupported", "TIFF: the metadata of a file with old-style JPEG compression cannot be removed"
        )
    at, sizes = (_TILES, _TILE_SIZES) if _TILES in tags else (_STRIPS, _STRIP_SIZES)
    if at not in tags:
        raise ImageError("truncated", "TIFF: there are no pixels")
    offsets = _numbers(tags[at], order)
    # a file with one uncompressed strip may leave out its length
    lengths = _numbers(tags[sizes], order) if sizes in tags else [len(data) - offsets[0]] if len(offsets) == 1 else []
    if len(offsets) > MAX_TILES or len(lengths) < len(offsets):
        raise ImageError("truncated", "TIFF: some pixels have no length")
    if sum(lengths[: len(offsets)]) > len(data):
        raise ImageError("too_costly", "TIFF: strips that share their bytes")
    pieces = [data[start : start + length] for start, length in zip(offsets, lengths, strict=False)]
    kept = {tag: entry for tag, entry in tags.items() if tag in _KEPT and entry.kind != _ASCII}
    return _written(kept, at, sizes, pieces, order)


def _entries(data: bytes, order: str, big: bool) -> dict[int, _Entry]:
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if count > MAX_TAGS:
        raise ImageError("too_costly", f"TIFF: a directory of {count:,} tags; at most {MAX_TAGS:,} are read")
    size, first, place = (20, start + 8, "Q") if big else (12, start + 2, "I")
    room = struct.calcsize(place)
    tags: dict[int, _Entry] = {}
    for at in range(first, first + count * size, size):
        tag, kind, values = struct.unpack_from(order + "HH" + place, data, at)
        length, body = values * TIFF_SIZES.get(kind, 1), at + size - room
        if length > room:
            (body,) = struct.unpack_from(order + place, data, body)
        wanted = tag in _KEPT or tag in (_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES)
        if wanted and body + length <= len(data):
            tags.setdefault(tag, _Entry(kind, values, data[body : body + length]))
    return tags


def _numbers(entry: _Entry, order: str) -> list[int]:
    code = TIFF_CODES.get(entry.kind, "")
    return list(struct.unpack(f"{order}{entry.number}{code}", entry.values)) if code else []


def _written(tags: dict[int, _Entry], at: int, sizes: int, pieces: list[bytes], order: str) -> bytes:
    """The file: header, pixels, values, directory."""
    content, offsets = bytearray(8), []
    for piece in pieces:
        offsets.append(len(content))
        content += piece + bytes(len(piece) % 2)
    entries = {tag: entry for tag, entry in tags.items() if entry.kind not in (13, 16, 17, 18)}
    for tag, numbers in ((at, offsets), (sizes, [len(piece) for piece in pieces])):
        entries[tag] = _Entry(4, len(numbers), struct.pack(f"{order}{len(numbers)}I", *numbers))
    lines = b""
    for tag, entry in sorted(entries.items()):
        values = entry.values.ljust(4, b"\0")
        if len(values) > 4:
            values = struct.pack(order + "I", len(content))
            content += entry.values + bytes(len(entry.values) % 2)
        lines += struct.pack(order + "HHI", tag, entry.kind, entry.number) + values
    content[:8] = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, len(content))
    return bytes(content) + struct.pack(order + "H", len(entries)) + lines + bytes(4)
