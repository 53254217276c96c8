"""What samples are read from: a table of images lying in shards and files, however it was made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from strata.core.errors import DataError
from strata.data.sample_tables import SampleRow, SampleTable
from strata.shards.sources import SourceError, read_file, read_images, verify_unchanged
from strata.store.filesystem import file_system


class SampleError(DataError, ValueError):
    """A sample that cannot be read; the message is one line and names the shard or file."""


class RawSample(NamedTuple):
    """A sample as it is read: the image's file bytes, and its turns as in SampleRow."""

    key: str
    data: bytes
    turns: list[str]


class SampleSource(Protocol):
    """Samples by number. Pickled to every reading process; `read` is called from several threads."""

    @property
    def identity(self) -> str:
        """Says all about what is read: sources of one identity give the same samples."""

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """The samples of some numbers, in their order. Raises SampleError."""

    def missing(self) -> list[str]:
        """What is not there of all the files that samples lie in, a line each."""

    def explain(self, number: int, reason: str) -> SampleError:
        """The error of a sample whose image is none."""


class ImageFiles:
    """The image files of rows; a shard is looked at before its first is read. Safe to use from several threads."""

    def __init__(self) -> None:
        self._verified: set[tuple[str, str]] = set()

    def read(self, rows: Sequence[SampleRow]) -> list[bytes]:
        """The images of rows, in their order; neighbours in a shard are read together.

        Raises SampleError where a shard or file has vanished or changed, or cannot be read.
        """
        for uri, identity in {(row.uri, row.identity) for row in rows if row.identity} - self._verified:
            _verify(uri, identity)
            self._verified.add((uri, identity))
        order = sorted(range(len(rows)), key=lambda place: (rows[place].uri, rows[place].offset))
        images = dict(zip(order, _read([rows[place] for place in order]), strict=True))
        return [_bytes(row, images[place]) for place, row in enumerate(rows)]


@dataclass
class TableSource:
    """The samples of a table, their images read by offset from tars and files."""

    identity: str
    table: SampleTable
    files: ImageFiles = field(default_factory=ImageFiles)

    def __len__(self) -> int:
        return len(self.table)

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """The samples of some numbers, in their order. Raises SampleError as ImageFiles does."""
        rows = self.table.rows(numbers)
        return [RawSample(row.key, data, row.turns) for row, data in zip(rows, self.files.read(rows), strict=True)]

    def missing(self) -> list[str]:
        """Of all shards and files those that are not there or have changed, a line each: one listing a folder."""
        lines: list[str] = []
        folders: dict[str, list[str]] = defaultdict(list)
        for uri, identity in self.table.files():
            if identity:
                try:
                    _verify(uri, identity)
                except SampleError as error:
                    lines.append(str(error))
            else:
                folders[uri.rpartition("/")[0]].append(uri)
        for folder, uris in folders.items():
            there = _names(folder)
            lines += [f"no such image: {uri}" for uri in uris if uri.rpartition("/")[2] not in there]
        return lines

    def explain(self, number: int, reason: str) -> SampleError:
        """The error of a sample whose image is none."""
        return _error_of(self.table.rows([number])[0], reason)


def _verify(uri: str, identity: str) -> None:
    try:
        verify_unchanged(uri, identity)
    except (SourceError, OSError) as error:
        raise SampleError(str(error)) from None


def _names(folder: str) -> set[str]:
    """The names of all that lies in a folder; none if there is no such folder."""
    filesystem, path = file_system(folder)
    try:
        return {name.rstrip("/").rpartition("/")[2] for name in filesystem.ls(path, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _read(rows: Sequence[SampleRow]) -> list[bytes | Exception]:
    """The images of rows, in order: those of known size as `read_images` does, whole files one by one."""
    images = iter(read_images([row for row in rows if row.size]))
    return [next(images) if row.size else _read_file(row.uri) for row in rows]


def _read_file(uri: str) -> bytes | Exception:
    try:
        return read_file(uri)
    except Exception as error:  # each storage has its own exceptions
        return error


def _bytes(row: SampleRow, image: bytes | Exception) -> bytes:
    if isinstance(image, bytes):
        return image
    raise _error_of(row, "no such file" if isinstance(image, FileNotFoundError) else str(image))


def _error_of(row: SampleRow, reason: str) -> SampleError:
    """The error of an image that cannot be read: that its shard has vanished or changed, if it has."""
    try:
        if row.identity:
            _verify(row.uri, row.identity)
    except SampleError as error:
        return error
    return SampleError(f"{row.uri}, image {row.key}: {reason}")
