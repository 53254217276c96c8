"""Choosing rows by a selection. It is deterministic for a seed, and stable when rows are added (see `order.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from strata.snapshots.duplicates import (
    Benchmarks,
    PictureHashes,
    RowArray,
    clusters_of,
    found_in,
    kept_of,
    same_pictures,
)
from strata.snapshots.filters import Filter
from strata.snapshots.own_files import without
from strata.snapshots.rules import BENCHMARK, ruled
from strata.snapshots.selection.axes import Axis
from strata.snapshots.selection.better import Better, better_rows
from strata.snapshots.selection.caps import Concepts, concepts_of, least_caps
from strata.snapshots.selection.clusters import Floats, Ints, Vectors
from strata.snapshots.selection.order import Keys, keys_of, order_of, row_hashes, scores_of
from strata.snapshots.selection.quotas import members_of, within_quotas
from strata.snapshots.selection.settings import Selection, SelectionError

Pictures = Callable[[pa.Table], PictureHashes]  # reads the pictures of rows (columns part and row)


@dataclass(frozen=True)
class Choice:
    """The result of a selection.

    passed: number of rows that pass the filter; indices: selected rows, in order. left_out: by rule, the number of rows
    that it is the first to leave out; clusters: the rows that show the same picture as another, if pictures were
    compared (`CLUSTER_SCHEMA`). better: what became of images that are described several times, if one row of each
    stays.
    """

    selection: Selection
    passed: int
    indices: Ints
    left_out: dict[str, int]
    clusters: pa.Table | None = None
    wanted: int = 0
    better: Better | None = None

    @property
    def axes(self) -> dict[str, Axis]:
        """The axes of its strata by their feature."""
        return {axis.feature: axis for axis in self.selection.axes}


@dataclass(frozen=True)
class Given:
    """What a selection may need besides the features of the rows.

    fingerprints: of the parts, for the better of several descriptions. excluded: keys of rows that do not pass.
    pictures: reads the pictures of rows. benchmarks: pictures whose rows are left out. embedded: the vector of each row
    and its cluster, for a diverse selection. concepts: of all rows, if they are known.
    """

    fingerprints: Sequence[str] = ()
    excluded: pa.Array | None = None
    pictures: Pictures | None = None
    benchmarks: Benchmarks | None = None
    embedded: tuple[Vectors, Ints] | None = None
    concepts: Concepts | None = None


def select(table: pa.Table, identities: Sequence[str], selection: Selection, given: Given | None = None) -> Choice:
    """Select rows of a table of `strata.snapshots.features`. identities: of the shards, by the table's column `part`.

    Raises SelectionError if fewer rows pass than are requested, and FilterError.
    """
    given = given or Given()
    excluded, benchmarks, embedded = given.excluded, given.benchmarks, given.embedded
    concepts = given.concepts or _concepts_of(table, selection)
    indices, left_out = _narrowed(table, selection, excluded)
    # from here on rows are copied: without what only said which pass, such as the texts of millions of rows
    table = table.select(sorted(selection.compared.intersection(table.column_names)))
    clusters = better = None
    if selection.better:
        kept, better = better_rows(table.take(pa.array(indices)), given.fingerprints, selection.better)
        indices = indices[kept]
    if selection.unique or benchmarks is not None:
        compared = _compared(table.take(pa.array(indices)), selection, given.pictures, benchmarks)
        left_out |= {BENCHMARK: len(compared.benchmarks)} if benchmarks is not None else {}
        indices, clusters = indices[compared.kept], compared.clusters
    if selection.cap:
        indices = _within_cap(table, indices, identities, selection, concepts)
    rows = table.take(pa.array(indices))
    selection = selection.resolved(rows)  # axes by the commonest names, on the rows that pass
    wanted = _wanted(selection, len(indices), excluded is not None or bool(left_out))
    # vectors are gigabytes, and are not copied
    of_rows = None if embedded is None else (RowArray(embedded[0]).take(indices), embedded[1][indices])
    keys = keys_of(rows, identities, selection, of_rows, concepts and concepts.take(indices))
    chosen = np.sort(indices[_first(rows, keys, selection, wanted)])  # in the table's order
    return Choice(selection, len(indices), chosen, left_out, clusters, wanted, better)


def _concepts_of(table: pa.Table, selection: Selection) -> Concepts | None:
    """The concepts of rows, if a selection asks for them."""
    return concepts_of(table, selection.concepts) if selection.names_concepts else None


def _within_cap(
    table: pa.Table, indices: Ints, identities: Sequence[str], selection: Selection, concepts: Concepts | None
) -> Ints:
    """Those of some rows that the cap of concepts keeps (`caps.py`)."""
    assert concepts is not None and selection.cap is not None
    hashes = row_hashes(table.take(pa.array(indices)), identities, selection.seed)
    return np.asarray(indices[least_caps(concepts.take(indices), hashes) < selection.cap])


def _first(rows: pa.Table, keys: Keys, selection: Selection, wanted: int) -> Ints:
    """The first rows of the order, of each source as many as its quota allows."""
    order = order_of(rows, keys, selection)
    if not selection.quotas:
        return order[:wanted]
    left = within_quotas(members_of(rows, selection.quotas), selection.quotas, order, wanted)
    # the strata are merged again, without the rows beyond a quota
    return left[order_of(rows.take(pa.array(left)), keys.take(left), selection)[:wanted]]


def _wanted(selection: Selection, passed: int, narrowed: bool) -> int:
    """The number of rows: the count, a share of the rows that pass, or all. Raises SelectionError."""
    wanted = passed if selection.share is None else round(selection.share * passed)
    wanted = selection.count if selection.count is not None else wanted
    if wanted > passed:
        what = (
            "pass" if narrowed or selection.where or selection.unique or selection.cap or selection.better else "exist"
        )
        raise SelectionError(f"{wanted} rows are requested, but only {passed} {what}")
    return wanted


def _narrowed(table: pa.Table, selection: Selection, excluded: pa.Array | None) -> tuple[Ints, dict[str, int]]:
    """The indices of the rows that are not excluded, that no rule leaves out and that the filter lets pass, in order.

    Beside them the number of rows that each rule leaves out.
    """
    indices = np.arange(table.num_rows)
    if excluded is not None:
        indices = without(table, indices, excluded)
    left_out: dict[str, int] = {}
    if selection.leave_out:
        indices, out = ruled(table, indices, selection.leave_out, selection.own)
        left_out = {name: len(rows) for name, rows in out.items()}
    if selection.where:
        indices = Filter(selection.where, selection.own).rows(table, indices).to_numpy()
    return indices, left_out


@dataclass(frozen=True)
class _Compared:
    """Rows by their pictures. kept: the indices of those that stay; benchmarks: of those that a benchmark has."""

    kept: Ints
    benchmarks: Ints
    clusters: pa.Table | None = None


def _compared(
    rows: pa.Table, selection: Selection, pictures: Pictures | None, benchmarks: Benchmarks | None
) -> _Compared:
    """Which rows stay if pictures are compared. Raises SelectionError without what reads pictures."""
    everyone, none = np.arange(rows.num_rows), np.zeros(0, np.int64)
    if selection.same is None and benchmarks is None:
        return _Compared(_first_of_each(rows.column("image")), none)
    if pictures is None:
        raise SelectionError("the selection compares pictures, and nothing was given that reads them")
    hashes, same = pictures(rows), selection.same or "near"
    found = none
    if benchmarks is not None:
        there = found_in(hashes, benchmarks.hashes, same, selection.alike, selection.bits) >= 0
        found, everyone = everyone[there], everyone[~there]
    if not selection.unique:
        return _Compared(everyone, found)
    left = rows.take(pa.array(everyone))
    groups = same_pictures(hashes.take(everyone), same, selection.alike, selection.bits)
    kept = kept_of(groups, _worth(left, selection))
    return _Compared(everyone[kept], found, clusters_of(left, groups, kept))


def _worth(rows: pa.Table, selection: Selection) -> Floats | None:
    """What each row is worth to `keep`; None: the first stays."""
    if selection.keep == "largest":
        sides = (rows.column(name).to_numpy().astype(np.float64) for name in ("width", "height"))
        return np.asarray(next(sides) * next(sides), np.float64)
    return scores_of(rows, selection) if selection.keep == "best" else None


def _first_of_each(column: pa.ChunkedArray) -> Ints:
    """The indices of the first occurrence of each value, in order."""
    codes = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.sort(np.unique(codes, return_index=True)[1])
