"""Pairs of embeddings that are near each other: all of them for a few, by faiss's inverted lists for many.

The vectors are divided among lists by k-means, and each is compared with those of the PROBES nearest lists (Johnson et
al., "Billion-scale similarity search with GPUs", arXiv 1702.08734; SemDeDup, arXiv 2303.09540, finds duplicates so).
Vectors are kept in half precision: 3.3 million of 256 numbers take 1.7 GB. The same vectors give the same pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from strata.errors import InvalidInput

FEW = 20_000  # vectors that are all compared with one another
BLOCK = 1024  # vectors that are compared together
QUERIES = 16_384  # vectors that faiss is asked about together
NEIGHBOURS = 16  # of each vector that are looked at: equal ones are joined through one another
PROBES = 16  # lists that a vector is looked for in
PER_LIST = 64  # vectors of the sample of k-means for each list; faiss warns below 39
Vectors = np.typing.NDArray[Any]


def alike_vectors(queries: Vectors, database: Vectors | None, least: float) -> Iterator[tuple[int, int]]:
    """Pairs of indices of vectors with a cosine of at least `least`; a pair may come twice.

    queries, database: (rows, width) of length 1, or zeros, which are like none. database: None for the queries
    themselves, whose pairs count in one direction only. Raises InvalidInput if there are many and faiss is missing.
    """
    asked = np.flatnonzero(np.any(queries, axis=1))
    known = asked if database is None else np.flatnonzero(np.any(database, axis=1))
    if not len(asked) or not len(known):
        return
    inside = (queries if database is None else database)[known]
    find = _among_few if len(known) <= FEW else _among_many
    for ones, others in find(queries[asked], inside, least):
        pairs = asked[ones], known[others]
        if database is None:
            there = pairs[0] < pairs[1]
            pairs = pairs[0][there], pairs[1][there]
        yield from zip(pairs[0].tolist(), pairs[1].tolist(), strict=True)


def _among_few(queries: Vectors, database: Vectors, least: float) -> Iterator[tuple[Vectors, Vectors]]:
    whole = database.astype(np.float32).T
    for start in range(0, len(queries), BLOCK):
        cosines = queries[start : start + BLOCK].astype(np.float32) @ whole
        ones, others = np.nonzero(cosines >= least)
        yield ones + start, others


def _among_many(queries: Vectors, database: Vectors, least: float) -> Iterator[tuple[Vectors, Vectors]]:
    index = _index_of(database)
    for start in range(0, len(queries), QUERIES):
        cosines, others = index.search(queries[start : start + QUERIES].astype(np.float32), NEIGHBOURS)
        # where a list has fewer vectors, the rest is -1
        ones, places = np.nonzero((cosines >= least) & (others >= 0))
        yield ones + start, others[ones, places]


def _index_of(database: Vectors) -> Any:
    """The vectors in inverted lists, about four times the root of their number."""
    try:
        import faiss
    except ImportError:
        reason = f"more than {FEW:,} embeddings are compared with faiss: pip install 'strata[curation]'"
        raise InvalidInput(reason) from None
    lists, width = round(4 * math.sqrt(len(database))), database.shape[1]
    quantizer = faiss.IndexFlatIP(width)
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(quantizer, width, lists, kind, faiss.METRIC_INNER_PRODUCT, False)
    # evenly spaced rows, so that the sample, and what is found, is the same each time
    sample = np.linspace(0, len(database) - 1, min(len(database), PER_LIST * lists)).astype(np.int64)
    index.train(database[sample].astype(np.float32))
    for start in range(0, len(database), QUERIES):
        index.add(database[start : start + QUERIES].astype(np.float32))
    index.nprobe = min(PROBES, lists)
    return index
