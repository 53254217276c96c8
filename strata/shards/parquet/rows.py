"""Read the rows and the images of a Parquet file in a process of its own, with limits of memory and time.

A page of a few bytes may claim gigabytes, and a text that is stored once may be the value of a million rows: no check
of what the file says of itself bounds what pyarrow needs for it. The process (`child.py`) gets the bytes of the
file from here, so that it opens nothing, and the errors of the storage stay in this process.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from strata.shards.roots import SourceError

MEMORY = 320 * 2**20  # bytes that the process may take above what it has when it starts
SECONDS = 300  # of CPU for a whole list
_LONGEST_MESSAGE = 256 * 2**20  # bytes
_LENGTH = struct.Struct("!Q")
_CHILD = Path(__file__).with_name("child.py")
_REASONS = {
    "damaged": "not a Parquet file, or a damaged one",
    "memory": f"it needs more than {MEMORY:,} bytes of memory to be read",
    "no column": "no column has images, and no text column has a name that is one of an image's path",
}
# the parent's own variables may have secrets; memory is taken by one allocator that gives it back, in one arena
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}


class ParquetRow(NamedTuple):
    """The values that were asked for; the column that has the row's image, if any, its size in bytes and CRC-32."""

    values: list[Any]
    column: str | None
    size: int | None
    checksum: str | None


def parquet_rows(
    file: IO[bytes], fields: Sequence[Sequence[str]], longest: Sequence[int], images: Sequence[str] = ()
) -> Iterator[ParquetRow]:
    """Yield a row with a value for each choice of column names, for each row of a file; None where there is none.

    The last choice may be an integer column. longest: to how many characters the texts of each choice are cut. images:
    the names of columns with images, binary ones or structures with a field `bytes`; of these, others are found too.
    Raises SourceError if the file is damaged or needs too much, and the exceptions of its storage.
    """
    for kind, values in _messages(file, {"fields": fields, "longest": longest, "images": images}):
        if kind == "rows":
            yield from (ParquetRow(row[:-3], *row[-3:]) for row in values)


def parquet_images(file: IO[bytes], column: str, numbers: Sequence[int]) -> dict[int, bytes]:
    """The images of the rows with these numbers; a row without one is missing. Raises as `parquet_rows`."""
    return dict(values for _, values in _messages(file, {"column": column, "numbers": sorted(numbers)}))


def parquet_values(file: IO[bytes], names: Sequence[str], first: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield the values of `count` rows from row `first` on, as JSON has them, by the names of their columns.

    names: of columns, or of fields in them ("exif.model" is in the column "exif"). Of a long value it is the beginning
    of its text. Raises as `parquet_rows`.
    """
    for _, values in _messages(file, {"names": names, "first": first, "count": count}):
        yield from values


def _messages(file: IO[bytes], asked: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Start the process, and yield what it sends: rows, values, or images with their numbers."""
    size = file.seek(0, os.SEEK_END)
    folders = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-P", str(_CHILD)],
        env={**_ENVIRONMENT, "PYTHONPATH": folders},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches only this process, which then ends its children
    )
    try:
        _send(process, json.dumps({**asked, "size": size, "memory": MEMORY, "seconds": SECONDS}).encode())
        yield from _answers(process, file)
    finally:
        process.kill()
        process.communicate()


def _answers(process: subprocess.Popen[bytes], file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Answer the messages of the process until its last one."""
    while True:
        kind, *values = json.loads(_receive(process))
        if kind == "read":
            offset, size = values
            file.seek(offset)
            _send(process, file.read(size))
        elif kind == "rows":
            yield kind, values[0]
            _send(process, b"")
        elif kind == "image":
            yield kind, (values[0], _receive(process))
        elif values[0]:
            raise SourceError(_REASONS[values[0]])
        else:
            return


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(_LENGTH.pack(len(data)) + data)
        process.stdin.flush()
    except BrokenPipeError:
        raise _ended(process) from None


def _receive(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    head = process.stdout.read(_LENGTH.size)
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
    data = process.stdout.read(length) if 0 <= length <= _LONGEST_MESSAGE else b""
    if len(data) != length:
        raise _ended(process)
    return data


def _ended(process: subprocess.Popen[bytes]) -> SourceError:
    """Why the process has ended without a last message: by a limit, or by a fault in a library."""
    process.kill()
    return SourceError(f"reading it as Parquet has ended its process with {process.wait()}, by a limit or a fault")
