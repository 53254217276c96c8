"""The process that reads a Parquet list for `rows.py`, from standard input and to standard output.

It is run by its path, so that it imports pyarrow and nothing of Strata. A message is 8 bytes with its length, then its
bytes. The parent sends a JSON object with the limits, and later bytes of the file. This process sends JSON arrays:
`["read", offset, size]`, `["rows", [[path, caption, key], ...]]`, and at last `["end", reason]`, of which the reason is
empty, `damaged`, `no column` or `memory`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 1000  # rows of a message
READ = 4 * 2**20  # bytes that are asked for at once, and of a column that are in memory at a time
LENGTH = struct.Struct("!Q")


class _NoColumn(Exception):
    """No column of texts has one of the names."""


class Pipe:
    """Messages to and from the parent. It ends the process when the parent is gone."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.buffer, sys.stdout.buffer

    def send(self, *parts: object) -> None:
        data = json.dumps(parts).encode()
        self._out.write(LENGTH.pack(len(data)) + data)
        self._out.flush()

    def receive(self) -> bytes:
        head = self._in.read(LENGTH.size)
        if len(head) < LENGTH.size:
            os._exit(0)
        return self._in.read(LENGTH.unpack(head)[0])


class ParentFile(io.RawIOBase):
    """The parent's file; size: in bytes."""

    def __init__(self, pipe: Pipe, size: int) -> None:
        super().__init__()
        self._pipe, self._size, self._offset = pipe, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._offset = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size}[whence]
        return self._offset

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._offset if size < 0 else min(size, self._size - self._offset)
        pieces = []
        while left > 0:
            self._pipe.send("read", self._offset, min(left, READ))
            piece = self._pipe.receive()
            if not piece:
                break
            pieces.append(piece)
            self._offset, left = self._offset + len(piece), left - len(piece)
        return b"".join(pieces)


def main() -> None:
    """Serve one parent with the rows of one file."""
    pipe = Pipe()
    asked = json.loads(pipe.receive())
    pa.set_cpu_count(1)
    # the size of this process without the file, in pages, is the first number of statm
    with contextlib.suppress(OSError):  # Linux alone has it
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + asked["memory"],) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (asked["seconds"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        for rows in read_rows(ParentFile(pipe, asked["size"]), asked["fields"], asked["longest"]):
            pipe.send("rows", rows)
            pipe.receive()
        reason = ""
    except _NoColumn:
        reason = "no column"
    except MemoryError:  # pyarrow's is one
        reason = "memory"
    except (pa.ArrowException, OSError, ValueError, OverflowError):
        reason = "damaged"
    pipe.send("end", reason)


def read_rows(file: Any, fields: Sequence[Sequence[str]], longest: Sequence[int]) -> Iterator[list[list[Any]]]:
    """Yield the rows of a file, BATCH at a time: for each choice of column names a value, None if it has none.

    longest: to how many characters the texts of each choice are cut. Raises _NoColumn if no column has one of the names
    of the first choice, MemoryError, and pyarrow's exceptions.
    """
    parquet = pq.ParquetFile(file, buffer_size=READ)
    # choose the columns by name and type
    names = [_column(parquet.schema_arrow, choice, number=choice is fields[-1]) for choice in fields]
    if names[0] is None:
        raise _NoColumn
    wanted = [name for name in names if name is not None]
    # read only these columns, a batch at a time
    for batch in parquet.iter_batches(BATCH, columns=wanted, use_threads=False):
        empty: list[Any] = [None] * batch.num_rows
        pairs = zip(names, longest, strict=True)
        columns = [empty if name is None else _values(batch.column(name), most) for name, most in pairs]
        yield [list(row) for row in zip(*columns, strict=True)]


def _column(schema: pa.Schema, names: Sequence[str], number: bool) -> str | None:
    """The first of the names that is a text column (or, if a number is right too, an integer column), or None."""
    for name in names:
        if name not in schema.names or schema.get_field_index(name) < 0:  # -1: several have the name
            continue
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or (number and pa.types.is_integer(kind)):
            return name
    return None


def _values(column: Any, most: int) -> list[Any]:
    """A column's values. A text that is not valid UTF-8 becomes None; the others are kept."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type):
        return list(column.to_pylist())
    # decode one by one: pyarrow would reject the whole column for one invalid text
    return [_text(data, most) for data in column.cast(pa.large_binary())]


def _text(scalar: Any, most: int) -> str | None:
    data = scalar.as_buffer()
    if data is None:
        return None
    # a text that is cut within a character would not be valid
    cut = bytes(data[: 4 * most]) if data.size > 4 * most else bytes(data)
    try:
        return cut.decode("utf-8", "ignore" if len(cut) < data.size else "strict")[:most]
    except UnicodeDecodeError:
        return None


if __name__ == "__main__":
    main()
