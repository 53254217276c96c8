"""The bytes of a bundle: a Parquet file with a row group for each part, in whose footer is what each part's footer has.

So the footer of a bundle is an index of its parts: their counts are read with one read, and a part's rows, or some
columns of them, with another one. The checksums are those of `part_format.py`, for each row group.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from strata.store.part_format import (
    CHECKSUMS,
    DIGITS,
    MARK,
    Footer,
    RowGroup,
    Source,
    checked_footer,
    entries_of,
    footer_of,
    guarded,
    sealed,
    spans,
)
from strata.store.part_paths import Bundle, Part

BUNDLE = b"strata.bundle"
OPEN_BUNDLES = 32  # whose footers are kept: readers go from part to part
KNOWN_FOLDERS = 1000  # with bundles, of which it is kept which parts they have


def encode_bundle(parts: Sequence[tuple[Part, pa.Table, Footer]]) -> tuple[Bundle, bytes]:
    """Parts of one shard and of one schema, ascending by number, as a bundle and its bytes."""
    told = [
        {"part": [*part, table.num_rows], **{key.decode(): value.decode() for key, value in footer.entries().items()}}
        for part, table, footer in parts
    ]
    data = sealed([table for _, table, _ in parts], {BUNDLE: json.dumps(told).encode()}, "snappy")
    # of its bytes: a bundle with other rows has another name
    digest = hashlib.sha256(data).hexdigest()[:16]
    held = tuple((part.number, part.attempt) for part, _, _ in parts)
    return Bundle(*parts[0][0][:3], held, digest), data


class OpenBundle:
    """A bundle whose footer was read. footer: its bytes, with the right checksum. Raises BrokenPart of `source`."""

    def __init__(self, bundle: Bundle, tail: bytes, source: Source) -> None:
        def read() -> None:
            self._footer = checked_footer(memoryview(tail), source)
            if MARK not in self._footer:
                raise source.broken("it has no checksums")
            entries = entries_of(self._footer, (BUNDLE, CHECKSUMS))
            self._sums = entries[CHECKSUMS][len(MARK) + DIGITS :]
            told = json.loads(entries[BUNDLE])
            self.rows = {Part(*one["part"][:-1]): one["part"][-1] for one in told}
            texts = ({key.encode(): text.encode() for key, text in one.items() if key != "part"} for one in told)
            self._footers = dict(zip(self.rows, map(footer_of, texts), strict=True))
            if list(self.rows) != bundle.parts:
                raise source.broken("it is another bundle")

        guarded(source, read)

    def footer(self, source: Source) -> Footer:
        """What the footer of a part has. Raises BrokenPart."""
        rows, expected = self.rows[source.part], sum(self._footers[source.part].counts.values())
        if rows != expected or source.images not in (None, rows):
            raise source.broken(f"it has {rows} rows instead of {expected if rows != expected else source.images}")
        return self._footers[source.part]

    @functools.cached_property
    def _metadata(self) -> pq.FileMetaData:
        return pq.read_metadata(pa.BufferReader(self._footer))

    @property
    def footer_bytes(self) -> int:
        """How many bytes the file has after its rows."""
        return len(self._footer)

    def span(self, source: Source) -> tuple[int, int | None]:
        """The bytes of the file that are a part's; None: to where the footer begins. Raises BrokenPart."""
        found = guarded(source, lambda: spans(self._metadata, -1))[self._number(source)]
        return found[0], None if found[1] < 0 else found[1]

    def _number(self, source: Source) -> int:
        return list(self.rows).index(source.part)

    def table(self, source: Source, body: Any, begin: int, columns: Sequence[str] | None) -> pa.Table:
        """A part's rows, or some columns. body: the bytes of its span, which begins there. Raises BrokenPart."""

        def read() -> pa.Table:
            number = self._number(source)
            size = len(self._sums) // len(self.rows)
            sums = self._sums[number * size : (number + 1) * size]
            RowGroup(self._metadata, number, begin).check(memoryview(body), sums, columns, source)
            file = pq.ParquetFile(_Window(memoryview(body), begin), metadata=self._metadata)
            return file.read_row_group(number, None if columns is None else list(columns), use_threads=False)

        return guarded(source, read)


class _Window(io.RawIOBase):
    """A file of which only the bytes from `begin` on are there."""

    def __init__(self, view: memoryview, begin: int) -> None:
        super().__init__()
        self._view, self._begin, self._at = view, begin, begin

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        ends = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._begin + len(self._view)}
        self._at = ends[whence] + offset
        return self._at

    def readinto(self, into: Any) -> int:
        start = self._at - self._begin
        found = self._view[start : start + len(into)] if start >= 0 else self._view[:0]
        into[: len(found)] = found
        self._at += len(found)
        return len(found)


class OpenBundles:
    """What this process knows of bundles: which folders have some, and the footers of those that it has read lately.

    It only saves reads: a bundle that is gone is not found where it was. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._folders: OrderedDict[str, dict[Part, Bundle]] = OrderedDict()
        self._open: OrderedDict[str, OpenBundle] = OrderedDict()
        self._reading: dict[str, threading.Lock] = {}  # by path
        self._guard = threading.Lock()

    def __reduce__(self) -> tuple[type[OpenBundles], tuple[()]]:
        return OpenBundles, ()  # another process reads for itself

    def know(self, folder: str, bundles: Sequence[Bundle]) -> None:
        """Remember the bundles of a shard's folder, as `Part.folder` names it."""
        with self._guard:
            self._folders.pop(folder, None)
            if bundles:
                self._folders[folder] = {part: bundle for bundle in bundles for part in bundle.parts}
            while len(self._folders) > KNOWN_FOLDERS:
                self._folders.popitem(last=False)

    def find(self, part: Part) -> Bundle | None:
        """The bundle that a part was in, as far as this is known."""
        with self._guard:
            return self._folders.get(part.folder, {}).get(part)

    def opened(self, path: str, read: Callable[[], OpenBundle]) -> OpenBundle:
        """The bundle at a path, read if that is not kept: once, however many threads ask for its parts."""
        with self._guard:
            reading = self._reading.setdefault(path, threading.Lock())
        try:
            with reading:
                found = self._open.get(path) or read()
        finally:
            with self._guard:
                self._reading.pop(path, None)
        with self._guard:
            self._open[path] = found
            self._open.move_to_end(path)
            while len(self._open) > OPEN_BUNDLES:
                self._open.popitem(last=False)
        return found
