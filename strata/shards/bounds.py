"""How much of a shard is kept: what indexes a shard has its rows and keys in memory, whatever the shard claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from strata.store import IndexRow

MAX_ROWS = 2_000_000  # images of a shard
MAX_TEXT = 192 * 2**20  # bytes of the keys, URIs, texts and errors of all of them
MAX_FILES = 1_000_000  # of a folder, images and others


class BoundedRows:
    """The rows of a shard up to the bounds. failure: after the iteration, why it ended early, or None."""

    def __init__(self, rows: Iterable[IndexRow]) -> None:
        self._rows = rows
        self.failure: str | None = None

    def __iter__(self) -> Iterator[IndexRow]:
        text = 0
        for number, row in enumerate(self._rows):
            text += sum(_bytes(value) for value in (row.key, row.uri, row.alt_text, row.error) if value)
            if number >= MAX_ROWS:
                self.failure = f"more than {MAX_ROWS:,} images: make several shards of it"
            elif text > MAX_TEXT:
                self.failure = f"keys and texts of more than {MAX_TEXT:,} bytes: make several shards of it"
            if self.failure:
                return
            yield row


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
