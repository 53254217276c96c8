"""Conversations in Parquet files, as TRL, `datasets` and `strata export --format messages` write them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from strata.data.sources.entries import EntryError

COLUMNS = ("id", "key", "messages", "conversations", "images", "image")  # others are not read
_ROWS = 16  # that are converted at a time
_READ = 4 * 2**20  # bytes of a column that are read at a time
_TAIL = 8  # bytes at the end of a file: the length of its footer, and "PAR1"


def parquet_entries(file: IO[bytes]) -> Iterator[Any]:
    """Yield the rows of a Parquet file as dictionaries of COLUMNS, a few in memory at a time. Raises EntryError.

    A row with a text that is not UTF-8 is None. An image is bytes, a path, or {"bytes", "path"}.
    """
    try:
        parquet = pq.ParquetFile(file, buffer_size=_READ, pre_buffer=False)
        names = parquet.schema_arrow.names
        columns = [name for name in COLUMNS if name in names]
        if not {"messages", "conversations"} & set(columns):
            raise EntryError(f'no column "messages" or "conversations"; there are {", ".join(names)[:200]}')
        for batch in parquet.iter_batches(_ROWS, columns=columns, use_threads=False):
            yield from (_row(batch.slice(number, 1)) for number in range(batch.num_rows))
    except pa.ArrowException:
        raise EntryError("not a Parquet file, or a damaged one") from None


def _row(batch: pa.RecordBatch) -> Any:
    try:
        (row,) = batch.to_pylist()
    except UnicodeDecodeError:
        return None
    if isinstance(row.get("key"), str) and row.get("id") is None:
        row["id"] = row["key"]
    return row


def footer_digest(file: IO[bytes]) -> bytes:
    """A SHA-256 of a Parquet file's size and footer, which has the places and sizes of all pages: not of its images."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    length = int.from_bytes(file.read(_TAIL)[:4], "little")
    file.seek(max(0, size - _TAIL - length))
    return hashlib.sha256(str(size).encode() + file.read()).digest()
