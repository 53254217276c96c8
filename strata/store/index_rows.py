"""The rows of an index part: where each image of a shard lies, and what identifies it.

In an index part an image's URI is relative to its shard, so that a shard that was moved has the same index: empty for
the shard's own file, `./NAME` for a file of a folder, `../PATH` for a path relative to a list's folder. Other paths of
a list, and the URIs in index parts of earlier versions, are absolute. `#parquet/COLUMN/ROW` after the URI of a Parquet
file is the image in a column and a row of it.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from strata.core import source_shard

INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("alt_text", pa.string()),
        pa.field("error", pa.string()),
        pa.field("stamp", pa.string()),
        pa.field("note", pa.string()),
    ]
)
# the column that the index part of chosen rows has beside these: the number of each row in the shard that holds it
SOURCE_NUMBER = "number"
# what is in a shard's identity: all but the notes, which follow from the rest; and parts of earlier versions have none
_IDENTIFYING = [name for name in INDEX_SCHEMA.names if name != "note"]
_INSIDE = "#parquet/"
_BATCH = 1000  # rows converted at a time, to bound the number of Python objects


class IndexRow(NamedTuple):
    """One image of a shard: bytes offset..offset+size of the file at uri. error: why the image cannot be read, or None.

    Offset 0 means the whole file (a loose image, an upload): in a tar a header stands before every member. stamp:
    changes when the image does: of a file its modification time (of a local one with its inode) or ETag, of a member of
    a tar a checksum of some of its bytes; None or empty if it is not known. note: what a user should know of how the
    alt text was read, or None.
    """

    key: str
    uri: str
    offset: int
    size: int
    alt_text: str | None = None
    error: str | None = None
    stamp: str | None = None
    note: str | None = None


@dataclass
class ShardIndex:
    """A shard's images in file order, as a table of INDEX_SCHEMA with URIs relative to the shard.

    identity: a hash of what the shard holds. stamp: that of its file or listing, see `strata.shards.Stamps`; None if
    its storage does not tell its version, and for a list, whose own file does not tell whether its images are the same.
    failure: why the shard was not read completely, or None. families: of a folder or list, the names under which its
    earlier and later indexes are found. left_out: how many of its files are in no row, by the reason
    (`strata.core.LEFT_OUT`). size: of the shard's file in bytes, from which the identity follows with the rows; None of
    a folder or a list.
    """

    uri: str
    stamp: str | None
    identity: str
    table: pa.Table
    failure: str | None = None
    families: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    size: int | None = None

    @property
    def rows(self) -> list[IndexRow]:
        """The table's rows, with absolute URIs."""
        return located_rows(self.table, self.uri)


class ParquetCell(NamedTuple):
    """Where an image is inside a Parquet file: a binary column, as `image.bytes`, and the number of the row from 0."""

    file: str
    column: str
    row: int

    @classmethod
    def find(cls, uri: str) -> ParquetCell | None:
        """The cell that a URI means; None if it means a file."""
        file, inside, cell = uri.rpartition(_INSIDE)
        column, _, row = cell.rpartition("/")
        return cls(file, column, int(row)) if inside and column and row.isascii() and row.isdigit() else None

    def __str__(self) -> str:
        return f"{self.file}{_INSIDE}{self.column}/{self.row}"


def file_name(uri: str) -> str:
    """The last segment of a file's path or URI, of an address of a web server without its query."""
    return _path_of(uri).rpartition("/")[2]


def file_folder(uri: str) -> str:
    """What comes before the last slash of a file's path or URI, of an address of a web server without its query."""
    return _path_of(uri).rpartition("/")[0]


def _path_of(uri: str) -> str:
    # elsewhere a question mark is a character of a name
    return uri.partition("?")[0] if uri.lower().startswith(("http://", "https://")) else uri


def located_rows(table: pa.Table, shard: str) -> list[IndexRow]:
    """The rows of an index of a shard, with absolute URIs. The table may be of an earlier version of INDEX_SCHEMA."""
    shard = source_shard(shard)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    columns["uri"] = [_absolute(uri, shard) for uri in columns["uri"]]
    rows = [columns.get(name, [None] * table.num_rows) for name in IndexRow._fields]
    return list(map(IndexRow._make, zip(*rows, strict=True)))


def _absolute(uri: str, shard: str) -> str:
    if not uri or uri.startswith(_INSIDE):
        return shard + uri
    if uri.startswith("../"):
        return f"{file_folder(shard)}/{uri[3:]}"
    return f"{shard.rstrip('/')}/{uri[2:]}" if uri.startswith("./") else uri


def identity_of(of: int | str, table: pa.Table) -> str:
    """A hash (16 hex digits) of the rows of a shard's index, and of its size in bytes; of a folder or a list, its URI.

    The rows of a tar have checksums, so that a copy of it has the same identity. Those of a folder or a list have time
    stamps, which identify a file only at its own place: archives that are made reproducibly give all files one time. If
    the version of one of its images is not known, each call gives another identity.
    """
    digest = hashlib.sha256(str(of).encode("utf-8", "surrogateescape"))
    if isinstance(of, str) and _unknown_versions(table):
        digest.update(uuid.uuid4().bytes)
    for batch in table.select(_IDENTIFYING).to_batches():
        # as json.dumps writes each row, in some 60 % of its time
        columns = [map(_as_json, column.to_pylist()) for column in batch.columns]
        digest.update("".join(f"[{', '.join(row)}]" for row in zip(*columns, strict=True)).encode())
    return digest.hexdigest()[:16]


def _as_json(value: str | int | None) -> str:
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    return "null" if value is None else str(value)


def _unknown_versions(table: pa.Table) -> bool:
    """Whether there is an image whose storage does not tell its version."""
    unknown = pc.equal(pc.fill_null(table.column("stamp"), ""), "")
    return bool(pc.any(pc.and_(unknown, pc.is_null(table.column("error")))).as_py())


def index_table(rows: Iterable[IndexRow]) -> pa.Table:
    """Convert rows to a table of INDEX_SCHEMA."""
    # a batch at a time, since rows as Python objects need much more memory than columns
    iterator, batches = iter(rows), []
    while batch := list(itertools.islice(iterator, _BATCH)):
        # transposing by zip is ten times as fast as Table.from_pylist
        columns = zip(zip(*batch, strict=True), INDEX_SCHEMA.types, strict=True)
        arrays = [pa.array(column, kind) for column, kind in columns]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=INDEX_SCHEMA))
    return pa.Table.from_batches(batches, INDEX_SCHEMA)
