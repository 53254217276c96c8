"""The process that reads a Parquet file for `rows.py`, from standard input and to standard output.

It is run by its path, so that it imports pyarrow and nothing of Strata. A message is 8 bytes with its length, then its
bytes. The parent sends a JSON object with the limits, and later bytes of the file. This process sends JSON arrays:
`["read", offset, size]`; `["rows", [[path, caption, key, column, size, checksum], ...]]`, or, if the parent has asked
for images, `["image", number]` and a message that is the image, or, if it has asked for the values of some columns,
`["rows", [{name: value, ...}, ...]]`; and at last `["end", reason]`, of which the reason is
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
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BATCH = 1000  # rows of a message
READ = 4 * 2**20  # bytes that are asked for at once, and of a column that are in memory at a time
IMAGES = 16 * 2**20  # bytes of the images of a batch, as far as the footer tells
MOST_IMAGES = 64  # of a batch: an image that is stored once may be the value of many rows
LONGEST = 4000  # characters of a value that are sent
LENGTH = struct.Struct("!Q")


class _NoColumn(Exception):
    """No column of texts has one of the names."""


class Pipe:
    """Messages to and from the parent. It ends the process when the parent is gone."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.buffer, sys.stdout.buffer

    def send(self, *parts: object) -> None:
        self.send_bytes(json.dumps(parts, default=_told).encode())

    def send_bytes(self, data: Any) -> None:
        self._out.write(LENGTH.pack(len(data)))
        self._out.write(data)
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
        file = pq.ParquetFile(ParentFile(pipe, asked["size"]), buffer_size=READ)
        if "numbers" in asked:
            for number, image in read_images(file, asked["column"], asked["numbers"]):
                pipe.send("image", number)
                pipe.send_bytes(image)
        elif "names" in asked:
            for values in read_values(file, asked["names"], asked["first"], asked["count"]):
                pipe.send("rows", values)
                pipe.receive()
        else:
            for rows in read_rows(file, asked["images"], asked["fields"], asked["longest"]):
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


def read_rows(
    parquet: pq.ParquetFile, images: Sequence[str], fields: Sequence[Sequence[str]], longest: Sequence[int]
) -> Iterator[list[list[Any]]]:
    """Yield the rows of a file, some at a time: for each choice of column names a value, None if it has none.

    Then come the column, the size and the CRC-32 of the row's image, None if the file has none in it. images: the names
    of such columns. longest: to how many characters the texts of each choice are cut. Raises _NoColumn if no column has
    images or one of the names of the first choice, MemoryError, and pyarrow's exceptions.
    """
    schema = parquet.schema_arrow
    # choose the columns by name and type
    names = [_column(schema, choice, number=choice is fields[-1]) for choice in fields]
    image = _image_column(schema, images)
    # a structure with an image's bytes may have its path too
    path = f"{image.removesuffix('.bytes')}.path" if image and image.endswith(".bytes") else ""
    names[0] = path if path and _type_at(schema, path) is not None else names[0]
    if names[0] is None and image is None:
        raise _NoColumn
    wanted = [name for name in [*names, image] if name is not None]
    # read only these columns, a batch at a time
    rows = BATCH if image is None else _batch_size(parquet, image)
    for batch in parquet.iter_batches(rows, columns=wanted, use_threads=False):
        empty: list[Any] = [None] * batch.num_rows
        pairs = zip(names, longest, strict=True)
        columns = [empty if name is None else _values(_at(batch, name), most) for name, most in pairs]
        found = [(None, None, None)] * batch.num_rows if image is None else _sizes(image, _at(batch, image))
        yield [[*values, *told] for *values, told in zip(*columns, found, strict=True)]


def read_images(parquet: pq.ParquetFile, column: str, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Yield those of the rows with these ascending numbers that have an image, each with its bytes."""
    wanted, first = set(numbers), 0
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        mine = {number - first for number in wanted if first <= number < first + count}
        row = 0
        # a group is read from its beginning, up to the last row that is wanted
        rows = _batch_size(parquet, column)
        for batch in (
            parquet.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False) if mine else ()
        ):
            values = _at(batch, column)
            for number in sorted(number for number in mine if row <= number < row + batch.num_rows):
                if (data := _bytes_of(values[number - row])) is not None:
                    yield first + number, memoryview(data)
            row += batch.num_rows
            if row > max(mine):
                break
        first += count


def read_values(
    parquet: pq.ParquetFile, names: Sequence[str], first: int, count: int
) -> Iterator[list[dict[str, Any]]]:
    """Yield the values of `count` rows from row `first` on: of each the columns that names begin with, but no bytes."""
    columns = [name for name in parquet.schema_arrow.names if any(f"{one}.".startswith(f"{name}.") for one in names)]
    start = 0
    for group in range(parquet.num_row_groups):
        end = start + parquet.metadata.row_group(group).num_rows
        row = start
        batches: Iterator[pa.RecordBatch] = iter(())
        if start < first + count and end > first:
            batches = parquet.iter_batches(BATCH, row_groups=[group], columns=columns, use_threads=False)
        for batch in batches:
            wanted = batch.slice(max(0, first - row), max(0, first + count - max(row, first)))
            if wanted.num_rows:
                found = {name: [_plain(one) for one in wanted.column(name)] for name in columns}
                yield [{name: found[name][place] for name in columns} for place in range(wanted.num_rows)]
            row += batch.num_rows
            if row >= first + count:
                break
        start = end


def _plain(scalar: Any) -> Any:
    """A value as JSON can have it: without bytes, and of one that is too long the beginning of its text."""
    try:
        value = scalar.as_py()
    except ValueError:  # a text that is not valid UTF-8, a time that Python cannot have
        return None
    if isinstance(value, bytes):
        return None
    if not isinstance(value, str | int | float | list | dict | None):
        value = str(value)
    text = value if isinstance(value, str) else json.dumps(value, default=_told, ensure_ascii=False)
    return value if len(text) <= LONGEST else text[:LONGEST]


def _told(value: object) -> str | None:
    return None if isinstance(value, bytes) else str(value)


def _batch_size(parquet: pq.ParquetFile, column: str) -> int:
    """How many rows are read at a time if they have images. What the footer says may be wrong: memory has a limit."""
    size = rows = 0
    for group in range(parquet.num_row_groups):
        metadata = parquet.metadata.row_group(group)
        columns = (metadata.column(number) for number in range(metadata.num_columns))
        size += sum(one.total_uncompressed_size for one in columns if one.path_in_schema == column)
        rows += metadata.num_rows
    return max(1, min(MOST_IMAGES, IMAGES * rows // max(1, size)))


def _image_column(schema: pa.Schema, names: Sequence[str]) -> str | None:
    """The column with the bytes of images: NAME or NAME.bytes for one of the names, else the first X.bytes."""
    others = [name for name in schema.names if name not in names]
    for name in [*names, *others]:
        if name not in schema.names or schema.get_field_index(name) < 0:  # -1: several have the name
            continue
        candidates = (f"{name}.bytes", name) if name in names else (f"{name}.bytes",)
        for column in candidates:
            kind = _type_at(schema, column)
            # a dictionary inside a structure is left: pyarrow cannot read one that has several parts
            if kind is not None and pa.types.is_dictionary(kind) and column == name:
                kind = kind.value_type
            if kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
                return column
    return None


def _type_at(schema: pa.Schema, column: str) -> pa.DataType | None:
    """The type of a column, or of a field NAME.FIELD of a column of structures."""
    if column in schema.names:
        return schema.field(column).type
    name, _, field = column.rpartition(".")
    kind = schema.field(name).type if name in schema.names and schema.get_field_index(name) >= 0 else None
    if kind is None or not pa.types.is_struct(kind) or kind.get_field_index(field) < 0:
        return None
    return kind.field(field).type


def _at(batch: pa.RecordBatch, column: str) -> Any:
    """The values of a column, as `_type_at` finds it."""
    if column in batch.schema.names:
        return batch.column(column)
    name, _, field = column.rpartition(".")
    # not the field itself, whose rows are not null where the structure is
    values: Any = pc.struct_field(batch.column(name), field)
    return values


def _sizes(column: str, values: Any) -> list[tuple[str | None, int | None, str | None]]:
    """The column, size and checksum of each image; None for a row without one."""
    buffers = (_bytes_of(value) for value in values)
    return [(None, None, None) if data is None else (column, data.size, f"{zlib.crc32(data):08x}") for data in buffers]


def _bytes_of(scalar: Any) -> Any:
    """A buffer with the bytes of an image, or None."""
    # not `dictionary_decode` of the column: it would copy an image that is stored once for each of its rows
    if pa.types.is_dictionary(scalar.type):
        scalar = scalar.value
    return scalar.as_buffer()


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
