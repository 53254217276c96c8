"""Sources of samples: their interface, and the source that reads a table's images from shards and files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from strata.data.sample_tables import SampleRow, SampleTable
from strata.errors import DataError
from strata.shards import SourceError, read_file, read_images, verify_unchanged
from strata.store import file_system


class SampleError(DataError, ValueError):
    """A sample cannot be read. The message is one line with the shard or file."""


class RawSample(NamedTuple):
    """A sample before decoding: the bytes of its image file, and its turns as in SampleRow."""

    key: str
    data: bytes
    turns: list[str]


class SampleSource(Protocol):
    """Samples by number. It is pickled to every reading process; `read` is called from several threads."""

    @property
    def identity(self) -> str:
        """Determines the samples: sources with equal identities have equal samples."""

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """Read the samples with these numbers, in the order given. Raises SampleError."""

    def missing(self) -> list[str]:
        """Check all files that samples lie in; return a line for each that is missing or has changed."""

    def explain(self, number: int, reason: str) -> SampleError:
        """Make the error for a sample whose image cannot be decoded."""


class ImageFiles:
    """Reads the images of rows; checks a shard's identity before the first read from it. Thread-safe."""

    def __init__(self) -> None:
        self._verified: set[tuple[str, str]] = set()

    def read(self, rows: Sequence[SampleRow]) -> list[bytes]:
        """The image bytes of rows, in order; images that lie close together in a shard are read together.

        Raises SampleError if a shard or file is missing, has changed, or cannot be read.
        """
        # check each shard once per process
        for uri, identity in {(row.uri, row.identity) for row in rows if row.identity} - self._verified:
            _verify(uri, identity)
            self._verified.add((uri, identity))
        # read in file order, which lets neighbours share a read, and restore the given order
        order = sorted(range(len(rows)), key=lambda index: (rows[index].uri, rows[index].offset))
        images = dict(zip(order, _read([rows[index] for index in order]), strict=True))
        return [_bytes(row, images[index]) for index, row in enumerate(rows)]


@dataclass
class TableSource:
    """The samples of a table, with their images read by offset from tars and files."""

    identity: str
    table: SampleTable
    files: ImageFiles = field(default_factory=ImageFiles)

    def __len__(self) -> int:
        return len(self.table)

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """Read the samples with these numbers, in the order given. Raises SampleError as ImageFiles does."""
        rows = self.table.rows(numbers)
        return [RawSample(row.key, data, row.turns) for row, data in zip(rows, self.files.read(rows), strict=True)]

    def missing(self) -> list[str]:
        """Check all shards and files; return a line for each that is missing or has changed."""
        lines: list[str] = []
        folders: dict[str, list[str]] = defaultdict(list)
        # shards are checked by their identity; single image files are collected by folder
        for uri, identity in self.table.files():
            if identity:
                try:
                    _verify(uri, identity)
                except SampleError as error:
                    lines.append(str(error))
            else:
                folders[uri.rpartition("/")[0]].append(uri)
        # one listing per folder is much faster than a request per image
        for folder, uris in folders.items():
            there = _names(folder)
            lines += [f"no such image: {uri}" for uri in uris if uri.rpartition("/")[2] not in there]
        return lines

    def explain(self, number: int, reason: str) -> SampleError:
        """Make the error for a sample whose image cannot be decoded."""
        return _error_of(self.table.rows([number])[0], reason)


def _verify(uri: str, identity: str) -> None:
    try:
        verify_unchanged(uri, identity)
    except (SourceError, OSError) as error:
        raise SampleError(str(error)) from None


def _names(folder: str) -> set[str]:
    """The names of a folder's entries; empty if the folder does not exist."""
    filesystem, path = file_system(folder)
    try:
        return {name.rstrip("/").rpartition("/")[2] for name in filesystem.ls(path, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _read(rows: Sequence[SampleRow]) -> list[bytes | Exception]:
    """The images of rows, in order: those of known size by `read_images`, whole files one by one."""
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
    """Make the error for an image that cannot be read; if its shard is missing or has changed, that is the reason."""
    try:
        # a missing or changed shard explains the error better than the image does
        if row.identity:
            _verify(row.uri, row.identity)
    except SampleError as error:
        return error
    return SampleError(f"{row.uri}, image {row.key}: {reason}")
