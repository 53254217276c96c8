"""Which rows people are to judge: a seeded sample, the rows that pass a filter, or those that are most doubtful."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from strata.core import Record, Status
from strata.judgments import Subject
from strata.snapshots.features import EVIDENCE_PATH, MATCH_PATHS, matches_of, read_rows, unsupported_sentences
from strata.snapshots.filters import Filter
from strata.snapshots.places import places_of
from strata.snapshots.selection import row_hashes
from strata.store import Part, Source, Store

Order = Literal["random", "doubtful"]
MAX_PARTS = 512  # whose rows are looked at for one queue; of more parts so many are drawn by the seed
DOUBT_COLUMNS = (EVIDENCE_PATH, "verification.sentences.list.element.reason", *MATCH_PATHS)


class Doubt(BaseModel):
    """Why a row is doubtful. score: 0..1, the mean of the three shares below.

    cut: the share of composed sentences that the verifier has cut or cut back; unsupported: the share of the
    description's sentences that no entry supports; lowest_match: the matcher's lowest probability of a kept entry, 1 if
    it has scored none.
    """

    score: float
    cut: float
    unsupported: float
    lowest_match: float


class QueuedRow(NamedTuple):
    """A row to be judged. part: its path from the store's root; row: its index there."""

    part: str
    row: int
    identity: str
    key: str
    doubt: Doubt


class ReviewQueue(NamedTuple):
    """Rows to be judged, in order. considered: the succeeded rows that were looked at; passed: that pass the filter.

    parts: how many there are; read: of how many the rows were looked at.
    """

    rows: list[QueuedRow]
    considered: int
    passed: int
    parts: int
    read: int


def review_queue(
    store: Store,
    parts: Sequence[Part],
    sample: int,
    seed: int = 0,
    where: str | None = None,
    order: Order = "random",
    only: pa.Table | None = None,
) -> ReviewQueue:
    """At most `sample` of the succeeded rows with a description, the same for the same parts, seed and filter.

    A row's place follows from a hash of the seed, its shard and its key, so that it stays if rows are added; in the
    order "doubtful" the most doubtful rows come first. parts: of the group `llm`. only: of which rows (columns part,
    the index in parts, and row). Raises FilterError, BrokenPart, FileNotFoundError and OSError.
    """
    chosen = Filter(where) if where else None
    paths = [part.path for part in parts]
    drawn = _drawn(paths, seed)
    if not drawn:
        return ReviewQueue([], 0, 0, len(parts), 0)
    # the rows with a text, then those that pass
    names = (chosen.names if chosen else set()) | {"description", "key"}
    table = read_rows(store, drawn, names).table
    table = table.filter(pc.not_equal(table.column("description"), ""))
    if only is not None:
        table = table.filter(_is_among(table, [paths.index(path) for path in drawn], only))
    considered = table.num_rows
    if chosen:
        table = table.take(chosen.rows(table))
    # the order, by the hash alone or after the doubt
    hashes = row_hashes(table, [Part.parse(path).identity for path in drawn], seed)
    if order == "doubtful":
        scores = _doubts_of(store, drawn, table)
        ranked = np.lexsort((hashes, -np.array([doubt.score for doubt in scores])))[:sample]
    else:
        ranked = np.argsort(hashes, kind="stable")[:sample]
        scores = []
    taken = table.take(pa.array(ranked, pa.int64()))
    doubts = [scores[index] for index in ranked] if scores else _doubts_of(store, drawn, taken)
    return ReviewQueue(_rows(taken, drawn, doubts), considered, table.num_rows, len(parts), len(drawn))


def _rows(table: pa.Table, paths: Sequence[str], doubts: Sequence[Doubt]) -> list[QueuedRow]:
    columns = (table.column(name).to_pylist() for name in ("part", "row", "key"))
    return [
        QueuedRow(paths[part], row, Part.parse(paths[part]).identity, key, doubt)
        for part, row, key, doubt in zip(*columns, doubts, strict=True)
    ]


def _drawn(paths: Sequence[str], seed: int) -> list[str]:
    """At most MAX_PARTS of the paths, drawn by the seed, in their order."""
    if len(paths) <= MAX_PARTS:
        return list(paths)
    hashed = sorted(paths, key=lambda path: hashlib.blake2b(f"{seed}/{path}".encode(), digest_size=8).digest())
    kept = set(hashed[:MAX_PARTS])
    return [path for path in paths if path in kept]


def records_of(store: Store, rows: Sequence[QueuedRow]) -> list[Record]:
    """The records of rows, in order; each part is read once. Raises FileNotFoundError and BrokenPart."""
    by_part: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_part.setdefault(row.part, []).append(place)
    records: dict[int, Record] = {}
    for path, places in by_part.items():
        indices = pa.array([rows[place].row for place in places], pa.int64())

        def read(source: Source, indices: pa.Array = indices) -> list[Record]:
            return store.to_records(store.decoded(source)[0].take(indices), source)

        found = store.first(Source(Part.parse(path), path), read)
        records |= dict(zip(places, found, strict=True))
    return [records[place] for place in range(len(rows))]


def find_rows(store: Store, parts: Sequence[Part], subjects: Iterable[Subject]) -> dict[Subject, QueuedRow]:
    """Where some records lie in parts; those that are not described in them are left out. Raises as `records_of`."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for fingerprint, identity, key in subjects:
        wanted.setdefault((fingerprint, identity), set()).add(key)
    found = {}
    for part in parts:
        keys = wanted.get((part.fingerprint, part.identity))
        if not keys:
            continue
        table = store.read_columns(part.path, ["key", "status", *DOUBT_COLUMNS])
        shown = doubts(table)
        rows = zip(table.column("key").to_pylist(), table.column("status").to_pylist(), strict=True)
        for row, (key, status) in enumerate(rows):
            if key in keys and status == Status.SUCCEEDED.value:
                subject = Subject(part.fingerprint, part.identity, key)
                found[subject] = QueuedRow(part.path, row, part.identity, key, shown[row])
    return found


def _is_among(table: pa.Table, indices: Sequence[int], only: pa.Table) -> pa.Array:
    """Which rows of a table are among some others. indices: of the table's parts in the list of the others' parts."""
    parts = np.array(indices, np.int64)[table.column("part").to_numpy()]
    return pa.array(np.isin(parts << 32 | table.column("row").to_numpy(), places_of(only)))


def _doubts_of(store: Store, paths: Sequence[str], rows: pa.Table) -> list[Doubt]:
    """The doubts of rows (columns part and row) of parts, in order."""
    places = list(zip(rows.column("part").to_pylist(), rows.column("row").to_pylist(), strict=True))
    by_part: dict[int, list[Doubt]] = {}
    found = []
    for part, row in places:
        if part not in by_part:
            by_part[part] = doubts(store.read_columns(paths[part], DOUBT_COLUMNS))
        found.append(by_part[part][row])
    return found


def doubts(table: pa.Table) -> list[Doubt]:
    """The doubt of each row of a table with DOUBT_COLUMNS."""
    table = table.combine_chunks()
    unsupported = unsupported_sentences(table)
    cut, lowest = _cut(table), _lowest_match(table)
    return [
        Doubt(score=round((a + b + 1 - c) / 3, 4), cut=round(a, 4), unsupported=round(b, 4), lowest_match=round(c, 4))
        for a, b, c in zip(cut.tolist(), unsupported.tolist(), lowest.tolist(), strict=True)
    ]


def _cut(table: pa.Table) -> np.typing.NDArray[np.float64]:
    """The share of each row's composed sentences that were cut or cut back; 0 without a verification."""
    sentences = pc.struct_field(table.column("verification").combine_chunks(), "sentences")
    rows = pc.list_parent_indices(sentences).to_numpy()
    reasons: Any = pc.struct_field(pc.list_flatten(sentences), "reason")
    cut = np.bincount(rows, pc.is_valid(reasons).to_numpy(zero_copy_only=False), table.num_rows)
    numbers = np.bincount(rows, minlength=table.num_rows)
    return np.divide(cut, numbers, out=np.zeros(table.num_rows), where=numbers > 0)


def _lowest_match(table: pa.Table) -> np.typing.NDArray[np.float64]:
    """The lowest match probability of each row's kept entries; 1 where no kept entry has one."""
    lowest = np.ones(table.num_rows)
    np.minimum.at(lowest, *matches_of(table))
    return lowest
