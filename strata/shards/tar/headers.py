"""Read the headers of a tar in one forward pass.

Headers of plain files are parsed here, many at once with numpy; `members.py` parses all other kinds. If the chain of
headers is broken, the next valid header is searched for, so that only the damaged members are lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

import numpy as np

from strata.shards.tar.members import BLOCK, is_header, member_at


class Window:
    """A buffer over a file that is read once, forward, in large pieces. `data` begins at byte `start` of the file.

    size: the file's size in bytes, if it is known. A file that ends earlier was cut by its storage: OSError is raised.
    """

    PIECE = 2 * 2**20
    LOOKBACK = 256 * 2**10  # bytes kept before the current offset, so that a search for headers can begin there

    def __init__(self, file: IO[bytes], size: int = 0) -> None:
        self.start, self.data = 0, b""
        self._file, self._size = file, size

    def reach(self, offset: int, size: int) -> int:
        """Read on until `data` has bytes offset..offset+size or the file ends; return the index of offset in `data`."""
        index = offset - self.start
        while index + size > len(self.data):
            # skip the content of a large member instead of reading through it
            if index > len(self.data) + self.PIECE:
                self._file.seek(offset)
                self.start, self.data, index = offset, b"", 0
            piece = self._file.read(self.PIECE)
            if not piece:
                if self.start + len(self.data) < self._size:
                    raise OSError(f"the answer of the storage ends before byte {self._size:,} of the shard")
                break
            # drop what lies before the lookback, append the new piece
            dropped = max(0, min(index, len(self.data)) - self.LOOKBACK)
            self.data = self.data[dropped:] + piece
            self.start += dropped
            index -= dropped
        return index

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes offset..offset+size, fewer if the file ends before. offset must be at least `start`."""
        index = offset - self.start
        if index + size > len(self.data):
            index = self.reach(offset, size)
        return self.data[index : index + size]


MAX_SCAN = 64 * 2**20  # bytes searched for the next header
SHORTEST_RUN, LONGEST_RUN = 8, 8192  # headers that are parsed at once
MAX_TRIES = 2000  # candidates for a header that are checked in one file; limits the time for a malicious file

_NAME, _SIZE, _SIZE_END, _CHECKSUM = slice(0, 100), slice(124, 135), 135, slice(148, 156)
_TYPE, _MAGIC, _PREFIX = 156, 257, slice(345, 500)
_FILE, _PAX = ord("0"), ord("x")
_POWERS = 8 ** np.arange(5, -1, -1)  # of the six octal digits of a checksum
# img2dataset writes times as floats, so that each of its members has a pax header which holds only times
_TIMES_ONLY = re.compile(rb"(?:\d+ [acm]time=[-\d.]+\n)+")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


class Header(NamedTuple):
    """One member. If it is plain (no link, not sparse), its content is bytes offset..offset+size of the file."""

    name: str
    offset: int
    size: int
    plain: bool = True


class Headers:
    """Iterates over the members of a tar of `size` bytes, without its folders.

    After the iteration: `ending` is the reason why the tar has no proper end (None if it has one), `begun` whether any
    header was found, and `gaps` lists the damaged ranges that were skipped, as (first byte, byte after the last).
    """

    def __init__(self, window: Window, size: int) -> None:
        self._window, self._size = window, size
        self.ending: str | None = None
        self.begun = False
        self._tries, self._run = 0, LONGEST_RUN
        self.gaps: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[Header]:
        if self._size == 0:
            self.ending = "an empty file"
            return
        offset: int | None = 0
        search_from = 0  # where a search for the next header begins: after all headers that were read
        while offset is not None:
            # parse a run of plain files from the buffer
            headers, following = self._plain(offset)
            # the header at offset is of another kind
            if following == offset:
                headers, following = self._other(offset)
            # no header at offset: search for the next one, or end
            if following <= offset:
                offset = self._resume(offset, search_from)
                search_from = (offset or 0) + 1
                continue
            self.begun = True
            search_from = headers[-1].offset if headers else offset + BLOCK
            yield from headers
            offset = following

    def _plain(self, offset: int) -> tuple[list[Header], int]:
        """Parse consecutive headers of plain files from `offset` on; return them and the offset of the next header.

        That offset is `offset` itself if the header there is of another kind.
        """
        if offset + BLOCK > self._size:
            return [], offset
        index = self._window.reach(offset, BLOCK)
        headers, end, sound = _plain_headers(self._window.data, index, self._window.start, self._run)
        # where headers are refused again and again, few are parsed at once: the others would be parsed many times
        if sound is not None:
            self._run = min(2 * self._run, LONGEST_RUN) if sound else SHORTEST_RUN
        return headers, self._window.start + end

    def _other(self, offset: int) -> tuple[list[Header], int]:
        """Parse a header of any kind at `offset`; return its member (none for a folder) and the next header's offset.

        That offset is 0 if there is no valid header at `offset`.
        """
        member = member_at(self._window.read, offset) if offset + BLOCK <= self._size else None
        if member is None:
            return [], 0
        # whatever a header claims, a size that ends after the file does is as good as any other
        size = min(member.size, self._size + 1)
        return [] if member.folder else [Header(member.name, member.offset, size, member.plain)], member.following

    def _resume(self, broken: int, search_from: int) -> int | None:
        """The offset of the next header after `broken`, where none was found; None at the end of the tar.

        Sets `ending` and adds to `gaps`.
        """
        # classify the bytes at `broken`: the end of the file, the end mark (zeros), or something else
        cut = broken + BLOCK > self._size
        block = self._window.read(broken, 2 * BLOCK) if broken < self._size else b""
        zeros = not cut and not any(block[:BLOCK])
        if not self.begun and block.startswith(_COMPRESSED):
            self.ending = "a compressed tar: unpack it to a plain .tar, images are read by their offsets"
            return None
        # the last member's content may be incomplete, so that the next header is inside its stated range
        found = self._search(broken if zeros else search_from, broken)
        if found is None:
            # one block of zeros is a proper end, as for others
            if any(block) or not zeros or self._tries > MAX_TRIES:
                self.ending = "not a tar" if not self.begun else "truncated" if cut else "damaged"
            return None
        # record the gap, joined to the one before if they touch
        first = broken if found > broken else search_from
        if self.gaps and self.gaps[-1][1] == first:
            first = self.gaps.pop()[0]
        self.gaps.append((first, found))
        return found

    def _search(self, start: int, broken: int) -> int | None:
        """The offset of the first valid header at or after `start`, on any byte: damage need not be whole blocks.

        Looks for the magic text "ustar", at most MAX_SCAN bytes far, and checks each candidate's checksum.
        """
        offset = max(start, self._window.start)
        end = min(offset + MAX_SCAN, self._size)
        while offset + BLOCK <= end and self._tries <= MAX_TRIES:
            index = self._window.reach(offset, BLOCK)
            # the next magic text in the buffer
            magic = self._window.data.find(b"ustar", index + _MAGIC)
            if magic >= 0:
                self._tries += 1
                candidate = self._window.start + magic - _MAGIC
                if candidate != broken and is_header(self._window.read(candidate, BLOCK)):
                    return candidate
                offset = candidate + 1
                continue
            # not in this buffer: continue with the next piece; the magic text may lie across both
            searched = self._window.start + len(self._window.data) - _MAGIC - len(b"usta")
            if searched <= offset:  # the file is shorter than its stated size
                return None
            offset = searched
        return None


def _plain_headers(data: bytes, index: int, start: int, most: int) -> tuple[list[Header], int, bool | None]:
    """Parse the headers of plain files in data[index:], up to the first of another kind, at most so many of them.

    Returns also the index of the header after them, and whether all headers that were tried were right, None if none
    was tried. data begins at byte `start` of the file.
    """
    # follow the chain of sizes, then check all headers' checksums at once
    indexes, sizes = _chain(data, index, most)
    if not indexes:
        return [], index, None
    end = indexes[-1] + BLOCK + sizes[-1] + -sizes[-1] % BLOCK
    starts = np.array(indexes)
    blocks = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), BLOCK)[starts]
    sound = _sums_up(blocks)
    count = len(indexes) if sound.all() else int(sound.argmin())
    # a pax header at the end belongs to the header after it, which was not accepted
    if count and blocks[count - 1, _TYPE] == _PAX:
        count -= 1
    kinds, names = blocks[:count, _TYPE].tolist(), _names(blocks[:count])
    members = zip(names, indexes, sizes, kinds, strict=False)
    headers = [Header(name, start + at + BLOCK, size) for name, at, size, kind in members if kind == _FILE]
    return headers, indexes[count] if count < len(indexes) else end, bool(sound.all())


def _chain(data: bytes, index: int, most: int) -> tuple[list[int], list[int]]:
    """Indexes and sizes of consecutive headers, at most so many, of plain files and of pax headers with times only.

    Checksums are not checked yet.
    """
    indexes: list[int] = []
    sizes: list[int] = []
    while index + BLOCK <= len(data) and len(indexes) < most:
        kind, digits = data[index + _TYPE], data[index + _SIZE.start : index + _SIZE.stop]
        if (kind != _FILE and kind != _PAX) or not digits.isdigit():
            break
        try:
            size = int(digits, 8)
        except ValueError:
            break
        # a pax header with other fields can change the name and size of the next member
        begin = index + BLOCK
        if kind == _PAX and not _TIMES_ONLY.fullmatch(data, begin, begin + size):
            break
        indexes.append(index)
        sizes.append(size)
        index = begin + size + -size % BLOCK
    return indexes, sizes


def _sums_up(blocks: np.typing.NDArray[np.uint8]) -> np.typing.NDArray[np.bool_]:
    """Whether each header's checksum is right: the sum of its bytes, with the checksum field as spaces.

    blocks: (N, 512). Returns (N,).
    """
    field = blocks[:, _CHECKSUM].astype(np.int64)
    digits = field[:, :6] - ord("0")
    # the field is six octal digits, followed by a zero byte or a space
    octal = ((digits & ~7) == 0).all(axis=1) & np.isin(blocks[:, _SIZE_END], (0, ord(" ")))
    total = blocks.sum(axis=1, dtype=np.uint32) - field.sum(axis=1) + 8 * ord(" ")
    return cast("np.typing.NDArray[np.bool_]", octal & (digits @ _POWERS == total))


def _names(blocks: np.typing.NDArray[np.uint8]) -> list[str]:
    """The members' names, with the prefix field before them. blocks: (N, 512)."""
    names = _texts(blocks[:, _NAME])
    if not blocks[:, _PREFIX.start].any():
        return names
    folders = _texts(blocks[:, _PREFIX])
    return [f"{folder}/{name}" if folder else name for folder, name in zip(folders, names, strict=True)]


def _texts(fields: np.typing.NDArray[np.uint8]) -> list[str]:
    """Decode fields as UTF-8 up to their first zero byte. fields: (N, length)."""
    texts = np.ascontiguousarray(fields).view(f"S{fields.shape[1]}").ravel().tolist()
    together = b"\n".join(texts)
    if together.isascii() and b"\0" not in together and together.count(b"\n") == len(texts) - 1:
        return together.decode().split("\n")  # one call for all: a third of the time
    return [text.partition(b"\0")[0].decode("utf-8", "replace") for text in texts]
