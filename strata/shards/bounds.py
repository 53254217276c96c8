"""How much of a shard is kept: what indexes a shard has its rows and keys in memory, whatever the shard claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from strata.shards.roots import SourceError
from strata.store import IndexRow

MAX_ROWS = 2_000_000  # images of a shard
MAX_TEXT = 192 * 2**20  # bytes of the keys, URIs, texts and errors of all of them
MAX_FILES = 1_000_000  # of a folder, images and others
MAX_WITHOUT = 10_000  # rows without an image, if they are more than SHARE_WITHOUT of the rows so far
SHARE_WITHOUT = 0.9


class BoundedRows:
    """The rows of a shard up to the bounds. failure: after the iteration, why it ended early, or None.

    A Parquet file of 100 kB can have 50,000,000 rows without an image, each of which would be a row of the results.
    The iteration raises SourceError if the first MAX_WITHOUT rows and one more have none: then it is no list of images.
    """

    def __init__(self, rows: Iterable[IndexRow]) -> None:
        self._rows = rows
        self.failure: str | None = None

    def __iter__(self) -> Iterator[IndexRow]:
        text = without = 0
        for number, row in enumerate(self._rows):
            without += row.size == 0
            if without > MAX_WITHOUT and without == number + 1:
                raise SourceError(f"none of the first {number + 1:,} rows has an image that can be read: {row.error}")
            text += sum(_bytes(value) for value in (row.key, row.uri, row.alt_text, row.error) if value)
            if number >= MAX_ROWS:
                self.failure = f"more than {MAX_ROWS:,} images: make several shards of it"
            elif text > MAX_TEXT:
                self.failure = f"keys and texts of more than {MAX_TEXT:,} bytes: make several shards of it"
            elif without > MAX_WITHOUT and without > SHARE_WITHOUT * (number + 1):
                self.failure = f"{without:,} of the first {number + 1:,} rows have no image that can be read"
            if self.failure:
                return
            yield row


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
