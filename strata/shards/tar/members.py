"""Parse the headers of one member of a tar: its own, and those before it that give its long name or its size.

Not by the standard library's `tarfile`: it takes time that grows with the square of a file's length for some headers
(CVE-2024-6232, and global pax headers, which it keeps and copies for each member), and fails on sizes of 2^63.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

BLOCK = 512
MAX_HEADERS = 16 * 2**10  # bytes of one member's headers
TYPE = 156  # where the header has its type
_NAME, _SIZE, _CHECKSUM, _PREFIX = slice(0, 100), slice(124, 136), slice(148, 156), slice(345, 500)
_SPARSE_MORE, _MAP_MORE = 482, 504  # of a sparse header, and of a block of its map: whether a block of the map follows
_OCTAL = re.compile(rb"[ \0]*([0-7]{0,22})(?:[ \0].*)?", re.DOTALL)
_LENGTH = re.compile(rb"(\d{1,10}) ")

# types of headers: a long name, pax headers, others that precede a member; files, a sparse file; those without content
# (links, devices, folders, pipes)
_LONG_NAME, _PAX, _BEFORE = b"L", (b"x", b"X"), (b"K", b"g")
_FILES, _SPARSE, _EMPTY, _FOLDER = (b"0", b"\0", b"7"), b"S", (b"1", b"2", b"3", b"4", b"5", b"6"), b"5"


class Member(NamedTuple):
    """One member: its name, the first byte and the size of its content, and where the next header is.

    plain: whether the bytes of the archive are the content of a file (not of a sparse file, a link or a device).
    """

    name: str
    offset: int
    size: int
    plain: bool
    folder: bool
    following: int


class _Told(NamedTuple):
    """What headers before a member's own tell about it; the first one counts."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False


def member_at(read: Callable[[int, int], bytes], offset: int) -> Member | None:
    """The member whose first header is at an offset; None if there is none, or if its headers are not valid.

    read: gives so many bytes at an offset, fewer at the end of the file.
    """
    told, at = _Told(), offset
    while at - offset < MAX_HEADERS:
        block = read(at, BLOCK)
        size = _number(block[_SIZE]) if is_header(block) else None
        if size is None:
            return None
        at, kind = at + BLOCK, block[TYPE : TYPE + 1]
        if kind != _LONG_NAME and kind not in _PAX + _BEFORE:
            return _member(read, told, block, size, at)
        # global pax headers and long names of links are passed over
        if at + size - offset > MAX_HEADERS:
            return None
        body = read(at, size)
        at += padded(size)
        if kind == _LONG_NAME:
            told = told._replace(name=told.name or _text(body))
        elif kind in _PAX:
            found = _pax(body)
            if found is None:
                return None
            size_told = found.size if told.size is None else told.size
            told = _Told(told.name or found.name, size_told, told.sparse or found.sparse)
    return None


def is_header(block: bytes) -> bool:
    """Whether a block's checksum is right: the sum of its bytes, with the checksum field as spaces.

    Some old programs have added signed bytes.
    """
    if len(block) != BLOCK:
        return False
    stated = _number(block[_CHECKSUM])
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    signed = total - 256 * sum(byte > 127 for byte in block) if stated != total else total
    return stated in (total, signed)


def padded(size: int) -> int:
    """A size with what fills its last block."""
    return size + -size % BLOCK


def _member(read: Callable[[int, int], bytes], told: _Told, block: bytes, size: int, at: int) -> Member | None:
    """The member with this header, after which the file goes on at `at`."""
    kind = block[TYPE : TYPE + 1]
    name, prefix = _text(block[_NAME]), _text(block[_PREFIX])
    name = told.name or (f"{prefix}/{name}" if prefix and kind != _SPARSE else name)
    # old programs mark a folder by a slash only
    folder = kind == _FOLDER or (kind == b"\0" and name.endswith("/"))
    # the map of a sparse file
    more, begin = kind == _SPARSE and bool(block[_SPARSE_MORE]), at
    while more:
        block = read(at, BLOCK)
        if len(block) < BLOCK or at - begin > MAX_HEADERS:
            return None
        more, at = bool(block[_MAP_MORE]), at + BLOCK
    size = size if told.size is None else told.size
    content = 0 if folder or kind in _EMPTY else padded(size)
    plain = kind in _FILES and not folder and not told.sparse
    return Member(name, at, size, plain, folder, at + content)


def _number(field: bytes) -> int | None:
    """A number in octal digits or, after a byte 0x80, in binary ones; None if it is neither, or negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    octal = _OCTAL.fullmatch(field)
    return int(octal[1] or b"0", 8) if octal else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _pax(body: bytes) -> _Told | None:
    """What a pax header tells: records `LENGTH KEY=VALUE` that end with a line break. None if one is not valid."""
    values: dict[bytes, bytes] = {}
    at = 0
    while match := _LENGTH.match(body, at):
        end = at + int(match[1])
        key, equals, value = body[match.end() : end - 1].partition(b"=")
        # also a length that does not reach the end of its own digits: it would never end
        if not match.end() < end <= len(body) or not equals:
            return None
        values[key], at = value, end
    sparse = any(key.startswith(b"GNU.sparse.") for key in values)
    name = values.get(b"GNU.sparse.name", values.get(b"path", b"")).decode("utf-8", "replace").rstrip("/")
    size = values.get(b"size", b"")
    # an exabyte has 19 digits
    if b"size" in values and not (size.isdigit() and len(size) < 30):
        return None
    return _Told(name or None, int(size) if size else None, sparse)
