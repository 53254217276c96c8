"""Read images by their offsets in shards; find where their files lie now, and check that a tar is what it was."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from strata.core import source_identity, source_shard
from strata.egress import EgressRules
from strata.shards.parquet import parquet_images
from strata.shards.roots import ShardMissing, SourceError
from strata.shards.sources import index_shard
from strata.shards.stamps import Stamps, find_shard, local_version, look_up, same_time, shard_stamps
from strata.store import ParquetCell, Store, file_system, is_picked_list

MAX_GAP = 256 * 2**10  # bytes; a smaller gap between two images is read too, which is faster than a second request
MAX_IMAGE = 512 * 2**20  # bytes of one image: 100 million pixels without compression have 400 MB
MAX_SPAN = 64 * 2**20  # bytes of one ranged read
REQUESTS = 64  # at a time to a bucket, of one call
_BUCKETS = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
# for which a shard of unknown version is believed to be the same: reading it for each chunk would take longer than the
# work on the chunk
UNKNOWN_SECONDS = 300.0


class ShardChanged(SourceError):
    """A shard's file has changed since it was indexed."""


class Located(Protocol):
    """The position of an image: bytes offset..offset+size of the file at uri."""

    @property
    def uri(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...


class ImageReader:
    """Reads the images of shards and of uploads. Thread-safe; it can be pickled.

    store: knows the uploads, what was moved, and the identities of shards; None: files lie where their URIs say.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store
        self._identities: dict[str, str] = {}  # of shards, by their stamps
        self._sources: dict[str, dict[str, str]] = {}  # of picked lists, by their identities
        self._read_lately: dict[str, tuple[str, float]] = {}  # the same, until when (monotonic seconds) it is believed

    def locate(self, uri: str) -> str:
        """Where the file of a URI lies now. Raises OSError."""
        return uri if self.store is None else self.store.locate(uri)

    def read(self, rows: Sequence[Located], versions: Sequence[str | None] = ()) -> list[bytes | Exception]:
        """The bytes of each row's image, or an exception, as `read_images` gives them. Raises OSError."""
        results = read_images(rows, self.locate, versions)
        # an upload that is missing may only be away with the store
        if self.store is not None and any(
            isinstance(result, FileNotFoundError) and self.store.is_upload(row.uri)
            for row, result in zip(rows, results, strict=True)
        ):
            self.store.check_mark()
        return results

    def is_gone(self, uri: str) -> bool:
        """Whether there is no file or folder of a shard. Raises as `shard_stamps` does, but not ShardMissing."""
        uri = source_shard(uri)
        try:
            find_shard(uri, self.locate(uri))
        except ShardMissing:
            return True
        return False

    def changed(self, shard: str, identity: str, tars: Sequence[str]) -> dict[str, SourceError]:
        """Which of the tars that images of a shard lie in are not those that were indexed, and why.

        They are the shard itself, or those of a picked list, also of rows that are chosen of one. Raises OSError if a
        storage cannot be reached, and for a shard that is a tar as `verify`.
        """
        if not tars:
            return {}
        if not is_picked_list(source_shard(shard)):
            self.verify(shard, identity)
            return {}
        known = self._sources_of(source_identity(identity))
        found: dict[str, SourceError] = {}
        for uri in sorted(set(tars)):
            try:
                self.verify(uri, known.get(uri, identity))
            except SourceError as error:
                found[uri] = error
        return found

    def _sources_of(self, identity: str) -> dict[str, str]:
        """The identities of the tars of a picked list by their URIs. Raises OSError."""
        if identity not in self._sources:
            self._sources[identity] = {} if self.store is None else self.store.read_sources(identity)
        return self._sources[identity]

    def verify(self, uri: str, identity: str) -> None:
        """Raise ShardChanged if the tar at a URI is no longer the one that had this identity.

        Takes one request. If the file has another time stamp than the store knows (it was touched, copied or restored),
        its headers are read and compared instead. If its storage does not tell its version, they are read again after
        UNKNOWN_SECONDS, and when its size differs. Otherwise raises as `shard_stamps` does. Of chosen rows the tar is
        the one of which they were chosen.
        """
        uri, identity = source_shard(uri), source_identity(identity)
        at = self.locate(uri)
        stamps = shard_stamps(uri, at)
        # earlier versions, and tables of samples, have the stamp as the identity
        # of an image of a picked list the identity is that of the list. If the version of the tar is not known, each
        # comparison reads it, so that the list is looked for first
        wanted = identity if stamps.now else self._sources_of(identity).get(uri, identity)
        same = wanted in stamps or wanted == self._identity(uri, at, stamps, wanted)
        if not same and (source := self._sources_of(identity).get(uri)):
            same = source == self._identity(uri, at, stamps, source)
        if not same:
            raise ShardChanged(f"{uri} has changed since it was indexed: submit it again")

    def _identity(self, uri: str, at: str, stamps: Stamps, expected: str) -> str:
        """The identity of a shard with a stamp: from this process, the store, or the shard itself."""
        stamp = stamps.now
        if stamp is None:
            return self._unversioned(uri, at, stamps.earlier, expected)
        known = self._identities.get(stamp) or (self.store and self.store.read_identity(stamp))
        # jobs of an earlier version know the shard as it was read then: the places of its images are the same
        if known != expected and self.store is not None:
            notes = (one for one in (stamps.before, stamps.earlier) if one)
            if any(self.store.read_identity(one) == expected for one in notes):
                return expected
        if not known:
            known = index_shard(uri, at=at).identity
            if self.store is not None:
                with suppress(OSError):  # the store of a reader may be read-only: then the next process reads again
                    self.store.keep_identity(stamp, known)
        self._identities[stamp] = known
        return known

    def _unversioned(self, uri: str, at: str, stamp: str, expected: str) -> str:
        """The identity of a shard whose version is not known: the expected one if it was read a short time ago."""
        known, until = self._read_lately.get(stamp, ("", 0.0))
        if known != expected or time.monotonic() >= until:
            known = index_shard(uri, at=at).identity
            self._read_lately[stamp] = known, time.monotonic() + UNKNOWN_SECONDS
        return known


def _same(uri: str) -> str:
    return uri


def read_images(
    rows: Sequence[Located], locate: Callable[[str], str] = _same, versions: Sequence[str | None] = ()
) -> list[bytes | Exception]:
    """The bytes of each row's image, in order; images that lie close together are fetched with one ranged read.

    A row that cannot be read gives an exception instead: SourceError if it has more than MAX_IMAGE bytes; ShardChanged
    if a whole file (offset 0) has another size than its row says, or a local one another version than `versions` says
    (None: it is not known); OSError for which `is_transient` holds if a later attempt may succeed (the storage does not
    answer, or its answer ends before the image does); else an exception of the storage. locate: tells where the file of
    a URI lies now.
    """
    spans = list(_spans(rows, locate, versions))
    fetched = _fetched_together(spans)
    results: list[bytes | Exception] = []
    for span, data in zip(spans, fetched, strict=True):
        if cell := ParquetCell.find(span.rows[0].uri):
            results += _read_parquet(span.rows, locate(cell.file), span.versions)
        else:
            results += _read_span(span, data)
    return results


class _Span(NamedTuple):
    """Rows that are fetched together. at: where their file lies; versions: of whole files, as of `read_images`."""

    rows: Sequence[Located]
    at: str
    versions: Sequence[str | None]

    @property
    def whole(self) -> bool:
        """Whether it is a whole file. Then one byte more is requested, which shows whether the file has grown."""
        return self.rows[0].offset == 0 and len(self.rows) == 1

    @property
    def range(self) -> tuple[int, int]:
        """The first byte that is requested, and the end."""
        return self.rows[0].offset, self.rows[-1].offset + self.rows[-1].size + self.whole

    @property
    def fault(self) -> SourceError | None:
        """Why it cannot be requested."""
        size = self.rows[0].size
        if size <= 0:
            return SourceError("the row has no image")
        if size > MAX_IMAGE:
            return SourceError(f"{size:,} bytes, but at most {MAX_IMAGE:,} are read for one image")
        return None


def _spans(rows: Sequence[Located], locate: Callable[[str], str], versions: Sequence[str | None]) -> Iterator[_Span]:
    start = 0
    while start < len(rows):
        end = start + 1
        # images inside a Parquet file are read together
        if cell := ParquetCell.find(rows[start].uri):
            while end < len(rows) and _same_column(cell, rows[end]):
                end += 1
            yield _Span(rows[start:end], "", versions[start:end])
        else:
            # extend the span while the next row lies shortly after the last one in the same file
            while end < len(rows) and _joins(rows[start], rows[end - 1], rows[end]):
                end += 1
            at, version = locate(rows[start].uri), versions[start] if versions else None
            # a file that was moved with its root has other times and another inode
            yield _Span(rows[start:end], at, [version if at == rows[start].uri else None])
        start = end


def _fetched_together(spans: Sequence[_Span]) -> list[bytes | Exception | None]:
    """The bytes of spans that lie in buckets, requested at once, as each is a round trip; None for the others."""
    found: list[bytes | Exception | None] = [None] * len(spans)
    buckets: dict[int, tuple[Any, list[int], list[str]]] = {}  # by the file system, of which there is one an account
    for number, span in enumerate(spans):
        if span.at.startswith(_BUCKETS) and span.fault is None:
            with suppress(ImportError, ValueError):  # told where the span is read alone
                filesystem, path = file_system(span.at)
                _, numbers, paths = buckets.setdefault(id(filesystem), (filesystem, [], []))
                numbers.append(number)
                paths.append(path)
    for filesystem, numbers, paths in buckets.values():
        # a web server is not ours to burden, and one request needs no company
        if len(numbers) < 2 or not getattr(filesystem, "async_impl", False):
            continue
        starts, ends = zip(*(spans[number].range for number in numbers), strict=True)
        together = filesystem.cat_ranges(paths, list(starts), list(ends), batch_size=REQUESTS, on_error="return")
        for number, data in zip(numbers, together, strict=True):
            found[number] = data
    return found


def _same_column(cell: ParquetCell, row: Located) -> bool:
    other = ParquetCell.find(row.uri)
    return other is not None and other[:2] == cell[:2]


def _read_parquet(rows: Sequence[Located], at: str, checksums: Sequence[str | None]) -> list[bytes | Exception]:
    """The images of rows in one column of a Parquet file. at: where the file lies; checksums: of the images, if known.

    Parquet has no offsets of values: the row groups are read from their beginnings, in a process of its own.
    """
    cells = [cell for row in rows if (cell := ParquetCell.find(row.uri))]
    try:
        filesystem, path = file_system(at)
        with filesystem.open(path, "rb") as file:
            found = parquet_images(file, cells[0].column, [cell.row for cell in cells])
    except Exception as error:  # each storage library has its own exceptions; other rows must still be read
        return [error for _ in rows]
    changed = ShardChanged("the Parquet file no longer has the image that was indexed: submit it again")
    results: list[bytes | Exception] = []
    for row, cell, checksum in itertools.zip_longest(rows, cells, checksums):
        data = found.get(cell.row, b"")
        same = len(data) == row.size and checksum in (None, f"{zlib.crc32(data):08x}")
        results.append(data if same else changed)
    return results


def _joins(first: Located, before: Located, row: Located) -> bool:
    """Whether a row is fetched by the same read as the row before it."""
    gap = row.offset - (before.offset + before.size)
    near = 0 <= gap <= MAX_GAP and row.offset + row.size - first.offset <= MAX_SPAN
    return near and row.uri == first.uri and before.size > 0 and row.size > 0


def _read_span(span: _Span, fetched: bytes | Exception | None) -> list[bytes | Exception]:
    """The images of rows of one file, sorted by offset, by one read. fetched: its bytes, if they were read before."""
    rows, at, first = span.rows, span.at, span.rows[0]
    if span.fault is not None:
        return [span.fault]
    try:
        start, end = span.range
        data = _read_bytes(at, start, end, span.versions[0] if span.whole else None) if fetched is None else fetched
        if isinstance(data, Exception):
            raise data
    except Exception as error:  # each storage library has its own exceptions; other rows must still be read
        return [error for _ in rows]
    # spans of a tar need no such check, because callers compare the tar's identity (`ImageReader.verify`)
    if span.whole and len(data) != first.size:
        return [_size_error(first, at, len(data))]
    # cut the span into images
    results: list[bytes | Exception] = []
    for row in rows:
        image = data[row.offset - first.offset : row.offset - first.offset + row.size]
        short = OSError(f"the answer of the storage ends {row.size - len(image)} bytes before the image does")
        results.append(image if len(image) == row.size else short)
    return results


def _size_error(row: Located, at: str, got: int) -> Exception:
    """Why a whole file was read with another size than its row says: the file has changed, or the answer was cut."""
    changed = ShardChanged(f"the file no longer has the {row.size:,} bytes that it had when it was indexed")
    if got > row.size:
        return changed
    try:
        now = look_up(row.uri, at)[2]["size"]
    except Exception as error:  # each storage library has its own exceptions
        return error
    cut = OSError(f"the answer of the storage ends {row.size - got:,} bytes before the file does")
    return cut if now == row.size else changed


def read_file(uri: str, rules: EgressRules | None = None) -> bytes:
    """Read a whole file. rules: as for `file_system`. Raises the exceptions of its storage."""
    if uri.startswith("/"):
        with os.fdopen(_opened(uri), "rb") as file:
            return file.read()
    filesystem, path = file_system(uri, rules)
    data: bytes = filesystem.cat_file(path)
    return data


def _opened(path: str) -> int:
    """Open a local file for reading. Raises OSError, also for a pipe or device, which could never end or never answer.

    Without O_NONBLOCK opening a pipe waits for its writer.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, os.strerror(number) if number == errno.EISDIR else "not a regular file", path)
    return file


def _read_bytes(uri: str, start: int, end: int, version: str | None = None) -> bytes:
    """Read bytes start..end of a file, fewer if it is shorter. Raises ShardChanged if a local one has another version.

    The version is not compared if it is one without inode, of an earlier version of the program.
    """
    # local files without fsspec, in a tenth of its time: training reads thousands of images per second
    if uri.startswith("/"):
        file = _opened(uri)
        try:
            data = os.pread(file, end - start, start)
            # of the open file, after it was read: it is the one that the bytes are of
            if version and " " in version and not same_time(local_version(os.fstat(file)), version):
                raise ShardChanged("the file is no longer the one that was indexed: submit it again")
            return data
        finally:
            os.close(file)
    filesystem, path = file_system(uri)
    # other storages: one ranged request
    found: bytes = filesystem.cat_file(path, start=start, end=end)
    return found
