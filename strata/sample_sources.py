"""What samples are read from: a table of images lying in shards and files, however it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from strata.sample_tables import SampleRow, SampleTable
from strata.sources import SourceError, read_images, verify_unchanged


class SampleError(ValueError):
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

    def explain(self, number: int, reason: str) -> SampleError:
        """The error of a sample whose image is none."""


@dataclass
class TableSource:
    """The samples of a table, their images read by offset from tars and files."""

    identity: str
    table: SampleTable

    def __post_init__(self) -> None:
        self._verified: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self.table)

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """The samples of some numbers, in their order; a shard is looked at before its first image is read.

        Raises SampleError where a shard has vanished, changed, or cannot be read.
        """
        rows = self.table.rows(numbers)
        for uri, identity in {(row.uri, row.identity) for row in rows if row.identity}:
            if (uri, identity) not in self._verified:
                _verify(uri, identity)
                self._verified.add((uri, identity))
        order = sorted(range(len(rows)), key=lambda place: (rows[place].uri, rows[place].offset))
        images = dict(zip(order, read_images([rows[place] for place in order]), strict=True))
        return [RawSample(row.key, _bytes(row, images[place]), row.turns) for place, row in enumerate(rows)]

    def explain(self, number: int, reason: str) -> SampleError:
        """The error of a sample whose image is none: that its shard has changed, if it has."""
        (row,) = self.table.rows([number])
        try:
            if row.identity:
                _verify(row.uri, row.identity)
        except SampleError as error:
            return error
        return SampleError(f"{row.uri}, image {row.key}: {reason}")


def _verify(uri: str, identity: str) -> None:
    try:
        verify_unchanged(uri, identity)
    except (SourceError, OSError) as error:
        raise SampleError(str(error)) from None


def _bytes(row: SampleRow, image: bytes | Exception) -> bytes:
    if isinstance(image, bytes):
        return image
    reason = "it is not there any more" if isinstance(image, FileNotFoundError) else str(image)
    raise SampleError(f"{row.uri}, image {row.key}: {reason}")
