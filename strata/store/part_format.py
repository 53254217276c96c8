"""The bytes of a part: a Parquet file with checksums over every byte, and in its footer what part it is.

The footer has the counts of the part, so that plans read some kilobytes of each part only. Therefore the checksums are
apart: one of the footer, one of all bytes before it, and one of each column, for those who read some columns. They are
CRC-32, which finds every damage of up to 32 bits in a row and any other with a probability of 1 - 2**-32; it protects
from faults of a machine and not from forgers. Pages have Parquet's own checksums too, for other readers.

Parts of the schema versions 1 and 2 have no checksums: damage is found in them as far as Arrow finds it.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from strata.core import SCHEMA_VERSION, Bill, Chunk, Work
from strata.errors import DataError
from strata.store.part_paths import Bundle, Part

Result = TypeVar("Result")

CHECKED_VERSION = 3  # the first schema version whose parts have checksums
FEW_ROWS = 10_000  # of a part that is read by one thread
_MAGIC = b"PAR1"
_TAIL = 8  # bytes after the footer: its length and the magic number
MARK = b"strata-crc32:"  # before the checksums of footer, body and columns, as hexadecimal numbers
DIGITS = 8  # of one checksum
VERSION, _PART, CHECKSUMS = b"strata.schema_version", b"strata.part", b"strata.checksums"
_COUNTS, _TRANSIENT, _BILL, _FAILURE = b"strata.counts", b"strata.transient", b"strata.bill", b"strata.shard_failure"
_FAMILIES, _LEFT_OUT, _SIZE = b"strata.families", b"strata.left_out", b"strata.shard_size"
_WORK = b"strata.work"

_KEPT = (VERSION, _PART, CHECKSUMS, _COUNTS, _TRANSIENT, _BILL, _WORK)  # in the footers of parts with records


class BrokenPart(DataError):
    """A part is damaged, or it is not the part that its path names.

    path: relative to the store's root; images: the number of rows that the part must have, None if not known.
    """

    def __init__(self, path: str, reason: str, images: int | None = None) -> None:
        super().__init__(f"{path} is broken: {reason}")
        self.path, self.reason, self.images = path, reason, images


class Footer(NamedTuple):
    """The content of a part's footer.

    counts: the number of images by status; bill: their cost if a model server was asked; transient: how many images
    failed for a cause that may pass; failure: of an index part, why the shard was not read completely; families: of the
    index part of a folder or list, left_out and size: of an index part, see ShardIndex. work: what the part took of a
    worker; None of an index part, and of parts of earlier versions.
    """

    counts: Counter[str]
    bill: Bill | None = None
    transient: int = 0
    failure: str | None = None
    families: tuple[str, ...] = ()
    left_out: Mapping[str, int] = MappingProxyType({})
    size: int | None = None
    work: Work | None = None

    def entries(self) -> dict[bytes, bytes]:
        """The footer as key-value pairs of a Parquet file."""
        entries = {_COUNTS: json.dumps(self.counts).encode(), _TRANSIENT: str(self.transient).encode()}
        if self.bill is not None:
            entries[_BILL] = self.bill.model_dump_json().encode()
        if self.failure is not None:
            entries[_FAILURE] = self.failure.encode()
        if self.families:
            entries[_FAMILIES] = json.dumps(self.families).encode()
        if self.left_out:
            entries[_LEFT_OUT] = json.dumps(dict(self.left_out)).encode()
        if self.size is not None:
            entries[_SIZE] = json.dumps(self.size).encode()
        if self.work is not None:
            entries[_WORK] = self.work.model_dump_json().encode()
        return entries


class Source(NamedTuple):
    """Which part is read, and from where. path: relative to the store's root; images: the rows that it must have."""

    part: Part
    path: str
    images: int | None = None

    @classmethod
    def of(cls, chunk: Chunk) -> Source:
        """The part of a chunk at its own path."""
        part = Part.of_chunk(chunk)
        return cls(part, part.path, chunk.images or None)

    def broken(self, reason: str) -> BrokenPart:
        """The error for this part, also of a part in a bundle."""
        path = self.part.path if Bundle.find(self.path) else self.path
        return BrokenPart(path, " ".join(reason.split())[:300], self.images)


def encode(table: pa.Table, part: Part, footer: Footer, codec: str) -> bytes:
    """A part as the bytes of a Parquet file."""
    return sealed([table], {_PART: json.dumps([*part, table.num_rows]).encode(), **footer.entries()}, codec)


def sealed(tables: Sequence[pa.Table], entries: Mapping[bytes, bytes], codec: str) -> bytes:
    """The bytes of a Parquet file with tables of one schema, each as a row group, and with checksums.

    entries: further key-value pairs. The checksums are that of the footer, then for each row group those of all its
    bytes and of each column.
    """
    schema = tables[0].schema.remove_metadata()
    sums = len(tables) * (1 + leaves_of(schema))
    # a part is small: dictionaries of fifty columns would cost time and save no space
    sink = pa.BufferOutputStream()
    collected: list[pq.FileMetaData] = []
    options: dict[str, Any] = {"compression": codec, "write_statistics": False, "use_dictionary": False}
    options |= {"write_page_checksum": True, "metadata_collector": collected}
    with pq.ParquetWriter(sink, schema, **options) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(), row_group_size=max(1, table.num_rows))
        marks = {VERSION: str(SCHEMA_VERSION).encode(), CHECKSUMS: MARK + b"0" * DIGITS * (1 + sums)}
        writer.add_key_value_metadata({**marks, **entries})
    # fill in the checksums: first those of the columns and of the bodies, then that of the footer with them
    data = bytearray(sink.getvalue())
    view, start = memoryview(data), footer_start(data)
    first = data.index(MARK, start) + len(MARK)
    found = []
    for group, (begin, end) in enumerate(spans(collected[0], start)):
        found.append(zlib.crc32(view[begin:end]))
        columns = RowGroup(collected[0], group, begin).columns(view[begin:end])
        found += [zlib.crc32(column) for _, column in columns]
    data[first + DIGITS : first + DIGITS * (1 + sums)] = b"".join(b"%08x" % each for each in found)
    data[first : first + DIGITS] = b"%08x" % zlib.crc32(view[start:])
    return bytes(data)


def spans(metadata: pq.FileMetaData, end: int) -> list[tuple[int, int]]:
    """The bytes of each row group, from where the one before it ends; end: of the last one, where the footer begins."""
    starts = [metadata.row_group(group).column(0).data_page_offset for group in range(1, metadata.num_row_groups)]
    return list(zip([0, *starts], [*starts, end], strict=True))


def decode_footer(tail: bytes, source: Source) -> Footer:
    """The footer of a part, from the last bytes of its file, which must contain all of it. Raises BrokenPart."""

    def read() -> Footer:
        footer = checked_footer(memoryview(tail), source)
        # without the mark the checksum was not compared
        entries = entries_of(footer, _KEPT) if source.part.group != "index" and MARK in footer else {}
        if not {VERSION, _PART, _COUNTS, CHECKSUMS} <= entries.keys():
            return footer_of(_metadata_of(footer, source).entries)
        _check_identity(entries, json.loads(entries[_PART])[-1], source, marked=True)
        return footer_of(entries)

    return guarded(source, read)


def entries_of(footer: bytes, names: Sequence[bytes]) -> dict[bytes, bytes]:
    """Those of some key-value pairs of ours that a footer has, whose checksum must be right.

    Parquet's own reader reads the descriptions of a hundred columns too, in a hundred times the time, and a plan reads
    the footers of all parts of a job. In Thrift's compact protocol a field of type binary that follows on another one
    is 0x18, the length as a varint, and the bytes. No text of ours in a footer has the byte 0x18: JSON escapes it.
    """
    entries = {}
    for name in names:
        start = footer.find(b"\x18%c%s\x18" % (len(name), name)) + len(name) + 3
        if start < len(name) + 3:
            continue
        length = shift = 0
        while True:
            byte = footer[start]
            start, length, shift = start + 1, length | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        entries[name] = footer[start : start + length]
    return entries


def footer_length(tail: bytes, source: Source) -> int:
    """How many bytes of a part's end are its footer, from its last 8 bytes at least. Raises BrokenPart."""
    if len(tail) < _TAIL or tail[-4:] != _MAGIC:
        raise source.broken("it does not end as a Parquet file")
    return int.from_bytes(tail[-_TAIL:-4], "little") + _TAIL


def decode(data: Any, source: Source, columns: Sequence[str] | None = None) -> tuple[pa.Table, Footer]:
    """A part's table, or some of its columns, and its footer. data: the whole file, bytes or a buffer.

    Columns that the part does not have are left out. Raises BrokenPart.
    """

    def read() -> tuple[pa.Table, Footer]:
        view = memoryview(data)
        found = _checked_metadata(view, source)
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data)), metadata=found.metadata)
        if found.checksums is not None:
            body = view[: footer_start(view)]
            RowGroup(found.metadata).check(body, found.checksums, columns, source)
        # of a small part, handing eighty columns to threads takes longer than reading them
        threads = columns is None and found.metadata.num_rows > FEW_ROWS
        table = file.read(None if columns is None else list(columns), use_threads=threads)
        # without checksums, at least look for values that no writer writes
        if found.checksums is None:
            table.validate(full=True)
        return table, footer_of(found.entries)

    return guarded(source, read)


def guarded(source: Source, act: Callable[[], Result]) -> Result:
    """The result of act, with every error in it as BrokenPart: the bytes are in memory, so storage is not the cause."""
    try:
        return act()
    except BrokenPart:
        raise
    except Exception as error:
        raise source.broken(f"{type(error).__name__}: {error}") from error


class _Metadata(NamedTuple):
    """A part's Parquet metadata, its key-value pairs, and the checksums of its body and columns.

    checksums: None for a part of a version without.
    """

    metadata: pq.FileMetaData
    entries: Mapping[bytes, bytes]
    checksums: bytes | None


def _checked_metadata(data: Any, source: Source) -> _Metadata:
    """A part's metadata, compared with its checksum and with what part it must be. Raises BrokenPart."""
    return _metadata_of(checked_footer(memoryview(data), source), source)


def checked_footer(view: memoryview, source: Source) -> bytes:
    """A part's footer, compared with its checksum if it has one. Raises BrokenPart."""
    start = len(view) - footer_length(bytes(view[-_TAIL:]), source)
    if start < 0:
        raise source.broken("it is cut off")
    footer = bytes(view[start:])
    # the footer's own checksum was computed with zeros in its place
    at = footer.find(MARK) + len(MARK)
    if at >= len(MARK):
        whole = footer[:at] + b"0" * DIGITS + footer[at + DIGITS :]
        if footer[at : at + DIGITS] != b"%08x" % zlib.crc32(whole):
            raise source.broken("the checksum of its footer is wrong")
    return footer


def _metadata_of(footer: bytes, source: Source) -> _Metadata:
    """The metadata in a part's footer, compared with what part it must be. Raises BrokenPart."""
    marked = MARK in footer
    metadata = pq.read_metadata(pa.BufferReader(footer))
    entries = metadata.metadata or {}
    if not marked and int(entries[VERSION]) >= CHECKED_VERSION:
        raise source.broken("it has no checksums")
    _check_identity(entries, metadata.num_rows, source, marked)
    return _Metadata(metadata, entries, entries[CHECKSUMS][len(MARK) + DIGITS :] if marked else None)


def _check_identity(entries: Mapping[bytes, bytes], rows: int, source: Source, marked: bool) -> None:
    """Raise BrokenPart if the part is another one, or has another number of rows than it must have."""
    if marked and json.loads(entries[_PART]) != [*source.part, rows]:
        raise source.broken(f"it is the part {entries[_PART].decode()}")
    if source.part.group == "index":
        return
    expected = sum(json.loads(entries[_COUNTS]).values())
    if not rows or rows != expected or (source.images is not None and rows != source.images):
        wanted = expected if source.images is None else source.images
        raise source.broken(f"it has {rows} rows instead of {wanted}")


class RowGroup(NamedTuple):
    """One row group of a file: its number, and where its bytes begin in the file."""

    metadata: pq.FileMetaData
    number: int = 0
    begin: int = 0

    def columns(self, body: memoryview) -> Iterator[tuple[str, memoryview]]:
        """The path and the bytes of each column. body: the bytes of the row group."""
        for leaf in range(self.metadata.num_columns):
            path, there = self.metadata.schema.column(leaf).path, self.metadata.num_row_groups
            # a file without rows has no row group
            column = self.metadata.row_group(self.number).column(leaf) if there else None
            start = 0 if column is None else (column.dictionary_page_offset or column.data_page_offset) - self.begin
            yield path, body[start : start + column.total_compressed_size] if column else body[:0]

    def check(self, body: memoryview, checksums: bytes, columns: Sequence[str] | None, source: Source) -> None:
        """Compare its bytes with their checksums, or those of some columns only. Raises BrokenPart."""
        if columns is None:
            if int(checksums[:DIGITS], 16) != zlib.crc32(body):
                raise source.broken("the checksum of its content is wrong")
            return
        for leaf, (path, data) in enumerate(self.columns(body), 1):
            if not any(path == column or path.startswith(f"{column}.") for column in columns):
                continue
            if int(checksums[DIGITS * leaf : DIGITS * (leaf + 1)], 16) != zlib.crc32(data):
                raise source.broken(f"the checksum of its column {path} is wrong")


def footer_of(entries: Mapping[bytes, bytes]) -> Footer:
    """The content of a footer by its key-value pairs."""
    bill = Bill.model_validate_json(entries[_BILL]) if _BILL in entries else None
    counts = Counter[str](json.loads(entries.get(_COUNTS, b"{}")))
    failure, families = entries.get(_FAILURE, b"").decode() or None, json.loads(entries.get(_FAMILIES, b"[]"))
    left_out = json.loads(entries.get(_LEFT_OUT, b"{}"))
    size = json.loads(entries.get(_SIZE, b"null"))
    work = Work.model_validate_json(entries[_WORK]) if _WORK in entries else None
    return Footer(counts, bill, int(entries.get(_TRANSIENT, 0)), failure, tuple(families), left_out, size, work)


def footer_start(data: Any) -> int:
    """Where the footer of a whole file begins."""
    return len(data) - _TAIL - int.from_bytes(data[-_TAIL:-4], "little")


@functools.cache
def leaves_of(schema: pa.Schema) -> int:
    """The number of columns of a Parquet file with this schema, those inside of structures and lists counted singly."""
    empty = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), empty)
    return int(pq.read_metadata(pa.BufferReader(empty.getvalue())).num_columns)
