"""A job's rows read back from its parts: in order of shard, chunk and row, page by page, while it runs too."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pyarrow as pa

from strata.core.chunks import Chunk
from strata.core.errors import InvalidInput
from strata.core.profiles import FINAL_GROUP
from strata.core.records import FailureNote, Record, Status, table_to_records
from strata.core.requests import JobRequest, ShardSummary
from strata.core.schemas import FailureRow
from strata.store.store import Store

Row = Record | FailureRow
Rejected = Literal["failed", "filtered"]  # how the rows of `/failures` ended

MAX_PARTS = 64  # parts looked at for one page, so that a page without rows costs a bounded time too


class BadCursor(InvalidInput, ValueError):
    """A cursor that no page gave."""


class Cursor(NamedTuple):
    """Where the next page begins: places of the shard in the request, of the chunk in it, of the row in that."""

    shard: int = 0
    chunk: int = 0
    row: int = 0

    def encode(self) -> str:
        """As text that callers hand back and need not understand."""
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str | None) -> Cursor:
        """The cursor of a text; None is the beginning. Raises BadCursor."""
        if text is None:
            return cls()
        try:
            numbers = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, RecursionError) as error:
            raise BadCursor("the cursor is none that a page gave") from error
        whole = isinstance(numbers, list) and len(numbers) == 3 and all(type(n) is int and n >= 0 for n in numbers)
        if not whole or max(numbers) > 2**31:
            raise BadCursor("the cursor is none that a page gave")
        return cls(*numbers)


class _NotYet(Exception):
    """The part that comes next is still to be written."""


@dataclass(frozen=True)
class Page:
    """Rows, and the cursor to go on from: null when there is nothing after them and never will be."""

    rows: list[Row]
    next: str | None


class Results:
    """The rows of one job. summaries: its indexed shards; final: whether nothing more will be written."""

    def __init__(self, request: JobRequest, summaries: Mapping[str, ShardSummary], store: Store, final: bool) -> None:
        self.request, self.summaries, self.store, self.final = request, summaries, store, final

    def page(self, cursor: str | None, limit: int, rejected: Rejected | None = None) -> Page:
        """At most limit records; or the notes of failed rows and shards, or of filtered rows. Raises BadCursor.

        A part that is not there yet ends the page, and its cursor leads there again; of a final job it is passed
        over. So whoever follows `next` to its end has read every row once.
        """
        at = Cursor.decode(cursor)
        rows: list[Row] = []
        parts = 0
        try:
            for after, row in self._walk(at, limit, rejected):
                at = after
                if row is not None:
                    rows.append(row)
                else:
                    parts += 1
                if len(rows) >= limit or parts >= MAX_PARTS:
                    return Page(rows, at.encode())
        except _NotYet:
            return Page(rows, at.encode())
        return Page(rows, None)

    def _walk(self, start: Cursor, limit: int, rejected: Rejected | None) -> Iterator[tuple[Cursor, Row | None]]:
        """Rows, each with the cursor after it, and None after each part. Raises _NotYet."""
        for place, shard in enumerate(self.request.shards[start.shard :], start.shard):
            at = start if place == start.shard else Cursor(place)
            summary = self.summaries.get(shard)
            if summary is None:
                if self.final:
                    continue
                raise _NotYet
            count = summary.chunks(self.request.chunk_size)
            for number in range(at.chunk, count):
                chunk = next(iter(self.request.chunks(summary, FINAL_GROUP, [number])))
                first = at.row if number == at.chunk else 0
                for index, record in self._rows(chunk, first, limit, rejected):
                    row = _failure(shard, record) if rejected else record
                    yield Cursor(place, number, index + 1), row
                yield Cursor(place, number + 1), None
            if rejected == Status.FAILED.value and summary.failure and at.chunk <= count:
                yield Cursor(place + 1), FailureRow(shard=shard, key=None, failure=summary.failure)

    def _rows(self, chunk: Chunk, first: int, limit: int, rejected: Rejected | None) -> Iterator[tuple[int, Record]]:
        """A part's rows from first on, at most limit, each with its place. Raises _NotYet."""
        try:
            if rejected and not self.store.read_counts(chunk)[rejected]:
                return
            table = self.store.read_table(chunk)
        except FileNotFoundError:
            if self.final:
                return
            raise _NotYet from None
        statuses = table.column("status").to_pylist()
        wanted = [n for n, status in enumerate(statuses) if rejected in (None, status)]
        places = [n for n in wanted if n >= first][:limit]
        yield from zip(places, table_to_records(table.take(pa.array(places, pa.int64()))), strict=True)

    def find(self, key: str) -> tuple[Chunk, int] | None:
        """The chunk that holds a key's image, and its row there; None if no indexed shard has the key."""
        for shard in self.request.shards:
            summary = self.summaries.get(shard)
            if summary is None or not summary.images:
                continue
            index = Chunk("index", self.request.profile, self.request.fingerprints["index"], shard, summary.identity)
            keys = self.store.read_index(index)[0].column("key").to_pylist()
            if key in keys:
                number, row = divmod(keys.index(key), self.request.chunk_size)
                return next(iter(self.request.chunks(summary, FINAL_GROUP, [number]))), row
        return None


def _failure(shard: str, record: Record) -> FailureRow:
    unknown = FailureNote(stage="unknown", error_type="unknown", detail="the row keeps no reason")
    return FailureRow(shard=shard, key=record.key, failure=record.failure or unknown)
