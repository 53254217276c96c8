"""Selection of rows: deterministic for a seed, and stable when rows are added.

All rows are brought into one order and the first n are taken. A row's rank among the rows of its stratum is decided by
its own hash (or score). Strata take turns in proportion to their target shares, as divisor methods hand out seats
(Webster/Sainte-Laguë; M. Balinski, H. Young, "Fair Representation", 1982): rows that are added can only push others
back, never pull one forward, so that of the old rows only as many go as new ones come. Largest remainders lack that
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
    """A selection that cannot be made; the message is one line with the reason."""


class Selection(BaseModel):
    """Which rows are taken of those that succeeded.

    method: `random`; `balanced` over the strata along `axes`, the first axis divided first, each of its strata by the
    next, and so on, so that what a small stratum lacks goes to its neighbours; `best` by the product of the features
    `evidence` and `match`. count: rows; share: of the rows that pass; neither: all of them. where: a filter (see
    `strata.snapshots.filters`). unique: of the rows of one image (the feature `image`) only the first; equal bytes in
    two shards count as two images, since they are not compared.
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
        """The features that it needs of rows."""
        names = {axis.feature for axis in self.axes} | (Filter(self.where).names if self.where else set())
        names |= {"evidence", "match"} if self.method == "best" else set()
        return names | ({"image"} if self.unique else set())

    def resolved(self, table: pa.Table) -> Self:
        """The selection with the names of its axes known, so that it means the same of other rows."""
        return self.model_copy(update={"axes": tuple(axis.resolved(table.column(axis.feature)) for axis in self.axes)})


@dataclass(frozen=True)
class Choice:
    """What a selection took: how many rows passed its filter, and the indices of the rows taken, in order."""

    selection: Selection
    passed: int
    indices: Ints

    @property
    def axes(self) -> dict[str, Axis]:
        """The axes of its strata by their feature."""
        return {axis.feature: axis for axis in self.selection.axes}


def select(table: pa.Table, identities: Sequence[str], selection: Selection) -> Choice:
    """Take rows of a table of `strata.snapshots.features` whose `part` points into identities, the shards' identities.

    Raises SelectionError where fewer rows pass than are asked for, and FilterError.
    """
    # which rows pass the filter, and which of them are the first of their image
    indices = np.arange(table.num_rows)
    if selection.where:
        indices = Filter(selection.where).rows(table).to_numpy()
    if selection.unique:
        indices = indices[_first_of_each(table.column("image").take(pa.array(indices)))]
    rows = table.take(pa.array(indices))
    selection = selection.resolved(rows)
    # how many are wanted, and the first of them in the order of the selection
    passed = len(indices)
    wanted = passed if selection.share is None else round(selection.share * passed)
    wanted = selection.count if selection.count is not None else wanted
    if wanted > passed:
        what = "pass" if selection.where or selection.unique else "there are"
        raise SelectionError(f"{wanted} rows are asked for, and only {passed} {what}")
    taken = _order(rows, identities, selection)[:wanted]
    return Choice(selection, passed, np.sort(indices[taken]))


def _first_of_each(column: pa.ChunkedArray) -> Ints:
    codes = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.sort(np.unique(codes, return_index=True)[1])


def _order(rows: pa.Table, identities: Sequence[str], selection: Selection) -> Ints:
    """The indices of all rows, in the order in which they are taken."""
    hashes = row_hashes(rows, identities, selection.seed)
    if selection.method == "best":
        score: np.typing.NDArray[Any] = rows.column("evidence").to_numpy() * rows.column("match").to_numpy()
        return np.lexsort((hashes, -score))
    if selection.method == "random":
        return np.argsort(hashes, kind="stable")
    return _in_turns(rows, hashes, selection)


def row_hashes(rows: pa.Table, identities: Sequence[str], seed: int) -> np.typing.NDArray[np.uint64]:
    """A 64-bit hash of each row: of the seed, its shard's identity and its key, independent of the other rows."""
    heads = [hashlib.blake2b(f"{seed}/{identity}/".encode(), digest_size=8) for identity in identities]
    digests = bytearray()
    for part, key in zip(rows.column("part").to_pylist(), rows.column("key").to_pylist(), strict=True):
        hashed = heads[part].copy()
        hashed.update(key.encode())
        digests += hashed.digest()
    return np.frombuffer(bytes(digests), np.uint64)


def _in_turns(rows: pa.Table, hashes: np.typing.NDArray[np.uint64], selection: Selection) -> Ints:
    """Strata taking turns, from the last axis to the first.

    A row that is number k of its stratum (from 0) comes at (k + 1/2) / weight among the rows of the strata beside.
    """
    codes = [axis.codes(rows.column(axis.feature)) for axis in selection.axes]
    strata = [np.zeros(rows.num_rows, np.int64)]
    for axis, code in zip(selection.axes, codes, strict=True):
        strata.append(strata[-1] * len(axis.labels) + code)
    order = np.lexsort((hashes, strata[-1]))
    numbers = _numbers(strata[-1], order)
    for depth in reversed(range(len(codes))):
        with np.errstate(divide="ignore"):  # a target share of 0: after all others
            turns = (numbers + 0.5) / selection.axes[depth].weights()[codes[depth]]
        ties = _ties(strata[depth + 1], f"{selection.seed}/{depth}")
        order = np.lexsort((numbers, ties, turns, strata[depth]))
        numbers = _numbers(strata[depth], order)
    return order


def _numbers(strata: Ints, order: Ints) -> Ints:
    """Each row's number in its stratum, counted from 0 in an order that sorts by stratum."""
    sorted_strata = strata[order]
    starts = np.flatnonzero(np.diff(sorted_strata, prepend=-1))
    lengths = np.diff(starts, append=len(order))
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return numbers


def _ties(strata: Ints, seed: str) -> np.typing.NDArray[np.uint64]:
    """A hash of each row's stratum, which orders strata with the same turn; the same for every table."""
    found, inverse = np.unique(strata, return_inverse=True)
    digests = b"".join(hashlib.blake2b(f"{seed}/{stratum}".encode(), digest_size=8).digest() for stratum in found)
    return np.asarray(np.frombuffer(digests, np.uint64)[inverse])
