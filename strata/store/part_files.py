"""Parts as files: writing and reading them, moving older attempts away, and setting broken parts aside."""

from __future__ import annotations

import errno
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from strata.core import FEATURES, RECORD_SCHEMA, Chunk, Record, table_to_records
from strata.store.bundles import Busy, OpenBundle, OpenBundles, move_misplaced, recover, unbundle
from strata.store.filesystem import Files
from strata.store.index_rows import identity_of
from strata.store.part_format import BrokenPart, Footer, Source, decode, decode_footer, encode, footer_length
from strata.store.part_paths import Attempts, Bundle, Part, parts_at
from strata.store.storage_errors import as_os_error

log = logging.getLogger(__name__)

READERS = 16  # footers of a bucket that are read in parallel: each takes two round trips
TAIL = 32_768  # bytes that are read for a footer: it has 20 kB
WAIT_SECONDS = 10.0  # for who changes a bundle in which a part is broken: threads that verify find several
TAILS = 64  # of parts in a bucket that are requested at once
BUNDLE_TAIL = 2**18  # the same of a bundle: it has 8 kB more for each part

Result = TypeVar("Result")


class PartFiles(Files):
    """The parts of a store. A chunk stands for the part of its attempt, or where it is said for that of the newest.

    Reading raises BrokenPart for a part that is damaged, that is another part, or that has not as many rows as its
    chunk has images. Every method raises OSError if the storage cannot be reached.
    """

    def __init__(self, uri: str, *arguments: Any, **options: Any) -> None:
        super().__init__(uri, *arguments, **options)
        self.bundles = OpenBundles()

    # which parts there are

    def part_path(self, chunk: Chunk) -> str:
        """The path of a chunk's part, which may not exist yet, or not any more."""
        return self.path(Part.of_chunk(chunk).path)

    def attempts(self, chunk: Chunk) -> Attempts:
        """The attempts at all chunks of a chunk's group, fingerprint and shard. It takes one listing."""
        return self.attempts_in(Part.of_chunk(chunk).folder)

    def attempts_in(self, folder: str) -> Attempts:
        """The attempts in the folder of a shard's parts, as `Part.folder` names it. It takes one listing."""
        attempts = Attempts.of_names(self.names(f"parts/{folder}"))
        found = (Bundle.find(f"parts/{folder}/{name}") for name in attempts.bundles)
        self.bundles.know(folder, [bundle for bundle in found if bundle])
        return attempts

    def parts_below(self, *names: str) -> dict[Part, int | None]:
        """The parts below a folder, with their sizes in bytes; None: the part is in a bundle."""
        sizes: dict[Part, int | None] = {}
        for path, size in self.find(*names).items():
            for part in parts_at(path):
                # a part that is moved or bundled now has two files
                sizes.setdefault(part, None if Bundle.find(path) else size)
        return sizes

    def lost(self, parts: Sequence[Part]) -> list[Part]:
        """Those of the parts that have no file, also no superseded one, in order. It takes two listings a shard."""
        # several at a time: in a bucket each is a round trip
        with ThreadPoolExecutor(READERS) as pool:
            known: set[Part] = set().union(*pool.map(self.parts_in, {part.folder for part in parts}))
        return [part for part in parts if part not in known]

    def parts_in(self, folder: str) -> set[Part]:
        """The parts in the folder of a shard, as `Part.folder` names it, superseded ones too. It takes two listings."""
        group, fingerprint, identity = folder.split("/")
        return {
            Part(group, fingerprint, identity, number, attempt)
            for place in ("parts", "superseded")  # in the order in which a part moves
            for number, found in Attempts.of_names(self.names(f"{place}/{folder}")).found.items()
            for attempt in found
        }

    def newest(self, chunk: Chunk) -> Chunk | None:
        """The chunk with its newest attempt that has a part; None if that is older than the chunk's own attempt.

        It takes one listing, as `attempts_of`.
        """
        return self.attempts_of(chunk).newest(chunk)

    def has_part(self, chunk: Chunk) -> bool:
        """Whether a part of the chunk's attempt or a newer one exists, which means that the chunk's work is done."""
        return self.newest(chunk) is not None

    def all_attempts(self, chunk: Chunk) -> dict[int, list[int]]:
        """For each chunk of a chunk's group, fingerprint and shard, the attempts that have a part, ascending.

        Superseded parts are among them. It takes two listings.
        """
        found: dict[int, list[int]] = {}
        for part in sorted(self.parts_in(Part.of_chunk(chunk).folder)):
            found.setdefault(part.number, []).append(part.attempt)
        return found

    def attempts_before(self, chunk: Chunk) -> list[Chunk]:
        """The earlier attempts at a chunk that have a part, the newest first. It takes two listings."""
        attempts = reversed(self.all_attempts(chunk).get(chunk.number, []))
        return [replace(chunk, attempt=attempt) for attempt in attempts if attempt < chunk.attempt]

    def attempts_of(self, chunk: Chunk) -> Attempts:
        """The attempts at one chunk. In a bucket only the files of the chunk are listed: a folder may have thousands.

        There, marks and the names of earlier versions are not found, as they begin otherwise, and bundles only for a
        retry: whoever plans a first attempt has listed the folder.
        """
        folder, prefix = f"parts/{Part.of_chunk(chunk).folder}", f"{chunk.number:05d}."
        # on a disk a listing is cheap, so that names of earlier versions and marks are looked for too
        if self.local:
            return Attempts.of_names(self.names(folder, prefix, f"_{prefix}", "bundle-"))
        bundles = self.names(folder, "bundle-") if chunk.attempt else []
        return Attempts.of_names([*self.names(folder, prefix), *bundles])

    # writing

    def write_part(self, chunk: Chunk, table: pa.Table, footer: Footer, codec: str) -> None:
        """Write a part, then move the parts of older attempts away.

        A part that comes late is not written: when there is one of a newer attempt, or was one that broke. In a bucket
        this is not looked for before a first attempt, to save a round trip: the next one who lists the folder moves the
        part away.
        """
        part, asks = Part.of_chunk(chunk), bool(chunk.attempt) or self.local
        before = self.attempts_of(chunk) if asks else Attempts()
        found = before.found.get(chunk.number, {})
        if before.bundle_of(chunk.number, chunk.attempt):
            return  # it was written before, and bundled
        for attempt in found:
            if chunk.attempt > attempt and (bundle := before.bundle_of(chunk.number, attempt)):
                unbundle(self, f"parts/{part.folder}/{bundle}")
        if max(found, default=0) <= chunk.attempt == before.needed(chunk).attempt:
            self.put(self.path(part.path), encode(table, part, footer, codec))
        # a first attempt that was alone leaves nothing to be done
        if chunk.attempt or found:
            self.tidy(part, self.attempts_of(chunk), strict=True)

    def tidy(self, folder: Part, attempts: Attempts, strict: bool = False) -> None:
        """Move parts to where they belong: those of older attempts to `superseded/`, those of today to today's names.

        folder: any part of the shard whose attempts these are. A writer that died may have left it to be done, and an
        earlier version of Strata did not do it. Also what a compaction that died has left. strict: raise Busy if rows
        are in a bundle and beside it, and another process has the folder in hand: who wrote them must not leave it so.
        """
        place = f"parts/{folder.folder}"
        twice = bool(attempts.outdated()) or attempts.doubled()
        if attempts.locked or twice:
            with nullcontext() if strict and twice else suppress(Busy):
                recover(self, place)
            attempts = self.attempts_in(folder.folder)
        move_misplaced(self, place, attempts)
        # a broken part has been computed again: remove its mark
        for number, attempt in attempts.broken.items():
            if max(attempts.found.get(number, ()), default=-1) >= attempt:
                self.remove(self.path(folder._replace(number=number, attempt=attempt).marker))

    # reading

    def read_table(self, chunk: Chunk) -> pa.Table:
        """The part of a chunk's attempt as an Arrow table. Raises FileNotFoundError and BrokenPart."""
        return self.read_part(chunk)[0]

    def read_part(self, chunk: Chunk) -> tuple[pa.Table, Footer]:
        """The part of a chunk's attempt, wherever it lies, and its footer. Raises FileNotFoundError and BrokenPart."""
        return self.first(Source.of(chunk), self.decoded)

    def decoded(self, source: Source) -> tuple[pa.Table, Footer]:
        """The table and the footer of a part at one path. Raises FileNotFoundError and BrokenPart."""
        if bundle := Bundle.find(source.path):
            return self._bundled(source, bundle, None), self._opened(source, bundle).footer(source)
        table, footer = decode(self.get(self.path(source.path)), source)
        # which rows an index must have is known from its identity alone; earlier versions do not tell the size
        if footer.size is not None and identity_of(footer.size, table) != source.part.identity:
            raise source.broken("its rows are not those of the shard that it is named for")
        return table, footer

    @as_os_error
    def read_columns(self, part: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a part by its path from the store's root, such as "objects.list.element.kept".

        A layer without a column in the part is null in all its rows. In a folder only the bytes of the columns are
        read; of a bucket, where each read is a round trip, the whole part. Raises FileNotFoundError and BrokenPart.
        """
        table = self.read_some(part, columns)
        # add the columns that the part's version of the schema does not have
        schema = _schema_of(tuple(columns))
        for field in schema:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        return table.select(schema.names)

    @as_os_error
    def read_some(self, part: str, columns: Sequence[str]) -> pa.Table:
        """Those of some columns that a part has, by its path from the store's root, whatever its schema.

        Raises FileNotFoundError and BrokenPart.
        """
        return self.first(Source(Part.parse(part), part), lambda source: self._read_columns(source, columns))

    def _read_columns(self, source: Source, columns: Sequence[str]) -> pa.Table:
        if bundle := Bundle.find(source.path):
            return self._bundled(source, bundle, columns)
        path = self.path(source.path)
        # an empty file cannot be mapped
        if not self.local or not self.fs.size(path):
            return decode(self.get(path), source, columns)[0]
        with pa.memory_map(path) as file:
            return decode(file.read_buffer(), source, columns)[0]

    @as_os_error
    def read_footer(self, chunk: Chunk) -> Footer:
        """The footer of the part of a chunk's attempt. Raises FileNotFoundError and BrokenPart."""
        # the last bytes of the file are enough
        return self.first(Source.of(chunk), self._read_footer)

    def _read_footer(self, source: Source) -> Footer:
        if bundle := Bundle.find(source.path):
            return self._opened(source, bundle).footer(source)
        return decode_footer(self._footer_bytes(source, TAIL), source)

    def _footer_bytes(self, source: Source, expected: int) -> bytes:
        """The last bytes of a file, with all of its footer; expected: how many it probably has."""
        path = self.path(source.path)
        tail = self._tail(path, expected)
        length = footer_length(tail, source)
        return self._tail(path, length) if length > len(tail) == expected else tail

    def _opened(self, source: Source, bundle: Bundle) -> OpenBundle:
        """A bundle with its footer. Raises FileNotFoundError and BrokenPart."""
        read = lambda: OpenBundle(bundle, self._footer_bytes(source, BUNDLE_TAIL), source)  # noqa: E731
        return self.bundles.opened(source.path, read)

    def _bundled(self, source: Source, bundle: Bundle, columns: Sequence[str] | None) -> pa.Table:
        """A part's table, or some columns of it, from a bundle. Raises FileNotFoundError and BrokenPart."""
        opened = self._opened(source, bundle)
        begin, end = opened.span(source)
        path = self.path(source.path)
        if not self.local:
            body = self.fs.cat_file(path, start=begin, end=end)
            return opened.table(source, body if end else body[: -opened.footer_bytes], begin, columns)
        with pa.memory_map(path) as file:
            body = memoryview(file.read_buffer())[begin : file.size() - opened.footer_bytes if end is None else end]
            return opened.table(source, body, begin, columns)

    def _tail(self, path: str, length: int) -> bytes:
        """The last bytes of a file, all of a smaller one."""
        if not self.local:
            try:
                return bytes(self.fs.cat_file(path, start=-length))  # one request
            except OSError as error:
                if error.errno != errno.EINVAL:  # the file is empty
                    raise
            except (NotImplementedError, ValueError):  # a storage without such ranges
                pass
        with pathlib.Path(path).open("rb") if self.local else self.fs.open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - length))
            return bytes(file.read())

    def read_all_footers(self, chunks: Sequence[Chunk]) -> list[Footer | BrokenPart]:
        """The footers of many parts, in order, and the error instead of that of a broken one.

        Those of a bucket are read in parallel. Raises FileNotFoundError.
        """

        def read(chunk: Chunk, tail: bytes | None = None) -> Footer | BrokenPart:
            try:
                source = Source.of(chunk)
                if tail and footer_length(tail, source) <= len(tail):
                    return decode_footer(tail, source)
                return self.read_footer(chunk)
            except BrokenPart as error:
                return error

        # a local read takes less time than handing it to a thread
        if self.local or len(chunks) < 2:
            return [read(chunk) for chunk in chunks]
        with ThreadPoolExecutor(READERS) as pool:
            some = (chunks[start : start + TAILS] for start in range(0, len(chunks), TAILS))
            return [footer for each in some for footer in pool.map(read, each, self._tails(each))]

    @as_os_error
    def _tails(self, chunks: Sequence[Chunk]) -> list[bytes | None]:
        """The last bytes of parts in a bucket, all requested at once; None for a part that is not at its own path."""
        found: list[bytes | None] = [None] * len(chunks)
        alone = [number for number, chunk in enumerate(chunks) if self.bundles.find(Part.of_chunk(chunk)) is None]
        if getattr(self.fs, "async_impl", False) and alone:
            paths = [self.part_path(chunks[number]) for number in alone]
            starts, ends = [-TAIL] * len(alone), [None] * len(alone)
            together = self.fs.cat_ranges(paths, starts, ends, batch_size=TAILS, on_error="return")
            for number, tail in zip(alone, together, strict=True):
                found[number] = tail if isinstance(tail, bytes) else None
        return found

    def first(self, source: Source, read: Callable[[Source], Result]) -> Result:
        """The result of reading a part at the first of its places where it is. Raises FileNotFoundError."""
        for place in self._places(source.part):
            with suppress(FileNotFoundError):
                return _file_at(source._replace(path=place), read)
        self.check_mark()
        raise FileNotFoundError(errno.ENOENT, "no such part", source.part.path)

    def _places(self, part: Part) -> Iterator[str]:
        """The paths at which a part may lie; its folder is listed only if it is at none of the others."""
        if known := self.bundles.find(part):
            yield known.path
        yield from part.places
        if part.group != "index":
            self.attempts_in(part.folder)
            if (found := self.bundles.find(part)) and found != known:
                yield found.path
            # it may have been taken apart in between
            yield from part.places

    # broken parts

    def check(self, source: Source) -> pa.Table:
        """Read all of a part at one path, and return its table. Raises FileNotFoundError and BrokenPart."""
        table, _ = _file_at(source, self.decoded)
        if source.part.group not in ("index", FEATURES):
            self.to_records(table, source)
        return table

    def to_records(self, table: pa.Table, source: Source) -> list[Record]:
        """Rows of a part as records. Raises BrokenPart if their values are none of a record."""
        try:
            return table_to_records(table)
        except ValueError as error:  # also of pydantic and of UTF-8
            raise source.broken(f"{type(error).__name__}: {error}") from error

    def set_aside(self, error: BrokenPart) -> bool:
        """Move a broken part to `broken/`, so that it is computed again; False if it is not broken (any more).

        If it was the newest of several attempts, a mark is left: the older ones do not count in its place.
        """
        source = Source(Part.parse(error.path), error.path, error.images)
        # another process may have set it aside before, and the part may have been written again since
        try:
            self.check(self._where_it_is(source))
            return False
        except FileNotFoundError:
            return False
        except BrokenPart as found:
            self.move_aside(found)
            return True

    def _where_it_is(self, source: Source) -> Source:
        """The source of a part that may have been bundled since it was read."""
        held = self.attempts_in(source.part.folder).bundle_of(source.part.number, source.part.attempt)
        is_there = held and source.path == source.part.path
        return source._replace(path=f"parts/{source.part.folder}/{held}") if is_there else source

    def move_aside(self, error: BrokenPart) -> None:
        """Move a broken part to `broken/` without reading it again, and leave the mark; see `set_aside`."""
        part = Part.parse(error.path)
        at = self._where_it_is(Source(part, error.path))
        if at.path != error.path:  # a part that is broken in its bundle stays in that, which is moved
            unbundle(self, at.path, WAIT_SECONDS)
        if part.attempt and error.path.startswith("parts/"):
            self.put(self.path(part.marker), b"")
        self.move(error.path, f"broken/{error.path}")
        log.warning("%s; it is kept as broken/%s", error, error.path)


def _file_at(source: Source, read: Callable[[Source], Result]) -> Result:
    """The result of reading a part at one path. Raises FileNotFoundError, and BrokenPart also for a folder."""
    try:
        return read(source)
    except IsADirectoryError as error:
        raise source.broken("it is a folder") from error


@functools.cache
def _schema_of(columns: tuple[str, ...]) -> pa.Schema:
    """The schema of some columns of RECORD_SCHEMA, as they are read from a part."""
    # a column such as "objects.list.element.kept" is read with the structure around it: let pyarrow work that out
    empty: Any = pa.BufferOutputStream()
    pq.write_table(RECORD_SCHEMA.empty_table(), empty)
    return pq.ParquetFile(pa.BufferReader(empty.getvalue())).read(list(columns)).schema
