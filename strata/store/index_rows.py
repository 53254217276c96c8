"""The rows of an index part: where each image of a shard lies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("alt_text", pa.string()),
        pa.field("error", pa.string()),
    ]
)
_BATCH = 1000  # rows converted at a time, to bound the number of Python objects


class IndexRow(NamedTuple):
    """One image of a shard: bytes offset..offset+size of the file at uri. error: why the image cannot be read, or None.

    Offset 0 means the whole file (a loose image, an upload): in a tar a header stands before every member.
    """

    key: str
    uri: str
    offset: int
    size: int
    alt_text: str | None = None
    error: str | None = None


@dataclass
class ShardIndex:
    """A shard's images in file order, as a table of INDEX_SCHEMA.

    failure: why the shard was not read completely, or None.
    """

    identity: str
    table: pa.Table
    failure: str | None

    @property
    def rows(self) -> list[IndexRow]:
        """The table's rows."""
        return [IndexRow(**row) for row in self.table.to_pylist()]


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
