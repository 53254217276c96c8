"""The order in which rows are selected: the first n are taken.

Within a stratum the hash of each row decides, or what it is worth, or what is new in it. The strata are merged in
proportion to their target shares, as divisor methods apportion seats (Webster/Sainte-Laguë; M. Balinski, H. Young,
"Fair Representation", 1982): added rows can only move others back, never forward, so a selection of the same size loses
at most as many old rows as it gains new ones. Apportionment by largest remainders does not have this property (the
Alabama paradox).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from strata.snapshots.duplicates import RowArray
from strata.snapshots.filters import Expression
from strata.snapshots.selection.caps import Concepts, least_caps
from strata.snapshots.selection.clusters import Floats, Hashes, Ints, novelty_of
from strata.snapshots.selection.settings import Selection

HALF_TOLD = 3  # entries of a description at which the factor for its content is 1/2


@dataclass(frozen=True, eq=False)
class Keys:
    """What rows are ordered by. hashes: of each row; first: numbers, the smallest first; None: the hashes alone."""

    hashes: Hashes
    first: Floats | None = None

    def take(self, rows: Ints) -> Keys:
        """The keys of some rows."""
        return Keys(self.hashes[rows], None if self.first is None else self.first[rows])

    def sorted(self, *before: Ints | Floats) -> Ints:
        """The indices of all rows. before: what comes before the keys, the most important last."""
        return np.lexsort((self.hashes, *(() if self.first is None else (self.first,)), *before))


def keys_of(
    rows: pa.Table,
    identities: Sequence[str],
    selection: Selection,
    embedded: tuple[RowArray, Ints] | None,
    concepts: Concepts | None,
) -> Keys:
    """What a selection orders rows by.

    embedded: the vector of each row and its cluster, for a diverse selection; concepts: of the rows, for one by these.
    """
    hashes = row_hashes(rows, identities, selection.seed)
    if selection.method == "concepts":
        assert concepts is not None
        return Keys(hashes, least_caps(concepts, hashes))
    if selection.method == "best":
        return Keys(hashes, -scores_of(rows, selection))
    if selection.method == "diverse":
        assert embedded is not None
        vectors, clusters = embedded
        # a worth below zero would prefer what is not new
        worth = np.maximum(0.0, scores_of(rows, selection))
        return Keys(hashes, -worth * novelty_of(vectors, clusters, worth, hashes))
    return Keys(hashes)


def order_of(rows: pa.Table, keys: Keys, selection: Selection) -> Ints:
    """The indices of all rows in the order in which they are selected."""
    return _balanced_order(rows, keys, selection) if selection.axes else keys.sorted()


def scores_of(rows: pa.Table, selection: Selection) -> Floats:
    """What each row is worth: its quality, or evidence × match × told / (told + HALF_TOLD), 0..1.

    evidence: the share of sentences that rest on an entry; match: the mean probability of the kept entries; told: the
    entries that the description tells. The last factor rewards content and saturates: the first things that a
    description tells count most, and no length makes up for what is not right. A quality that is not known is worth
    less than any other. Raises FilterError.
    """
    if selection.quality is not None:
        values = Expression(selection.quality, selection.own).values(rows)
        return np.where(np.isnan(values), -np.inf, values)
    score: Floats = rows.column("evidence").to_numpy() * rows.column("match").to_numpy()
    if selection.score == "evidence":
        return score
    told = rows.column("told").to_numpy()
    return np.asarray(score * told / (told + HALF_TOLD), np.float64)


def row_hashes(rows: pa.Table, identities: Sequence[str], seed: int) -> Hashes:
    """A 64-bit hash of each row: of the seed, its shard's identity and its key, but not of its position."""
    # hash the common prefix once per shard
    heads = [hashlib.blake2b(f"{seed}/{identity}/".encode(), digest_size=8) for identity in identities]
    digests = bytearray()
    for part, key in zip(rows.column("part").to_pylist(), rows.column("key").to_pylist(), strict=True):
        hashed = heads[part].copy()
        hashed.update(key.encode())
        digests += hashed.digest()
    return np.frombuffer(bytes(digests), np.uint64)


def _balanced_order(rows: pa.Table, keys: Keys, selection: Selection) -> Ints:
    """The indices of all rows, merged stratum by stratum from the last axis to the first.

    Row k of its stratum (from 0) gets the rank (k + 1/2) / weight among the rows of the sibling strata (Webster's
    divisors).
    """
    levels = _levels(rows, selection)
    # within the smallest strata the keys decide
    order = keys.sorted(levels[-1].strata)
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


def _ties(strata: Ints, seed: str) -> Hashes:
    """A hash of each row's stratum. It decides between strata with equal ranks, in the same way in every run."""
    found, indices = np.unique(strata, return_inverse=True)
    digests = b"".join(hashlib.blake2b(f"{seed}/{stratum}".encode(), digest_size=8).digest() for stratum in found)
    return np.asarray(np.frombuffer(digests, np.uint64)[indices])
