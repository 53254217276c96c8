"""The headers of a tar in one forward pass: plain ones are read here, all others by the standard library.

Where the chain of headers breaks, the next header is searched for: damage costs no more than what it hit.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray


class Window:
    """What was read last of a file that is read once, forward, in large pieces; `data` begins at byte `start`."""

    PIECE = 2 * 2**20
    HINDSIGHT = 256 * 2**10  # bytes kept before the place that is read, to look for headers after a break

    def __init__(self, file: IO[bytes]) -> None:
        self.start, self.data = 0, b""
        self._file = file

    def reach(self, offset: int, size: int) -> int:
        """Read on until bytes offset..offset+size are at hand or the file ends; returns offset's place in data."""
        place = offset - self.start
        while place + size > len(self.data):
            if place > len(self.data) + self.PIECE:  # behind a large member
                self._file.seek(offset)
                self.start, self.data, place = offset, b"", 0
            piece = self._file.read(self.PIECE)
            if not piece:
                break
            dropped = max(0, min(place, len(self.data)) - self.HINDSIGHT)
            self.data = self.data[dropped:] + piece
            self.start += dropped
            place -= dropped
        return place

    def read(self, offset: int, size: int) -> bytes:
        """Bytes offset..offset+size, fewer where the file ends. offset must not lie before `start`."""
        place = offset - self.start
        if place + size > len(self.data):
            place = self.reach(offset, size)
        return self.data[place : place + size]


BLOCK = tarfile.BLOCKSIZE
MAX_SCAN = 64 * 2**20  # bytes searched for the next header
MAX_TRIES = 2000  # places looked at for a header to go on with; then the rest is given up: no file may cost hours
_MAX_HEADERS = 16 * 2**10  # bytes of one member's headers
_DIGITS = re.compile(rb"\d{256}")  # more than any name has; tarfile's time grows with their square (CVE-2024-6232)

_NAME, _SIZE, _SIZE_END, _CHECKSUM = slice(0, 100), slice(124, 135), 135, slice(148, 156)
_TYPE, _MAGIC, _PREFIX = 156, 257, slice(345, 500)
_FILE, _PAX = ord("0"), ord("x")
_POWERS = 8 ** np.arange(5, -1, -1)  # of the six octal digits of a checksum
# img2dataset's writer gives times as floats, and so each member a pax header that tells nothing else
_TIMES_ONLY = re.compile(rb"(?:\d+ [acm]time=[-\d.]+\n)+")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_REFUSED = (tarfile.TarError, ValueError, OverflowError, IndexError, RecursionError)


class Header(NamedTuple):
    """One member: its bytes are offset..offset+size of the file if it is plain (no link, not sparse)."""

    name: str
    offset: int
    size: int
    plain: bool = True


class _WindowFile:
    """The window as the file object that tarfile reads one member's headers from, and no more than is usual."""

    def __init__(self, window: Window) -> None:
        self._window, self._offset, self._left = window, 0, 0

    def begin(self, offset: int) -> None:
        """Go to a member's first header."""
        self._offset, self._left = offset, _MAX_HEADERS

    def tell(self) -> int:
        return self._offset

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise tarfile.ReadError("the headers of one member are too long")
        data = self._window.read(self._offset, size)
        if _DIGITS.search(data):
            raise tarfile.ReadError("no header has so many digits")
        self._offset += len(data)
        return data


class Headers:
    """Iterates over the members of a tar of `size` bytes; folders are passed over.

    Afterwards: ending says why the tar did not end as a tar ends, if so; begun whether any header was found;
    gaps are the places that were passed over, as (first byte, byte behind the last).
    """

    def __init__(self, window: Window, size: int) -> None:
        self._window, self._size = window, size
        self._file = _WindowFile(window)
        self._tar = tarfile.TarFile(fileobj=io.BytesIO(bytes(2 * BLOCK)), encoding="utf-8", errors="replace")
        self._tar.fileobj = cast(Any, self._file)
        self.ending: str | None = None
        self.begun = False
        self._tries = 0
        self.gaps: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[Header]:
        if self._size == 0:
            self.ending = "an empty file"
            return
        offset: int | None = 0
        search_from = 0  # where the next header may stand if not at offset: behind all that were read
        while offset is not None:
            headers, following = self._plain(offset)
            if following == offset:
                headers, following = self._by_tarfile(offset)
            if following <= offset:
                offset = self._resume(offset, search_from)
                search_from = (offset or 0) + 1
                continue
            self.begun = True
            search_from = headers[-1].offset if headers else offset + BLOCK
            yield from headers
            offset = following

    def _plain(self, offset: int) -> tuple[list[Header], int]:
        """Plain files whose headers stand from `offset` on in the window, and where the header behind them stands.

        The latter is `offset` itself if the library must look there.
        """
        if offset + BLOCK > self._size or self._tar.pax_headers:  # "global" ones tell of every member behind them
            return [], offset
        place = self._window.reach(offset, BLOCK)
        headers, behind = _plain_headers(self._window.data, place, self._window.start)
        return headers, self._window.start + behind

    def _by_tarfile(self, offset: int) -> tuple[list[Header], int]:
        """The member whose header, of any kind, stands at offset (none: a folder), and where the next one stands.

        The latter is 0 if there is no header here.
        """
        if offset + BLOCK > self._size:
            return [], 0
        self._file.begin(offset)
        try:
            info = tarfile.TarInfo.fromtarfile(self._tar)
        except _REFUSED:
            return [], 0
        if info.size < 0 or info.offset_data < offset:
            return [], 0
        header = Header(info.name, info.offset_data, info.size, info.isreg() and not info.issparse())
        return [] if info.isdir() else [header], self._tar.offset

    def _resume(self, broken: int, search_from: int) -> int | None:
        """Where the headers go on, there being none at `broken`; None at the end of the tar, or of hope."""
        cut = broken + BLOCK > self._size
        block = self._window.read(broken, 2 * BLOCK) if broken < self._size else b""
        zeros = not cut and not any(block[:BLOCK])
        if not self.begun and block.startswith(_COMPRESSED):
            self.ending = "a compressed tar: unpack it to a plain .tar, images are read by their offsets"
            return None
        # a member's bytes may lack a piece, and the next header then stands inside of where they should lie
        found = self._search(broken if zeros else search_from, broken)
        if found is None:
            # one block of zeros is an end, as for tarfile
            if any(block) or not zeros or self._tries > MAX_TRIES:
                self.ending = "not a tar" if not self.begun else "truncated" if cut else "damaged"
            return None
        first = broken if found > broken else search_from
        if self.gaps and self.gaps[-1][1] == first:
            first = self.gaps.pop()[0]
        self.gaps.append((first, found))
        return found

    def _search(self, start: int, broken: int) -> int | None:
        """The first valid header at `start` or behind, on any byte: what was lost need not be whole blocks."""
        offset = max(start, self._window.start)
        end = min(offset + MAX_SCAN, self._size)
        while offset + BLOCK <= end and self._tries <= MAX_TRIES:
            place = self._window.reach(offset, BLOCK)
            magic = self._window.data.find(b"ustar", place + _MAGIC)
            if magic >= 0:
                self._tries += 1
                candidate = self._window.start + magic - _MAGIC
                if candidate != broken and _is_header(self._window.read(candidate, BLOCK)):
                    return candidate
                offset = candidate + 1
                continue
            behind = self._window.start + len(self._window.data) - _MAGIC - len(b"usta")
            if behind <= offset:  # the file is shorter than it was said to be
                return None
            offset = behind
        return None


def _plain_headers(data: bytes, place: int, start: int) -> tuple[list[Header], int]:
    """Headers of plain files from data[place:] on, up to the first of another kind; and that one's place.

    data begins at byte `start` of the file.
    """
    places, sizes = _chain(data, place)
    if not places:
        return [], place
    behind = places[-1] + BLOCK + sizes[-1] + -sizes[-1] % BLOCK
    starts = np.array(places)
    blocks = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), BLOCK)[starts]
    sound = _sums_up(blocks)
    count = len(places) if sound.all() else int(sound.argmin())
    if count and blocks[count - 1, _TYPE] == _PAX:  # belongs to the header behind it
        count -= 1
    kinds, names = blocks[:count, _TYPE].tolist(), _names(blocks[:count])
    members = zip(names, places, sizes, kinds, strict=False)
    headers = [Header(name, start + at + BLOCK, size) for name, at, size, kind in members if kind == _FILE]
    return headers, places[count] if count < len(places) else behind


def _chain(data: bytes, place: int) -> tuple[list[int], list[int]]:
    """Places and sizes of consecutive plain files' headers, and of pax headers that tell but times; not yet checked."""
    places, sizes = [], []
    while place + BLOCK <= len(data):
        kind, digits = data[place + _TYPE], data[place + _SIZE.start : place + _SIZE.stop]
        if (kind != _FILE and kind != _PAX) or not digits.isdigit():
            break
        try:
            size = int(digits, 8)
        except ValueError:
            break
        begin = place + BLOCK
        if kind == _PAX and not _TIMES_ONLY.fullmatch(data, begin, begin + size):
            break
        places.append(place)
        sizes.append(size)
        place = begin + size + -size % BLOCK
    return places, sizes


def _sums_up(blocks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether the bytes of each header, its checksum counted as spaces, add up to its checksum. blocks: N × 512."""
    field = blocks[:, _CHECKSUM].astype(np.int64)
    digits = field[:, :6] - ord("0")
    octal = ((digits & ~7) == 0).all(axis=1) & np.isin(blocks[:, _SIZE_END], (0, ord(" ")))
    total = blocks.sum(axis=1, dtype=np.uint32) - field.sum(axis=1) + 8 * ord(" ")
    return cast("NDArray[np.bool_]", octal & (digits @ _POWERS == total))


def _names(blocks: NDArray[np.uint8]) -> list[str]:
    """The members' names. blocks: N × 512."""
    names = _texts(blocks[:, _NAME])
    if not blocks[:, _PREFIX.start].any():
        return names
    folders = _texts(blocks[:, _PREFIX])
    return [f"{folder}/{name}" if folder else name for folder, name in zip(folders, names, strict=True)]


def _texts(fields: NDArray[np.uint8]) -> list[str]:
    """Fields up to their first zero byte, as UTF-8. fields: N × length."""
    texts = np.ascontiguousarray(fields).view(f"S{fields.shape[1]}").ravel().tolist()
    together = b"\n".join(texts)
    if together.isascii() and b"\0" not in together and together.count(b"\n") == len(texts) - 1:
        return together.decode().split("\n")  # at once: a third of the time
    return [text.partition(b"\0")[0].decode("utf-8", "replace") for text in texts]


def _is_header(block: bytes) -> bool:
    return len(block) == BLOCK and bool(_sums_up(np.frombuffer(block, np.uint8).reshape(1, BLOCK))[0])
