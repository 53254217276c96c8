"""Micro-batches: reading, decoding and computing some rows of chunks, and whose fault it is if that fails.

A stage tells its own faults from those of its items (`models.base`). Here the rest is judged: the decoder and the code
between the stages. If a micro-batch fails there, its rows are computed one by one. A row that fails alone is at fault
only if others are computed, or else the probe. If not, no row fails: MachineFault, and the chunk steps aside.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from models.base import StageBroken, StageNotLoaded, StageUnavailable, StageUnfit, WeightsMissing
from models.deadlines import DEADLINES, Activity, Flight
from models.faults import ends_process, is_out_of_memory, reason_of, text_of
from models.items import PROBE_IMAGE, PROBE_RECORD, work_of
from models.observed import watched
from strata.core import ProfileError, Record
from strata.errors import QueueUnavailable, StrataError
from strata.images import pixels_of
from workers.claims import Claims
from workers.groups import Group
from workers.isolation import Flying
from workers.items import LayersSoFar, WorkItem
from workers.prepared import PIECE_BYTES, PreparedChunk, read_images
from workers.retry import WorkInterrupted

log = logging.getLogger(__name__)

Row = tuple[PreparedChunk, int]  # a chunk, and the number of a row in it
# what a group raises on purpose, and the runner handles: no image is at fault
OF_STAGES = (StageUnavailable, StageUnfit, StageNotLoaded, StageBroken, WeightsMissing, ProfileError)

# Decoded pixels take 4 bytes each. Those of the micro-batch that is computed and of the next one, which is decoded
# meanwhile, take at most 200 MB; more only if one image alone has more. The stages need up to 15 bytes more for each
# pixel of the micro-batch that is computed: 4 photographs of 12 megapixels took 870 MiB.
PIXELS_TOGETHER, PIXELS_IN_HAND = 25_000_000, 50_000_000


class MicroBatch(NamedTuple):
    """Rows that are computed together, and how many pixels their images have."""

    rows: Sequence[Row]
    pixels: int = 0

    def fits_beside(self, other: MicroBatch) -> bool:
        """Whether the pixels of both may be in memory at a time."""
        return self.pixels + other.pixels <= PIXELS_IN_HAND


def micro_batches(rows: Sequence[Row], size: int, most: int | None = None) -> Iterator[MicroBatch]:
    """Rows in micro-batches of at most `size` rows and, unless it is one row, PIXELS_TOGETHER.

    most: pixels of an image above which it is shrunk where it is decoded.
    """
    batch: list[Row] = []
    total = 0
    for row in rows:
        data = _item(row).data
        pixels = 0 if data is None else pixels_of(data)
        if most is not None and pixels > most:
            pixels //= math.ceil(math.sqrt(pixels / most)) ** 2
        if batch and (len(batch) == size or total + pixels > PIXELS_TOGETHER):
            yield MicroBatch(batch, total)
            batch, total = [], 0
        batch.append(row)
        total += pixels
    if batch:
        yield MicroBatch(batch, total)


class Piece(NamedTuple):
    """Rows whose images are read together. size: the bytes of those that are not read yet."""

    rows: list[Row]
    size: int = 0

    @property
    def is_large(self) -> bool:
        """Whether it is one image that is larger than a piece may be."""
        return self.size > PIECE_BYTES


def pieces_of(rows: Sequence[Row]) -> Iterator[Piece]:
    """Rows in pieces: first those that are read, then others with at most PIECE_BYTES, unless one image has more."""
    piece, total = list[Row](), 0
    for chunk, row in rows:
        size = chunk.items[row].record.image.size if row in chunk.unread else 0
        if piece and size and not 0 < total <= PIECE_BYTES - size:
            yield Piece(piece, total)
            piece, total = [], 0
        piece.append((chunk, row))
        total += size
    if piece:
        yield Piece(piece, total)


class MachineFault(StrataError):
    """A part of the work outside of the stages fails here on every image: none is at fault, and the chunk waits.

    stage: what fails, such as "decode", or the name of the group.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


class _Unexpected(Exception):
    """An error outside of the stages that may be an image's fault. part: what raised it; the cause is the error."""

    def __init__(self, part: str, error: Exception) -> None:
        super().__init__(reason_of(error))
        self.part, self.error_type, self.detail = part, type(error).__name__, text_of(error)


class MicroBatches:
    """Decodes and computes rows of one group's chunks. in_flight: the rows that are computed now."""

    def __init__(self, group: Group, claims: Claims) -> None:
        self.group, self.claims = group, claims
        self.in_flight: Sequence[Row] = ()

    def read(self, rows: Sequence[Row]) -> None:
        """Read the images that are not read yet, in any thread. Raises MachineFault and WorkInterrupted."""
        for chunk in {id(chunk): chunk for chunk, _ in rows}.values():
            unread = [row for other, row in rows if other is chunk and row in chunk.unread]
            with using_storage("images cannot be read"):
                read_images(self.group, self.claims, chunk.claim, chunk.items, unread)
            chunk.unread.difference_update(unread)

    def decode(self, rows: Sequence[Row]) -> None:
        """Decode rows, in any thread. If that fails for an unexpected reason, they stay as they are."""
        try:
            self._decode(rows)
        except Exception as error:
            # `compute` decodes each once more, alone, and finds out what is at fault
            log.warning("%d rows of group %s are not decoded: %s", len(rows), self.group.name, reason_of(error))

    def compute(self, rows: Sequence[Row]) -> None:
        """Compute and settle rows that were decoded. Raises OF_STAGES, MachineFault and WorkInterrupted."""
        rows = [row for row in rows if not _item(row).settled]
        doubtful = [row for row in rows if _is_undecoded(_item(row))]
        decoded = [row for row in rows if not _is_undecoded(_item(row))]
        try:
            self._compute_together(decoded)
        except StageBroken as broken:
            # one of several images does not fit in memory: nobody knows which
            if not broken.memory or len(decoded) == 1:
                raise
            self._land(decoded)
            doubtful += decoded
        except _Unexpected as error:
            log.exception("%s: a micro-batch failed outside of the stages: %s", self.group.name, error)
            doubtful += decoded
        if doubtful:
            self._compute_each(doubtful, works=any(_item(row).settled for row in decoded))

    def _decode(self, rows: Sequence[Row]) -> None:
        rows = [row for row in rows if _is_undecoded(_item(row))]
        if not rows:
            return
        # the pool that decodes has limits of its own, which are shorter
        seconds, about, accused = DEADLINES.limits.storage, _item(rows[0]).record.key, pickle.dumps(_flights(rows))
        with DEADLINES.watch(Activity(self.group.name, "decode", seconds, about, claims=accused)):
            items = self.group.decode([_item(row) for row in rows])
        for (chunk, row), item in zip(rows, items, strict=True):
            chunk.items[row] = item

    def _compute_together(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        with self._flying(rows), self._watched(rows):
            records = self._records(rows[0][0], [_item(row) for row in rows])
        # settle the rows without their pixels, which nothing needs any more
        for (chunk, row), record in zip(rows, records, strict=True):
            chunk.items[row] = WorkItem(record, settled=True)

    @contextmanager
    def _watched(self, rows: Sequence[Row]) -> Iterator[None]:
        """Publish the layers of single images while they are computed, for people who watch; of shards none."""
        store = self.claims.store
        chunks: dict[tuple[str, str | None], list[str]] = {}
        for row in rows:
            claim, record = row[0].claim, _item(row).record
            if claim.priority == "hi" and store.is_upload(claim.chunk.shard):
                chunks.setdefault((record.key, record.alt_text), []).append(claim.chunk.id)
        if not chunks:
            yield
            return
        told = LayersSoFar()

        def watch(records: Sequence[Record]) -> None:
            changed: dict[str, dict[str, str]] = {}
            for one in records:
                news = told.changed(one)
                changed |= {chunk: news for chunk in chunks.get((one.key, one.alt_text), ()) if news}
            self.claims.show_layers(changed)

        watch([_item(row).record for row in rows])
        with watched(watch):
            yield

    @contextmanager
    def _flying(self, rows: Sequence[Row]) -> Iterator[None]:
        """Keep rows in `in_flight` while they are computed, and for ever if the process is broken."""
        self._set_in_flight([*self.in_flight, *rows])
        try:
            yield
        except StageBroken:
            raise
        except BaseException:
            self._land(rows)
            raise
        self._land(rows)

    def _land(self, rows: Sequence[Row]) -> None:
        # two chunks are compared by their identity, because they may have equal content
        landed = {(id(chunk), row) for chunk, row in rows}
        self._set_in_flight([(chunk, row) for chunk, row in self.in_flight if (id(chunk), row) not in landed])

    def _set_in_flight(self, rows: Sequence[Row]) -> None:
        """Set `in_flight`, and tell the watchdog."""
        self.in_flight = rows
        keys = tuple(_item(row).record.key for row in rows)
        DEADLINES.fly(self.group.name, Flight(keys, pickle.dumps(_flights(rows))) if rows else None)

    def _records(self, chunk: PreparedChunk, items: Sequence[WorkItem]) -> list[Record]:
        seconds = DEADLINES.limits.first + sum(map(work_of, items))
        between = Activity(self.group.name, "the code between the stages", seconds, between=True)
        with _judged(self.group.name), DEADLINES.watch(between):
            records = self.group.compute(chunk.claim.chunk, items)
            if len(records) != len(items):
                raise RuntimeError(f"{len(records)} records for {len(items)} images")
        return records

    def _compute_each(self, rows: Sequence[Row], works: bool) -> None:
        """Compute rows one by one, to find those at fault. works: whether other rows of the micro-batch succeeded."""
        failed: list[tuple[Row, _Unexpected]] = []
        for row in rows:
            try:
                self._compute_alone(row)
                works = True
            except _Unexpected as error:
                failed.append((row, error))
        # nothing succeeded: find out whether anything does
        if failed and not works:
            self._compute_probe(*failed[-1])
        # once more, now that others succeed: the error may have been chance, or the machine's
        for chunk, number in (row for row, _ in failed):
            try:
                self._compute_alone((chunk, number))
            except _Unexpected as own:
                record = chunk.items[number].record.failed(own.part, own.error_type, own.detail)
                chunk.items[number] = WorkItem(record, settled=True)
        # their stages may have asked servers whose answers are lost
        for chunk in {id(chunk): chunk for chunk, _ in rows}.values():
            chunk.account.lost()

    def _compute_alone(self, row: Row) -> None:
        chunk, number = row
        if _is_undecoded(chunk.items[number]):
            with self._flying([row]), _judged("decode"):
                self._decode([row])
        if not chunk.items[number].settled:
            self._compute_together([row])

    def _compute_probe(self, row: Row, error: _Unexpected) -> None:
        """Raise MachineFault with the row's error unless an image that is known to be good can be computed."""
        chunk = row[0]
        try:
            with _judged(self.group.name):
                (item,) = self.group.decode([WorkItem(PROBE_RECORD, data=_probe_bytes())])
            if item.settled:
                raise MachineFault(error.part, str(error))
            self._records(chunk, [item])
        except _Unexpected as probe_error:
            raise MachineFault(error.part, f"{error}; a test image fails too: {probe_error}") from error


@contextmanager
def using_storage(failure: str) -> Iterator[None]:
    """Raise an unexpected error of code that reads or writes as MachineFault, which says `failure`."""
    try:
        yield
    except (WorkInterrupted, QueueUnavailable):
        raise
    except Exception as error:
        raise MachineFault("store", f"{failure}: {reason_of(error)}") from error


@contextmanager
def _judged(part: str) -> Iterator[None]:
    """Raise an unexpected error as _Unexpected, or as StageBroken if it ends the process or memory lacks."""
    try:
        yield
    except OF_STAGES:
        raise
    except BaseException as error:
        if is_out_of_memory(error):
            raise StageBroken(part, reason_of(error), memory=True) from error
        if ends_process(error) or not isinstance(error, Exception):
            raise StageBroken(part, reason_of(error)) from error
        raise _Unexpected(part, error) from error


def _item(row: Row) -> WorkItem:
    return row[0].items[row[1]]


def _flights(rows: Sequence[Row]) -> list[Flying]:
    """Rows that are in flight, by their chunks."""
    of_chunk: dict[int, tuple[PreparedChunk, list[int]]] = {}
    for chunk, row in rows:
        of_chunk.setdefault(id(chunk), (chunk, []))[1].append(row)
    return [chunk.isolation.flying(own) for chunk, own in of_chunk.values()]


def _is_undecoded(item: WorkItem) -> bool:
    return not item.settled and item.data is not None and item.image is None


@functools.cache
def _probe_bytes() -> bytes:
    buffer = io.BytesIO()
    PROBE_IMAGE.save(buffer, "PNG")
    return buffer.getvalue()
