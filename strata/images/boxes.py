"""AVIF and HEIC: files of boxes (ISO/IEC 14496-12); pixels and metadata are items of one box (ISO/IEC 23008-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_BOXES = 100_000  # that are walked; a real file has less than a thousand
_TOP = (b"ftyp", b"meta", b"mdat", b"moov")
_META = (b"hdlr", b"pitm", b"iinf", b"iloc", b"iref", b"iprp", b"idat", b"dinf", b"grpl", b"ipro")
_MOVIE = (b"udta", b"uuid", b"meta", b"free", b"skip")  # of a sequence's boxes, what says nothing of its pixels
_TEXTS = (b"udes", b"altt", b"crtt", b"mdft", b"uuid")  # properties that are texts or times
_CODED = (
    b"av01",
    b"hvc1",
    b"hev1",
    b"lhv1",
    b"vvc1",
    b"avc1",
    b"jpeg",
    b"j2k1",
    b"unci",
    b"grid",
    b"iovl",
    b"iden",
    b"tmap",
)
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
BOXES = b"ftyp"  # the name of the first box, at byte 4
_BRANDS = {"AVIF": {b"avif", b"avis"}, "HEIF": {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}}


def family_of(data: bytes) -> str | None:
    """AVIF or HEIF, by the brands in the first box; None for another file, such as a video."""
    if data[4:8] != BOXES:
        return None
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return next((family for family, names in _BRANDS.items() if brands & names), None)


class Box(NamedTuple):
    """A box: its name, and where in the file its header begins and its content begins and ends.

    The header has 8 bytes, or 16 with a size of 64 bits.
    """

    name: bytes
    header: int
    start: int
    end: int


def boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[Box]:
    """The boxes between two places of a file.

    Raises IndexError for a box without end, and struct.error.
    """
    for _ in range(MAX_BOXES):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = end if size == 0 else min(start + size, end)
        if stop < body:
            raise IndexError("a box ends before it begins")
        yield Box(name, start, body, stop)
        start = stop
    raise IndexError(f"more than {MAX_BOXES:,} boxes")


def largest_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the largest picture in a file: no tile, thumbnail or frame is larger. None if it has none."""
    sizes: list[tuple[int, int]] = []
    for name, _, start, end in boxes(data, 0, len(data)):
        if name == b"meta":
            properties = _inside(data, start + 4, end, b"iprp", b"ipco", b"ispe")
            sizes += [struct.unpack_from(">II", data, place + 4) for place in properties]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _inside(data: bytes, start: int, end: int, name: bytes, *more: bytes) -> Iterator[int]:
    """Where the content of the boxes of a path begins."""
    for found, _, body, stop in boxes(data, start, end):
        if found == name:
            if more:
                yield from _inside(data, body, stop, *more)
            else:
                yield body


def without_metadata_boxes(data: bytes) -> bytes:
    """The same file, in which everything that is no picture is overwritten with zeros: no place changes."""
    copy = bytearray(data)
    for box in boxes(data, 0, len(data)):
        if box.name not in _TOP:
            _blank(copy, box)
        elif box.name == b"meta":
            _clean_meta(copy, box.start + 4, box.end)
        elif box.name == b"moov":
            _clean_movie(copy, box.start, box.end)
    return bytes(copy)


def _blank(copy: bytearray, box: Box) -> None:
    """Make a box one of free space."""
    copy[box.header + 4 : box.header + 8] = b"free"  # the name; the size stays
    copy[box.start : box.end] = bytes(box.end - box.start)


def _clean_movie(copy: bytearray, start: int, end: int, depth: int = 0) -> None:
    if depth > len(_CONTAINERS):
        raise IndexError("boxes within boxes without end")
    for box in boxes(copy, start, end):
        if box.name in _MOVIE:
            _blank(copy, box)
        elif box.name in _CONTAINERS:
            _clean_movie(copy, box.start, box.end, depth + 1)


def _clean_meta(copy: bytearray, start: int, end: int) -> None:
    """Remove the items that are no pictures, the names of all items, and the properties that are texts."""
    found = {box.name: (box.start, box.end) for box in boxes(copy, start, end)}
    gone = _clean_items(copy, *found[b"iinf"]) if b"iinf" in found else set()
    if gone and b"iloc" in found:
        idat = found.get(b"idat", (0, 0))[0]
        left = 2 * len(copy)  # items of a real file do not share their bytes
        for at, length in _places(copy, found[b"iloc"][0], idat, gone):
            stop = min(at + length, len(copy))
            left -= max(stop - at, 0)
            if left < 0:
                raise IndexError("items that share their bytes")
            copy[at:stop] = bytes(max(stop - at, 0))
    for box in boxes(copy, start, end):
        if box.name not in _META:
            _blank(copy, box)
        elif box.name == b"hdlr":
            copy[box.start + 24 : box.end] = bytes(max(box.end - box.start - 24, 0))
        elif box.name == b"iprp":
            for inner in boxes(copy, box.start, box.end):
                for one in boxes(copy, inner.start, inner.end) if inner.name == b"ipco" else ():
                    if one.name in _TEXTS:
                        _blank(copy, one)


def _clean_items(copy: bytearray, start: int, end: int) -> set[int]:
    """The numbers of the items that are no pictures. Their kinds and the names of all items are overwritten."""
    gone = set()
    for name, _, body, stop in boxes(copy, start + (6 if copy[start] == 0 else 8), end):
        version = copy[body]
        if name != b"infe" or version < 2:
            continue
        wide = version > 2
        number = struct.unpack_from(">I" if wide else ">H", copy, body + 4)[0]
        kind = body + (10 if wide else 8)
        if kind + 4 > stop:
            raise IndexError("an item is cut off")
        if copy[kind : kind + 4] not in _CODED:
            gone.add(number)
            copy[kind : kind + 4] = b"skip"
        copy[kind + 4 : stop] = bytes(max(stop - kind - 4, 0))
    return gone


def _places(data: bytearray, start: int, idat: int, wanted: set[int]) -> Iterator[tuple[int, int]]:
    """Where the bytes of some items lie, and how many they are (the box `iloc`)."""
    version, sizes, more = data[start], data[start + 4], data[start + 5]
    widths = (sizes >> 4, sizes & 15, more >> 4, more & 15 if version in (1, 2) else 0)
    at = start + 6

    def number(width: int) -> int:
        nonlocal at
        if at + width > len(data):
            raise IndexError("an item's place is cut off")
        at += width
        return int.from_bytes(data[at - width : at], "big")

    extents = 0
    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version in (1, 2) else 0
        number(2)  # which file
        base = number(widths[2])
        extents += (count := number(2))
        if extents > MAX_BOXES:
            raise IndexError(f"more than {MAX_BOXES:,} places")
        for _ in range(count):
            number(widths[3])
            offset, length = number(widths[0]), number(widths[1])
            if item in wanted and method in (0, 1):
                yield base + offset + (idat if method == 1 else 0), length or len(data)
