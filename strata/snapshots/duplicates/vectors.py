"""Pairs of vectors that are near each other: by comparing all of them where these are few, and else list by list.

The vectors are divided among lists by k-means, and each is compared with all vectors of the PROBES lists that are
nearest to it, as inverted lists do (Johnson et al., "Billion-scale similarity search with GPUs", arXiv 1702.08734);
SemDeDup (arXiv 2303.09540) finds duplicates so. A list is compared by one product of matrices, so that at a time only
its vectors, and those that are looked for in it, are in memory: the rest may lie on disk. The same vectors give the
same pairs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from strata.errors import InvalidInput
from strata.snapshots.duplicates.arrays import Array, Ints, RowArray

FEW = 50_000  # vectors that are all compared with each query
AT_ONCE = 8_000_000  # pairs that are compared together
QUERIES = 16_384  # vectors whose lists are looked for together
NEIGHBOURS = 16  # of each vector that are kept: equal ones are joined through one another
MORE = 10_000_000  # pairs beyond those that are kept, until the farther ones are dropped
PROBES = 8  # lists that a vector is looked for in
PER_LIST = 40  # vectors of the sample of k-means for each list; faiss warns below 39
ROUNDS = 6  # of k-means: the lists need not be the best
Pairs = tuple[Ints, Ints]

log = logging.getLogger(__name__)


def alike_vectors(
    queries: RowArray, database: RowArray | None, least: float, most: int = NEIGHBOURS
) -> Iterator[Pairs]:
    """Indices of vectors with a cosine of at least `least`: of each query the `most` nearest of the others.

    queries, database: (rows, width) of length 1, or zeros, which are like none. database: None for the queries
    themselves, of which none is a pair with itself; a pair may come in both directions. Raises InvalidInput if there
    are many and faiss is missing.
    """
    asked = _filled(queries)
    known = asked if database is None else _filled(database)
    if not len(asked) or not len(known):
        return
    inside = (queries if database is None else database).take(known)
    find = _among_few if len(known) <= FEW else _among_many
    for ones, others in find(queries.take(asked), inside, database is None, (least, most)):
        yield asked[ones], known[others]


def _filled(vectors: RowArray) -> Ints:
    """The indices of the vectors that are not zeros."""
    there = [vectors[start : start + QUERIES].any(axis=1) for start in range(0, len(vectors), QUERIES)]
    return np.flatnonzero(np.concatenate(there)) if there else np.zeros(0, np.int64)


def _among_few(queries: RowArray, database: RowArray, same: bool, bounds: tuple[float, int]) -> Iterator[Pairs]:
    whole = database[:].astype(np.float32).T
    block = max(1, AT_ONCE // len(database))
    for start in range(0, len(queries), block):
        cosines = queries[start : start + block].astype(np.float32) @ whole
        if same:
            np.fill_diagonal(cosines[:, start:], -2)
        ones, others, _ = _best(cosines, *bounds)
        yield ones + start, others


def _best(cosines: Array, least: float, most: int) -> tuple[Ints, Ints, Array]:
    """Of each row of cosines the columns with the greatest, at most `most`, that are at least `least`; and these."""
    ones, others = np.nonzero(cosines >= least)
    counts = np.bincount(ones, minlength=len(cosines))
    crowded = np.flatnonzero(counts > most)
    if len(crowded):
        nearest = np.argpartition(-cosines[crowded], most - 1, axis=1)[:, :most]
        few = counts[ones] <= most
        ones = np.concatenate([ones[few], np.repeat(crowded, most)])
        others = np.concatenate([others[few], nearest.ravel()])
    return ones, others, cosines[ones, others]


def _among_many(queries: RowArray, database: RowArray, same: bool, bounds: tuple[float, int]) -> Iterator[Pairs]:
    """As `_among_few`, but each query is compared with the vectors of some lists alone."""
    centres = _centres(database)
    count = int(centres.ntotal)
    log.info("%d vectors in %d lists", len(database), count)
    probed = _nearest(centres, queries, min(PROBES, count))
    lists = _by_list(probed[:, :1] if same else _nearest(centres, database, 1), count)
    asking = _by_list(probed, count)
    found = _Nearest(len(queries), bounds[1])
    for number, (inside, asked) in enumerate(zip(lists, asking, strict=True)):
        if number % math.ceil(count / 10) == 0:
            log.info("list %d of %d: %d pairs", number, count, found.number)
        whole = database[inside].astype(np.float32).T
        for some in np.array_split(asked, math.ceil(len(asked) * len(inside) / AT_ONCE) or 1):
            cosines = queries[some].astype(np.float32) @ whole
            if same and len(inside):
                # the vector itself, if it is in this list: lists are sorted
                places = np.minimum(np.searchsorted(inside, some), len(inside) - 1)
                there = np.flatnonzero(inside[places] == some)
                cosines[there, places[there]] = -2
            ones, others, values = _best(cosines, *bounds)
            found.add(some[ones], inside[others], values)
    yield found.pairs()


class _Nearest:
    """The nearest vectors of each query, found list by list."""

    def __init__(self, queries: int, most: int) -> None:
        self._most = most
        self._room = queries * most + MORE
        self._found: list[tuple[Ints, Ints, Array]] = []
        self.number = 0

    def add(self, ones: Ints, others: Ints, cosines: Array) -> None:
        self._found.append((ones.astype(np.int32), others.astype(np.int32), cosines))
        self.number += len(ones)
        if self.number > self._room:
            self._found = [self._kept()]
            self.number = len(self._found[0][0])

    def pairs(self) -> Pairs:
        ones, others, _ = self._kept()
        return ones.astype(np.int64), others.astype(np.int64)

    def _kept(self) -> tuple[Ints, Ints, Array]:
        ones, others, cosines = (np.concatenate(column) for column in zip(*self._found, strict=True))
        order = np.lexsort((-cosines, ones))
        ones = ones[order]
        # the rank of each pair among those of its query
        starts = np.flatnonzero(np.diff(ones, prepend=-1))
        ranks = np.arange(len(ones)) - np.repeat(starts, np.diff(starts, append=len(ones)))
        near = ranks < self._most
        return ones[near], others[order][near], cosines[order][near]


def _by_list(nearest: Array, count: int) -> list[Ints]:
    """For each list the rows that have it among their nearest, sorted."""
    flat = nearest.ravel()
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(1, count))
    return np.split((order // nearest.shape[1]).astype(np.int32), starts)


def _nearest(centres: Any, vectors: RowArray, count: int) -> Array:
    """The lists whose centres are nearest to each vector: (vectors, count)."""
    found = np.empty((len(vectors), count), np.int32)
    for start in range(0, len(vectors), QUERIES):
        some = vectors[start : start + QUERIES].astype(np.float32)
        found[start : start + len(some)] = centres.search(some, count)[1]
    return found


def _centres(database: RowArray) -> Any:
    """An index of the centres of the lists. Each vector is compared with about as many centres as vectors then."""
    try:
        import faiss
    except ImportError:
        reason = f"more than {FEW:,} pictures are compared with faiss: pip install 'strata[curation]'"
        raise InvalidInput(reason) from None
    count = round(math.sqrt(PROBES * len(database)))
    # evenly spaced rows, so that the sample, and what is found, is the same each time
    sample = np.linspace(0, len(database) - 1, min(len(database), PER_LIST * count)).astype(np.int64)
    means = faiss.Kmeans(database.width, count, niter=ROUNDS, spherical=True, seed=1, min_points_per_centroid=1)
    means.train(database[sample].astype(np.float32))
    assert means.centroids is not None
    index = faiss.IndexFlatIP(database.width)
    index.add(means.centroids)
    return index
