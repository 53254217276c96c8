"""Selection of rows. It is deterministic for a seed, and stable when rows are added.

All rows are sorted, and the first n are taken. Within a stratum the hash (or the score) of each row decides. The strata
are merged in proportion to their target shares, as divisor methods apportion seats (Webster/Sainte-Laguë; M. Balinski,
H. Young, "Fair Representation", 1982): added rows can only move others back, never forward, so a selection of the same
size loses at most as many old rows as it gains new ones. Apportionment by largest remainders does not have this
property (the Alabama paradox).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from strata.errors import InvalidInput
from strata.snapshots.axes import DEFAULT_AXES, Axis, Setting
from strata.snapshots.caps import within_cap
from strata.snapshots.duplicates import (
    Benchmarks,
    Keep,
    PictureHashes,
    Same,
    clusters_of,
    found_in,
    kept_of,
    same_pictures,
)
from strata.snapshots.duplicates.pictures import HASHED, MOST_DIFFERENT
from strata.snapshots.features import Kind
from strata.snapshots.filters import Filter
from strata.snapshots.own_files import without
from strata.snapshots.rules import BENCHMARK, checked_rules, names_of, ruled

Ints = np.typing.NDArray[np.int64]
Floats = np.typing.NDArray[np.float64]

Pictures = Callable[[pa.Table], PictureHashes]  # reads the pictures of rows (columns part and row)

BENCHMARKS = "without"  # the option whose file has the hashes of benchmarks' pictures
HALF_TOLD = 3  # entries of a description at which the factor for its content is 1/2


class SelectionError(InvalidInput):
    """A selection that is not possible. The message gives the reason in one line."""


class Split(Setting):
    """A part of a snapshot. of: the snapshot's id; validation: share of the pictures in the other part, 0..1."""

    of: str
    part: Literal["train", "validation"]
    validation: float
    seed: int
    same: Literal["bytes", "near"]


class Selection(Setting):
    """Which of the succeeded rows are selected.

    method: `random`; `balanced` over strata: the first axis divides the rows, the second divides each of its strata,
    and so on, and rows missing in a small stratum are taken from its sibling strata; `best` by a score of the features
    `evidence`, `match` and `told` (`scores_of`). count: number of rows; share: of the rows that pass, 0..1; without
    both all of them. where: a filter (see `strata.snapshots.filters`). unique: only the first row of each image
    (feature `image`); equal bytes in two shards count as two images unless their SHA-256 is known. score: what is
    best: "content", or "evidence" in the snapshots of earlier versions, which did not ask how much is told. cap: rows
    that each noun of the descriptions keeps (see `strata.snapshots.caps`), before rows are counted. own: the columns of
    the user's scores with their kinds, and files: the SHA-256 of the user's files by their option (`OwnFiles`). same:
    which images are one to `unique`, by their pictures (see `strata.snapshots.duplicates`): from those with equal
    bytes to those with embeddings near each other; None: by the feature `image`. split: the part of a split snapshot
    that this is. reviewed: a hash of the texts that people left of the selected rows in review; None if none was
    judged. alike: the least cosine of embeddings that are one to `same`. bits: by which hashes of
    pictures differ at most that look alike. keep: which row of one image stays: the first,
    the largest in pixels, or the best by `scores_of`. leave_out: names and filters of rows that are left out and
    counted (see `strata.snapshots.rules`). ways: how the stages of the group `features` have computed what is read, by
    stage.
    """

    LATER: ClassVar = {
        **{"score": (None, "evidence"), "cap": (None,), "own": ({},), "files": ((),)},
        **{"same": (None,), "split": (None,), "reviewed": (None,)},
        **{"alike": (None,), "bits": (MOST_DIFFERENT,), "keep": ("first",), "leave_out": ((),), "ways": ({},)},
    }

    method: Literal["random", "balanced", "best"] = "random"
    count: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0, le=1)
    seed: int = 0
    where: str | None = None
    unique: bool = False
    axes: tuple[Axis, ...] = ()
    score: Literal["content", "evidence"] | None = None
    cap: int | None = Field(default=None, ge=1)
    own: dict[str, Kind] = Field(default_factory=dict)
    files: tuple[tuple[str, str], ...] = ()
    same: Same | None = None
    split: Split | None = None
    reviewed: str | None = None
    alike: float | None = Field(default=None, gt=0, le=1)
    bits: int = Field(default=MOST_DIFFERENT, ge=0, le=96)
    keep: Keep = "first"
    leave_out: tuple[tuple[str, str], ...] = ()
    ways: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("method") == "balanced":
            return {**values, "axes": values.get("axes") or DEFAULT_AXES}
        return {"score": "content", **values} if values.get("method") == "best" else values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.count is not None and self.share is not None:
            raise ValueError("a count and a share exclude each other")
        if self.axes and self.method != "balanced":
            raise ValueError("only a balanced selection has axes")
        compares = self.unique or BENCHMARKS in dict(self.files)
        if self.same and not compares:
            raise ValueError("only a selection of each image once, or without those of a file, compares pictures")
        if (self.alike is None) != (self.same != "embedding"):
            raise ValueError("embeddings are compared with the least cosine, and nothing else is")
        if self.bits != MOST_DIFFERENT and self.same not in HASHED:
            raise ValueError("only a comparison of pictures that look alike counts bits")
        if self.keep != "first" and not self.unique:
            raise ValueError("only a selection of each image once has a row that stays")
        checked_rules(dict(self.leave_out))
        if self.score and self.method != "best":
            raise ValueError("only a selection of the best has a score")
        return self

    @property
    def features(self) -> set[str]:
        """The features of rows that the selection needs."""
        names = {axis.feature for axis in self.axes} | (Filter(self.where, self.own).names if self.where else set())
        names |= names_of(self.leave_out, self.own) | ({"description"} if self.cap else set())
        names |= {"evidence", "match", "told"} if "best" in (self.method, self.keep) else set()
        names |= {"width", "height"} if self.keep == "largest" else set()
        return names | ({"image"} if self.unique else set())

    def resolved(self, table: pa.Table) -> Self:
        """The selection with the names of its axes set, so that it has the same meaning for other rows."""
        return self.model_copy(update={"axes": tuple(axis.resolved(table.column(axis.feature)) for axis in self.axes)})


@dataclass(frozen=True)
class Choice:
    """The result of a selection.

    passed: number of rows that pass the filter; indices: selected rows, in order. left_out: by rule, the number of rows
    that it is the first to leave out; clusters: the rows that show the same picture as another, if pictures were
    compared (`CLUSTER_SCHEMA`).
    """

    selection: Selection
    passed: int
    indices: Ints
    left_out: dict[str, int]
    clusters: pa.Table | None = None

    @property
    def axes(self) -> dict[str, Axis]:
        """The axes of its strata by their feature."""
        return {axis.feature: axis for axis in self.selection.axes}


def select(
    table: pa.Table,
    identities: Sequence[str],
    selection: Selection,
    excluded: pa.Array | None = None,
    pictures: Pictures | None = None,
    benchmarks: Benchmarks | None = None,
) -> Choice:
    """Select rows of a table of `strata.snapshots.features`. identities: of the shards, by the table's column `part`.

    excluded: keys of rows that do not pass. pictures: reads the pictures of rows. benchmarks: pictures whose rows are
    left out. Raises SelectionError if fewer rows pass than are requested, and FilterError.
    """
    indices, left_out = _narrowed(table, selection, excluded)
    clusters = None
    if selection.unique or benchmarks is not None:
        rows = table.take(pa.array(indices))
        compared = _compared(rows, selection, pictures, benchmarks)
        left_out |= {BENCHMARK: len(compared.benchmarks)} if benchmarks is not None else {}
        indices, clusters = indices[compared.kept], compared.clusters
    if selection.cap:
        rows = table.take(pa.array(indices))
        hashes = row_hashes(rows, identities, selection.seed)
        indices = indices[within_cap(rows.column("description"), hashes, selection.cap)]
    # axes by the commonest names are resolved on the rows that pass
    rows = table.take(pa.array(indices))
    selection = selection.resolved(rows)
    wanted = _wanted(selection, len(indices), excluded is not None or bool(left_out))
    # take the first rows of the order, and return them in the table's order
    selected = _order(rows, identities, selection)[:wanted]
    return Choice(selection, len(indices), np.sort(indices[selected]), left_out, clusters)


def _wanted(selection: Selection, passed: int, narrowed: bool) -> int:
    """The number of rows: the count, a share of the rows that pass, or all. Raises SelectionError."""
    wanted = passed if selection.share is None else round(selection.share * passed)
    wanted = selection.count if selection.count is not None else wanted
    if wanted > passed:
        what = "pass" if narrowed or selection.where or selection.unique or selection.cap else "exist"
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
        left, out = ruled(table.take(pa.array(indices)), selection.leave_out, selection.own)
        indices, left_out = indices[left], {name: len(rows) for name, rows in out.items()}
    if selection.where:
        indices = indices[Filter(selection.where, selection.own).rows(table.take(pa.array(indices))).to_numpy()]
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


def _order(rows: pa.Table, identities: Sequence[str], selection: Selection) -> Ints:
    """The indices of all rows in the order in which they are selected."""
    hashes = row_hashes(rows, identities, selection.seed)
    if selection.method == "best":
        return np.lexsort((hashes, -scores_of(rows, selection)))
    if selection.method == "random":
        return np.argsort(hashes, kind="stable")
    return _balanced_order(rows, hashes, selection)


def scores_of(rows: pa.Table, selection: Selection) -> Floats:
    """The score of each row for the selection of the best, 0..1: evidence × match × told / (told + HALF_TOLD).

    evidence: the share of sentences that rest on an entry; match: the mean probability of the kept entries; told: the
    entries that the description tells. The last factor rewards content and saturates: the first things that a
    description tells count most, and no length makes up for what is not right.
    """
    score: Floats = rows.column("evidence").to_numpy() * rows.column("match").to_numpy()
    if selection.score == "evidence":
        return score
    told = rows.column("told").to_numpy()
    return np.asarray(score * told / (told + HALF_TOLD), np.float64)


def row_hashes(rows: pa.Table, identities: Sequence[str], seed: int) -> np.typing.NDArray[np.uint64]:
    """A 64-bit hash of each row: of the seed, its shard's identity and its key, but not of its position."""
    # hash the common prefix once per shard
    heads = [hashlib.blake2b(f"{seed}/{identity}/".encode(), digest_size=8) for identity in identities]
    digests = bytearray()
    for part, key in zip(rows.column("part").to_pylist(), rows.column("key").to_pylist(), strict=True):
        hashed = heads[part].copy()
        hashed.update(key.encode())
        digests += hashed.digest()
    return np.frombuffer(bytes(digests), np.uint64)


def _balanced_order(rows: pa.Table, hashes: np.typing.NDArray[np.uint64], selection: Selection) -> Ints:
    """The indices of all rows, merged stratum by stratum from the last axis to the first.

    Row k of its stratum (from 0) gets the rank (k + 1/2) / weight among the rows of the sibling strata (Webster's
    divisors).
    """
    levels = _levels(rows, selection)
    # within the smallest strata the hashes decide
    order = np.lexsort((hashes, levels[-1].strata))
    numbers = _numbers(levels[-1].strata, order)
    # merge sibling strata, from the smallest to the whole table; equal ranks are ordered by a hash of the stratum
    parents = [np.zeros(rows.num_rows, np.int64), *(level.strata for level in levels[:-1])]
    for depth in reversed(range(len(levels))):
        with np.errstate(divide="ignore", invalid="ignore"):  # a target share of 0 gives the rank infinity
            ranks = (numbers + 0.5) / levels[depth].weights
        ties = _ties(levels[depth].strata, f"{selection.seed}/{depth}")
        order = np.lexsort((numbers, ties, ranks, parents[depth]))
        numbers = _numbers(parents[depth], order)
    return order


@dataclass(frozen=True)
class _Level:
    """A division of the strata of the level before. strata: of each row; weights: the target share of its stratum."""

    strata: Ints
    weights: Floats


def _levels(rows: pa.Table, selection: Selection) -> list[_Level]:
    """The strata at each level; the first level divides the whole table.

    An axis has one level, or two if it has held labels: the first divides these from all others, so that a held label
    gets no more when one of the others runs out of rows.
    """
    levels: list[_Level] = []
    strata = np.zeros(rows.num_rows, np.int64)
    for axis in selection.axes:
        codes, weights = axis.codes(rows.column(axis.feature)), axis.weights()
        if axis.held:
            held = np.isin(codes, [axis.labels.index(label) for label in axis.held])
            rest = max(0.0, 1 - sum(axis.shares.get(label, 0.0) for label in axis.held))
            strata = strata * (len(weights) + 1) + np.where(held, codes + 1, 0)
            levels.append(_Level(strata, np.where(held, weights[codes], rest)))
        strata = strata * len(weights) + codes
        levels.append(_Level(strata, weights[codes]))
    return levels


def _numbers(strata: Ints, order: Ints) -> Ints:
    """The number of each row in its stratum, from 0, by an order that is sorted by stratum."""
    # the start and length of each stratum in the order
    sorted_strata = strata[order]
    starts = np.flatnonzero(np.diff(sorted_strata, prepend=-1))
    lengths = np.diff(starts, append=len(order))
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return numbers


def _ties(strata: Ints, seed: str) -> np.typing.NDArray[np.uint64]:
    """A hash of each row's stratum. It decides between strata with equal ranks, in the same way in every run."""
    found, indices = np.unique(strata, return_inverse=True)
    digests = b"".join(hashlib.blake2b(f"{seed}/{stratum}".encode(), digest_size=8).digest() for stratum in found)
    return np.asarray(np.frombuffer(digests, np.uint64)[indices])
