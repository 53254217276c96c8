"""The files of a public data set, opened wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any

from strata.data.sources.entries import EntryError, json_entries
from strata.data.sources.parquet_entries import footer_digest, parquet_entries
from strata.store import as_os_error, file_system

PARQUET = ".parquet"
_PIECE = 2**20  # bytes hashed at a time


@dataclass(frozen=True)
class Files:
    """The URIs of a data set's files. questions: those of the questions, if they are not with the answers.

    exclude: a file with the ids of images that are left out, a line each. contents: the files with the text of each
    page of the documents, as many as paths, or none.
    """

    paths: tuple[str, ...]
    questions: tuple[str, ...] = ()
    exclude: str = ""
    contents: tuple[str, ...] = ()

    def open(self, uri: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file for reading. Raises OSError."""
        filesystem, path = file_system(uri)
        return filesystem.open(path, "rb")  # type: ignore[no-any-return]

    def entries(self, place: str) -> Iterator[Any]:
        """The entries of all files, as `json_entries` gives them."""
        for uri in self.paths:
            with self.open(uri) as file:
                yield from json_entries(file, place)

    def conversations(self) -> Iterator[Any]:
        """The entries of all files of conversations: JSON, JSON Lines, Parquet, or folders of Parquet files."""
        for given in self.paths:
            for uri in self._listed(given):
                with self.open(uri) as file:
                    yield from parquet_entries(file) if uri.endswith(PARQUET) else json_entries(file)

    def _listed(self, uri: str) -> list[str]:
        """The files of a folder: of JSON or, if there are some in it or in its `data/`, of Parquet; else the file."""
        filesystem, path = file_system(uri)
        if not filesystem.isdir(path):
            return [uri]
        inside = f"{uri.rstrip('/')}/data"
        below = folder_files(inside, PARQUET) if filesystem.isdir(f"{path.rstrip('/')}/data") else []
        return folder_files(uri, PARQUET) or below or folder_files(uri)

    def excluded(self) -> frozenset[str]:
        """The ids in the file `exclude`."""
        if not self.exclude:
            return frozenset()
        with self.open(self.exclude) as file:
            return frozenset(line.strip() for line in file.read().decode("utf-8", "replace").splitlines())

    @as_os_error
    def digest(self) -> str:
        """A SHA-256 of all files. Raises OSError if one is missing."""
        digest = hashlib.sha256()
        for uri in (*self.paths, *self.questions, *self.contents, *([self.exclude] if self.exclude else [])):
            for name in self._listed(uri):
                digest.update(_file_digest(name))
        return digest.hexdigest()


def _file_digest(uri: str) -> bytes:
    filesystem, path = file_system(uri)
    digest = hashlib.sha256()
    with filesystem.open(path, "rb") as file:
        if uri.endswith(PARQUET):
            return footer_digest(file)
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.digest()


def objects(file: IO[bytes], place: str = "") -> Iterator[dict[str, Any]]:
    """The entries of a file that are JSON objects, as `json_entries` gives them."""
    return (entry for entry in json_entries(file, place) if isinstance(entry, dict))


def joined(field: str, left: Iterator[dict[str, Any]], right: Iterator[Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Pairs of entries that are equal in a field, in the order of the right side; {} for one without a partner.

    Both sides may be in any order; entries of the left side wait in memory for their partner.
    """
    waiting: dict[str | int, dict[str, Any]] = {}
    for entry in right:
        name = entry.get(field) if isinstance(entry, dict) else None
        if not isinstance(name, str | int):
            yield {}, entry
            continue
        while name not in waiting and (other := next(left, None)) is not None:
            if isinstance(found := other.get(field), str | int):
                waiting[found] = other
        yield waiting.pop(name, {}), entry


def folder_files(uri: str, extension: str = ".json") -> list[str]:
    """The files of a folder with an extension, sorted by name, as URIs, without those that begin with "_" or ".".

    Raises OSError.
    """
    filesystem, path = file_system(uri)
    names = (name.rpartition("/")[2] for name in filesystem.ls(path, detail=False))
    return [f"{uri.rstrip('/')}/{name}" for name in sorted(names) if name.endswith(extension) and name[0] not in "_."]


def folder_entries(files: Files) -> Iterator[Any]:
    """The JSON objects of a folder, one a file, as in AI2D; those of excluded images are left out."""
    excluded = files.excluded()
    for folder in files.paths:
        for uri in folder_files(folder):
            if uri.rpartition("/")[2].partition(".")[0] not in excluded:
                with files.open(uri) as file:
                    yield _parsed(file.read())


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise EntryError("one of the files is not JSON") from None
