"""Selection of rows. It is deterministic for a seed, and stable when rows are added.

All rows are sorted, and the first n are taken. Within a stratum the hash (or the score) of each row decides. The strata
are merged in proportion to their target shares, as divisor methods apportion seats (Webster/Sainte-Laguë; M. Balinski,
H. Young, "Fair Representation", 1982): added rows can only move others back, never forward, so a selection of the same
size loses at most as many old rows as it gains new ones. Apportionment by largest remainders does not have this
property (the Alabama paradox).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from strata.errors import InvalidInput
from strata.snapshots.axes import DEFAULT_AXES, Axis
from strata.snapshots.filters import Filter

Ints = np.typing.NDArray[np.int64]


class SelectionError(InvalidInput):
    """A selection that is not possible. The message gives the reason in one line."""


class Selection(BaseModel):
    """Which of the succeeded rows are selected.

    method: `random`; `balanced` over strata: the first axis divides the rows, the second divides each of its strata,
    and so on, and rows missing in a small stratum are taken from its sibling strata; `best` by the product of the
    features `evidence` and `match`. count: number of rows; share: of the rows that pass, 0..1; without both all of
    them. where: a filter (see `strata.snapshots.filters`). unique: only the first row of each image (feature `image`);
    equal bytes in two shards count as two images unless their SHA-256 is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["random", "balanced", "best"] = "random"
    count: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0, le=1)
    seed: int = 0
    where: str | None = None
    unique: bool = False
    axes: tuple[Axis, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_axes(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values if values.get("method") != "balanced" else {**values, "axes": values.get("axes") or DEFAULT_AXES}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.count is not None and self.share is not None:
            raise ValueError("a count and a share exclude each other")
        if self.axes and self.method != "balanced":
            raise ValueError("only a balanced selection has axes")
        return self

    @property
    def features(self) -> set[str]:
        """The features of rows that the selection needs."""
        names = {axis.feature for axis in self.axes} | (Filter(self.where).names if self.where else set())
        names |= {"evidence", "match"} if self.method == "best" else set()
        return names | ({"image"} if self.unique else set())

    def resolved(self, table: pa.Table) -> Self:
        """The selection with the names of its axes set, so that it has the same meaning for other rows."""
        return self.model_copy(update={"axes": tuple(axis.resolved(table.column(axis.feature)) for axis in self.axes)})


@dataclass(frozen=True)
class Choice:
    """The result of a selection. passed: number of rows that pass the filter; indices: selected rows, in order."""

    selection: Selection
    passed: int
    indices: Ints

    @property
    def axes(self) -> dict[str, Axis]:
        """The axes of its strata by their feature."""
        return {axis.feature: axis for axis in self.selection.axes}


def select(table: pa.Table, identities: Sequence[str], selection: Selection) -> Choice:
    """Select rows of a table of `strata.snapshots.features`. identities: of the shards, by the table's column `part`.

    Raises SelectionError if fewer rows pass than are requested, and FilterError.
    """
    # the filter, then one row per image
    indices = np.arange(table.num_rows)
    if selection.where:
        indices = Filter(selection.where).rows(table).to_numpy()
    if selection.unique:
        indices = indices[_first_of_each(table.column("image").take(pa.array(indices)))]
    # axes by the commonest names are resolved on the rows that pass
    rows = table.take(pa.array(indices))
    selection = selection.resolved(rows)
    # the number of rows: the count, a share of the rows that pass, or all
    passed = len(indices)
    wanted = passed if selection.share is None else round(selection.share * passed)
    wanted = selection.count if selection.count is not None else wanted
    if wanted > passed:
        what = "pass" if selection.where or selection.unique else "exist"
        raise SelectionError(f"{wanted} rows are requested, but only {passed} {what}")
    # take the first rows of the order, and return them in the table's order
    selected = _order(rows, identities, selection)[:wanted]
    return Choice(selection, passed, np.sort(indices[selected]))


def _first_of_each(column: pa.ChunkedArray) -> Ints:
    """The indices of the first occurrence of each value, in order."""
    codes = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.sort(np.unique(codes, return_index=True)[1])


def _order(rows: pa.Table, identities: Sequence[str], selection: Selection) -> Ints:
    """The indices of all rows in the order in which they are selected."""
    hashes = row_hashes(rows, identities, selection.seed)
    if selection.method == "best":
        score: np.typing.NDArray[Any] = rows.column("evidence").to_numpy() * rows.column("match").to_numpy()
        return np.lexsort((hashes, -score))
    if selection.method == "random":
        return np.argsort(hashes, kind="stable")
    return _balanced_order(rows, hashes, selection)


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
    # a row's stratum at each depth: 0 is the whole table, each axis divides the strata of the depth before
    codes = [axis.codes(rows.column(axis.feature)) for axis in selection.axes]
    strata = [np.zeros(rows.num_rows, np.int64)]
    for axis, code in zip(selection.axes, codes, strict=True):
        strata.append(strata[-1] * len(axis.labels) + code)
    # within the smallest strata the hashes decide
    order = np.lexsort((hashes, strata[-1]))
    numbers = _numbers(strata[-1], order)
    # merge sibling strata, from the smallest to the whole table; equal ranks are ordered by a hash of the stratum
    for depth in reversed(range(len(codes))):
        with np.errstate(divide="ignore"):  # a target share of 0 gives the rank infinity
            ranks = (numbers + 0.5) / selection.axes[depth].weights()[codes[depth]]
        ties = _ties(strata[depth + 1], f"{selection.seed}/{depth}")
        order = np.lexsort((numbers, ties, ranks, strata[depth]))
        numbers = _numbers(strata[depth], order)
    return order


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
