"""The columns of a list of images, Parquet or JSON Lines, as metadata of its samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple, Protocol

from strata.shards.image_reader import ImageReader, Located
from strata.shards.kinds import MAGIC_BYTES, Kind, kind_by_content, kind_by_name
from strata.shards.lists import KEY_FIELDS, PATH_FIELDS, Entry, json_entry, json_rows, key_of
from strata.shards.parquet import parquet_values
from strata.shards.stamps import version_of
from strata.store import ParquetCell, file_system


class Sample(Protocol):
    """A described sample: its key, and the position of its image."""

    @property
    def key(self) -> str: ...
    @property
    def image(self) -> Located: ...


class _Lines(NamedTuple):
    """A file of JSON lines that is read on: its version, the next row's number, its rows, and the file itself."""

    uri: str
    version: str | None
    next: int
    rows: Iterator[tuple[str, bytes]]
    file: IO[bytes]


class ColumnReader:
    """Reads rows of lists. It keeps the file of JSON lines that was read last open: mostly its next rows are wanted."""

    def __init__(self, images: ImageReader) -> None:
        self._images = images
        self._lines: _Lines | None = None

    def read(
        self, shard: str, identity: str, first: int, samples: Sequence[Sample], names: Sequence[str]
    ) -> list[Mapping[str, Any]] | None:
        """The fields of consecutive samples of a list; None if the shard is no list of images.

        first: the number of the first one in the list; names: of the fields that are wanted. A sample has no fields if
        its row is another one now. Raises OSError, and SourceError for a list that cannot be read or has changed.
        """
        kind = self._kind(shard)
        if kind == "lines":
            return self._of_lines(shard, first, samples)
        return self._of_parquet(shard, identity, first, samples, names) if kind == "parquet" else None

    def _kind(self, shard: str) -> Kind | None:
        filesystem, path = file_system(self._images.locate(shard))
        if filesystem.info(path)["type"] != "file":
            return None
        return kind_by_name(shard) or kind_by_content(filesystem.cat_file(path, start=0, end=MAGIC_BYTES))

    def _of_lines(self, shard: str, first: int, samples: Sequence[Sample]) -> list[Mapping[str, Any]]:
        rows = self._rows_from(shard, first)
        found: list[Mapping[str, Any]] = []
        try:
            for sample, (position, line) in zip(samples, itertools.islice(rows, len(samples)), strict=False):
                entry, fields = json_entry(position, line)
                found.append(_of_sample(sample, entry, fields))
        except BaseException:
            self.close()
            raise
        if self._lines is not None:
            self._lines = self._lines._replace(next=first + len(samples))
        return [*found, *({} for _ in samples[len(found) :])]

    def _rows_from(self, shard: str, first: int) -> Iterator[tuple[str, bytes]]:
        """The rows of a file of JSON lines from a number on."""
        filesystem, path = file_system(self._images.locate(shard))
        version = version_of(filesystem.info(path))
        kept = self._lines
        if kept is None or (kept.uri, kept.version) != (shard, version) or kept.next > first:
            self.close()
            file = filesystem.open(path, "rb")
            kept = self._lines = _Lines(shard, version, 0, json_rows(file), file)
        next(itertools.islice(kept.rows, first - kept.next, first - kept.next), None)
        return kept.rows

    def close(self) -> None:
        """Close the file that was read last."""
        if self._lines is not None:
            self._lines.file.close()
            self._lines = None

    def _of_parquet(
        self, shard: str, identity: str, first: int, samples: Sequence[Sample], names: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        # a file that has its images in itself is known by its content; of others the rows' keys are compared
        alone = any(ParquetCell.find(sample.image.uri) is not None for sample in samples)
        if alone:
            self._images.verify(shard, identity)
        filesystem, path = file_system(self._images.locate(shard))
        with filesystem.open(path, "rb") as file:
            rows = list(parquet_values(file, [*PATH_FIELDS, *KEY_FIELDS, *names], first, len(samples)))
        found = [
            row if alone else _of_sample(sample, _entry(row), row) for sample, row in zip(samples, rows, strict=False)
        ]
        return [*found, *({} for _ in samples[len(found) :])]


def _entry(row: Mapping[str, Any]) -> Entry:
    """The entry of a row of a Parquet file with paths."""
    path, key = (
        next((row[name] for name in names if row.get(name) is not None), None) for names in (PATH_FIELDS, KEY_FIELDS)
    )
    return Entry("", path, key=key)


def _of_sample(sample: Sample, entry: Entry, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of an entry if it is a sample's; the key of a sample may have a number after that of its entry."""
    named = entry.error is None and isinstance(entry.path, str) and sample.key.startswith(key_of(entry))
    return fields if named else {}
