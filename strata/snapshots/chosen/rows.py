"""Which rows of a shard a job describes once more: those of pinned parts that a filter lets pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.core import FINAL_GROUP, PinnedParts, PinnedShard, Status
from strata.errors import BrokenStore
from strata.snapshots.features import read_rows
from strata.snapshots.filters import Filter
from strata.store import Part, Store

SLICE = 1024  # parts whose rows are in memory at a time: some ten thousand rows with the features that the filter reads
_ENDED = ("status", "failure")  # features of rows that did not succeed too


class _Pinned(NamedTuple):
    """The path of a pinned part, and which of its rows are meant; None: all."""

    path: str
    rows: np.typing.NDArray[np.bool_] | None


def chosen_numbers(
    store: Store,
    where: str | None,
    shard: PinnedShard,
    keys: pa.ChunkedArray,
    advance: Callable[[], object] = lambda: None,
) -> list[int]:
    """The numbers of the chosen rows in a shard, ascending. keys: of all rows of the shard, each once.

    A row that several pinned parts have is chosen if the filter lets one of them pass. Rows that failed or were
    filtered are chosen only by a filter that names `status` or `failure`. advance: called from time to time. Raises
    FilterError, MissingFeatures, LostJudgments, BrokenPart, BrokenStore for a part that is lost, and OSError.
    """
    passing = Filter(where) if where is not None else None
    names = passing.names if passing else set[str]()
    statuses = set(Status) if names.intersection(_ENDED) else {Status.SUCCEEDED}
    chosen = np.zeros(len(keys), np.bool_)
    for parts in _slices(shard):
        try:
            paths = [part.path for part in parts]
            table = read_rows(store, paths, names, lambda number: advance(), statuses=statuses).table
        except FileNotFoundError as error:
            raise BrokenStore(f"a part with rows that are chosen is not in the store any more: {error}") from error
        table = table.filter(_meant(table, parts))
        if passing:
            table = table.take(passing.rows(table))
        chosen |= pc.is_in(keys, value_set=table.column("key").combine_chunks()).to_numpy()
        advance()
    return [int(number) for number in np.flatnonzero(chosen)]


def _slices(shard: PinnedShard) -> Iterator[list[_Pinned]]:
    for parts in shard.parts:
        pinned = list(_each(parts))
        yield from (pinned[start : start + SLICE] for start in range(0, len(pinned), SLICE))


def _each(parts: PinnedParts) -> Iterator[_Pinned]:
    for place, (number, attempt) in enumerate(zip(parts.numbers, parts.attempts, strict=True)):
        path = Part(FINAL_GROUP, parts.fingerprint, parts.identity, number, attempt).path
        bits = None if parts.rows is None else np.frombuffer(bytes.fromhex(parts.rows[place]), np.uint8)
        yield _Pinned(path, None if bits is None else np.unpackbits(bits).astype(np.bool_))


def _meant(table: pa.Table, parts: list[_Pinned]) -> pa.Array:
    """Which rows of a table, sorted by part and row, are meant by what is pinned."""
    numbers, places = table.column("part").to_numpy(), table.column("row").to_numpy()
    meant = np.ones(table.num_rows, np.bool_)
    for number, part in enumerate(parts):
        if part.rows is not None:
            start, end = np.searchsorted(numbers, [number, number + 1])
            rows = places[start:end]
            # bits after the last chosen row are not there
            known = rows < len(part.rows)
            meant[start:end] = known & part.rows[np.where(known, rows, 0)] if len(part.rows) else False
    return pa.array(meant)
