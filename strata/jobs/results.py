"""A job's rows, read from its parts page by page in the order of shard, chunk and row, also while the job runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pyarrow as pa

from strata.core import (
    FINAL_GROUP,
    Chunk,
    FailureNote,
    FailureRow,
    ImageReference,
    JobRequest,
    JobStatus,
    Record,
    ShardSummary,
    Status,
    source_shard,
)
from strata.errors import InvalidInput, NotFound
from strata.store import Attempts, IndexRow, Part, Source, Store, located_rows

Row = Record | FailureRow
Rejected = Literal["failed", "filtered"]  # how the rows of `/failures` ended

PAGE_SIZE = 4 * 2**20  # characters of the rows as JSON, after which a page ends
MAX_PARTS = 64  # parts that are read for one page, so that the time of a page without rows is bounded too


class BadCursor(InvalidInput, ValueError):
    """The cursor is not one that a page has returned."""

    def __init__(self) -> None:
        super().__init__("the cursor is not one that a page has returned")


class NotDescribed(NotFound):
    """An image has no record, because it has not been described yet."""


class Cursor(NamedTuple):
    """Where a page begins: the indexes of the shard in the request, the chunk in the shard, the row in the chunk."""

    shard: int = 0
    chunk: int = 0
    row: int = 0

    def encode(self) -> str:
        """The cursor as an opaque text."""
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str | None) -> Cursor:
        """The cursor of a text; None stands for the beginning. Raises BadCursor."""
        if text is None:
            return cls()
        try:
            numbers = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, RecursionError) as error:
            raise BadCursor from error
        # callers may send any text: accept three small numbers only, in the form that `encode` gives them
        valid = isinstance(numbers, list) and len(numbers) == 3 and all(type(n) is int and n >= 0 for n in numbers)
        if not valid or max(numbers) > 2**31 or cls(*numbers).encode() != text:
            raise BadCursor
        return cls(*numbers)


class _PartMissing(Exception):
    """The next part has not been written yet."""


class Found(NamedTuple):
    """One image of a job: its chunk, and where the image lies in this job's shard."""

    chunk: Chunk
    image: IndexRow | ImageReference


@dataclass(frozen=True)
class Page:
    """Rows, each of them as a line of JSON, and the cursor of the next page; None if no rows follow now or later."""

    rows: list[Row]
    lines: list[str]
    next: str | None


class Results:
    """The rows of one job: of each chunk those of the newest attempt.

    summaries: those of its indexed shards; written: which chunks belong to a job that has ended, see `JobEnd`.
    """

    def __init__(
        self,
        request: JobRequest,
        summaries: Mapping[str, ShardSummary],
        store: Store,
        status: JobStatus,
        written: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.request, self.summaries, self.store, self.status = request, summaries, store, status
        self._written = None if written is None else {identity: set(found) for identity, found in written.items()}
        self._attempts: dict[str, Attempts] = {}  # by the shard's identity

    def page(self, cursor: str | None, limit: int, rejected: Rejected | None = None) -> Page:
        """At most limit records, or the notes of failed rows and shards, or of filtered rows; about PAGE_SIZE at most.

        A part that has not been written yet ends the page, and the next page begins with it; if the job has failed or
        was cancelled, it is skipped. So a caller who follows `next` to the last page reads every row once. Raises
        BadCursor, and BrokenPart for a broken part, and for a part of a completed job that is missing.
        """
        position = Cursor.decode(cursor)
        self._check(position)
        rows: list[Row] = []
        lines: list[str] = []
        parts = size = 0
        try:
            for after, row in self._walk(position, limit, rejected):
                position = after
                if row is not None:
                    rows.append(row)
                    lines.append(f"{row.model_dump_json()}\n")
                    size += len(lines[-1])
                else:
                    parts += 1
                if len(rows) >= limit or parts >= MAX_PARTS or size >= PAGE_SIZE:
                    return Page(rows, lines, position.encode())
        except _PartMissing:
            return Page(rows, lines, position.encode())
        return Page(rows, lines, None)

    def _check(self, position: Cursor) -> None:
        """Raise BadCursor for a position behind the job's end, which no page of this job has returned."""
        # how many chunks a shard has may change with a retry, so that only the end of the job is certain
        if position > Cursor(len(self.request.shards)) or position.row > self.request.chunk_size:
            raise BadCursor

    def _walk(self, start: Cursor, limit: int, rejected: Rejected | None) -> Iterator[tuple[Cursor, Row | None]]:
        """Each row with the cursor after it, and after each part None with its cursor. Raises _PartMissing."""
        for index, shard in enumerate(self.request.shards[start.shard :], start.shard):
            # only the first shard is entered in its middle
            begin = start if index == start.shard else Cursor(index)
            # a shard without a summary is not indexed yet, or never will be if the job was cancelled
            summary = self.summaries.get(shard)
            if summary is None:
                if self.status.final:
                    continue
                raise _PartMissing
            count = summary.chunks(self.request.chunk_size)
            for number in range(begin.chunk, count):
                chunk = next(iter(self.request.chunks(summary, FINAL_GROUP, [number])))
                first = begin.row if number == begin.chunk else 0
                for row_index, record in self._rows(chunk, first, limit, rejected):
                    row = _failure(shard, record) if rejected else record
                    yield Cursor(index, number, row_index + 1), row
                yield Cursor(index, number + 1), None
            # the failure of the shard itself comes after its rows
            if rejected == Status.FAILED.value and summary.failure and begin.chunk <= count:
                yield Cursor(index + 1), FailureRow(shard=source_shard(shard), key=None, failure=summary.failure)

    def _rows(self, chunk: Chunk, first: int, limit: int, rejected: Rejected | None) -> Iterator[tuple[int, Record]]:
        """A part's rows from the index first on, at most limit, each with its index. Raises _PartMissing."""
        newest = self.newest(chunk)
        if newest is None:
            return
        # the counts in the footer tell whether the part has to be read at all
        try:
            if rejected and not self.store.read_footer(newest).counts[rejected]:
                return
            table = self.store.read_table(newest)
        except FileNotFoundError as error:
            raise Source.of(newest).broken("it is missing") from error
        statuses = table.column("status").to_pylist()
        # convert only the rows of this page to records
        indexes = [n for n, status in enumerate(statuses) if rejected in (None, status) and n >= first][:limit]
        records = self.store.to_records(table.take(pa.array(indexes, pa.int64())), Source.of(newest))
        yield from zip(indexes, (named(record, newest) for record in records), strict=True)

    def newest(self, chunk: Chunk) -> Chunk | None:
        """The chunk with the newest attempt that has a part, whichever job made it.

        None if there is none and none will be made for this job. Raises _PartMissing if the job has not ended, and
        BrokenPart if the part was there when it ended, and has been lost.
        """
        # a part that was written after a cancelled job has ended is not its result
        belongs = self._written is not None and chunk.number in self._written.get(chunk.identity, ())
        if self._written is not None and not belongs:
            return None
        # one listing for each shard and page
        if chunk.identity not in self._attempts:
            self._attempts[chunk.identity] = self.store.attempts(chunk)
        newest = self._attempts[chunk.identity].newest(chunk)
        if newest is None and not self.status.final:
            raise _PartMissing
        if newest is None and (belongs or self.status is JobStatus.COMPLETED):
            raise Source.of(chunk).broken("it is missing")
        return newest

    def parts(self) -> list[Part]:
        """The parts that exist now, of each chunk that of the newest attempt. Raises BrokenPart as `page` does."""
        found = []
        for summary in self.summaries.values():
            for chunk in self.request.chunks(summary, FINAL_GROUP) if summary.images else ():
                with suppress(_PartMissing):
                    newest = self.newest(chunk)
                    found += [Part.of_chunk(newest)] if newest is not None else []
        return sorted(set(found))

    def record(self, key: str, identity: str | None = None, uri: str | None = None) -> tuple[Record, Found] | None:
        """The record of the image with a key, and where the image lies; None if no indexed shard has the key.

        identity: of the shard, uri: of the shard or of the image, where several shards have the key; None: the first of
        them. Raises NotDescribed if the image has no record yet, and BrokenPart as `page` does.
        """
        # a shard that the URI names, or in whose folder it lies, comes first
        for shard in sorted(self.request.shards, key=lambda one: not (uri or "").startswith(source_shard(one))):
            summary = self.summaries.get(shard)
            if summary is None or not summary.images or identity not in (None, summary.identity):
                continue
            position, image = self._position(summary, key)
            if position is None:
                continue
            number, row = divmod(position, self.request.chunk_size)
            (chunk,) = self.request.chunks(summary, FINAL_GROUP, [number])
            try:
                newest = self.newest(chunk)
            except _PartMissing:
                newest = None
            if newest is None:
                raise NotDescribed(f"the image {key[:200]!r} has not been described yet")
            try:
                record = self.store.read_record(newest, row)
            except FileNotFoundError as error:
                raise Source.of(newest).broken("it is missing") from error
            if record.key == key and uri in (None, shard, source_shard(shard), record.image.uri):
                return named(record, chunk), Found(chunk, image or record.image)
        return None

    def _position(self, summary: ShardSummary, key: str) -> tuple[int | None, IndexRow | None]:
        """The position of the image with a key in a shard, None if it has none; and where the image lies, if known."""
        # an upload has one image, which is found without the index
        if self.request.kind == "image":
            return 0, None
        # the rows of a shard's index have the order of its images, of which each chunk has chunk_size
        index = self.request.index_chunk(summary.shard, summary.identity)
        try:
            table = self.store.read_index(index)[0]
        except FileNotFoundError as error:
            raise Source.of(index).broken("it is missing") from error
        keys = table.column("key").to_pylist()
        if key not in keys:
            return None, None
        position = keys.index(key)
        return position, located_rows(table.slice(position, 1), summary.shard)[0]


def named(record: Record, chunk: Chunk) -> Record:
    """The record of a job's chunk with the names of the job's profile and of its version."""
    return record.model_copy(update={"profile": chunk.profile, "fingerprint": chunk.fingerprint})


def _failure(shard: str, record: Record) -> FailureRow:
    unknown = FailureNote(stage="unknown", error_type="unknown", detail="the row has no reason")
    return FailureRow(shard=source_shard(shard), key=record.key, failure=record.failure or unknown)
