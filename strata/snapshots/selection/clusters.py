"""Clusters of embeddings, by spherical k-means (faiss), and what is new in a row beside the others of its cluster.

k-means is trained on the rows whose hashes are the smallest, and begins at the first of them: the same rows give the
same clusters, and a tenth more rows changes a tenth of the sample. A snapshot keeps the centroids, so a selection that
is repeated (`--like`) has the same clusters for other rows.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.errors import InvalidInput
from strata.snapshots.duplicates import RowArray
from strata.snapshots.features import NOTHING

Ints = np.typing.NDArray[np.int64]
Floats = np.typing.NDArray[np.float64]
Hashes = np.typing.NDArray[np.uint64]
Vectors = np.typing.NDArray[Any]  # (rows, width), of length 1, or zeros for a row without one

FEWEST, MOST = 2, 4096  # clusters, if no number is asked for
ROUNDS = 12  # of k-means
PER_CLUSTER = 64  # rows of the sample for each cluster
BLOCK = 8192  # rows that are compared with all centroids together
NEAR = 512  # rows of a cluster that are compared with the better ones together
BEST = 16_384  # the best rows of a cluster, with which its others are compared


def cluster_count(rows: int) -> int:
    """The number of clusters for a number of rows: the power of two nearest to its root, which a few more rows keep."""
    return min(MOST, max(FEWEST, 1 << round(math.log2(max(1, rows)) / 2)))


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters, the largest first. names: as "c012 dog", with the commonest thing; centroids: (clusters, width)."""

    names: tuple[str, ...]
    centroids: Vectors

    def labels(self, places: Ints) -> pa.Array:
        """The names of clusters by their place, NOTHING for -1."""
        return pa.array([*self.names, NOTHING], pa.string()).take(pa.array(places % (len(self.names) + 1)))

    @property
    def digest(self) -> str:
        """SHA-256 of names and centroids."""
        content = hashlib.sha256("\n".join(self.names).encode())
        content.update(np.ascontiguousarray(self.centroids, np.dtype("<f4")).tobytes())
        return content.hexdigest()

    def to_table(self) -> pa.Table:
        """A table with the columns name and centroid."""
        centroids = pa.FixedSizeListArray.from_arrays(pa.array(self.centroids.ravel()), self.centroids.shape[1])
        return pa.table({"name": list(self.names), "centroid": centroids})

    @classmethod
    def of_table(cls, table: pa.Table) -> Clusters:
        """Those of a table that `to_table` made. Raises KeyError and ValueError for another one."""
        centroids = pc.list_flatten(table.column("centroid")).to_numpy().reshape(table.num_rows, -1)
        return cls(tuple(table.column("name").to_pylist()), centroids)


def find_clusters(
    vectors: Vectors, hashes: Hashes, things: pa.ChunkedArray, count: int | None = None
) -> tuple[Clusters, Ints]:
    """Clusters of rows, and the place of each row's cluster, -1 for a row without a vector.

    hashes: which decide on the sample; things: of each row, for the names. count: of clusters, at most so many as rows;
    None: by `cluster_count`. Raises InvalidInput if faiss is missing or no row has an embedding.
    """
    there = np.flatnonzero(vectors.any(axis=1))
    if not len(there):
        raise InvalidInput("no row has an embedding: none of the images could be read")
    wanted = min(count or cluster_count(len(there)), len(there))
    sample = there[np.argsort(hashes[there], kind="stable")[: PER_CLUSTER * wanted]]
    centroids = _centroids_of(vectors[sample].astype(np.float32), wanted)
    places = nearest(vectors, centroids)
    # the largest first
    order = np.argsort(-np.bincount(places[places >= 0], minlength=wanted), kind="stable")
    places = np.append(np.argsort(order), -1)[places]
    return Clusters(_names(places, things, wanted), centroids[order]), places


def _centroids_of(sample: Vectors, count: int) -> Vectors:
    """The centroids of a sample, (count, width), of length 1. k-means begins at the first vectors of the sample."""
    try:
        import faiss
    except ImportError:
        raise InvalidInput("clusters of embeddings need faiss: pip install 'strata[curation]'") from None
    settings = {"niter": ROUNDS, "spherical": True, "seed": 0}
    kmeans = faiss.Kmeans(
        sample.shape[1], count, **settings, min_points_per_centroid=1, max_points_per_centroid=len(sample)
    )
    kmeans.train(sample, init_centroids=sample[:count].copy())
    return np.asarray(kmeans.centroids, np.float32)


def nearest(vectors: Vectors, centroids: Vectors) -> Ints:
    """The place of the centroid with the highest cosine for each row, -1 for a row without a vector."""
    places = np.full(len(vectors), -1, np.int64)
    turned = np.ascontiguousarray(centroids.T)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float32)
        found = (block @ turned).argmax(axis=1)
        places[start : start + len(block)] = np.where(block.any(axis=1), found, -1)
    return places


def _names(of_cluster: Ints, things: pa.ChunkedArray, count: int) -> tuple[str, ...]:
    """A name for each cluster: its number, and the commonest thing of its rows, the first of equally common ones."""
    encoded = pc.fill_null(things, NOTHING).combine_chunks().dictionary_encode()
    names, of_row = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
    told = np.array([name != NOTHING for name in names] or [False])
    known = (of_cluster >= 0) & told[of_row] if len(of_row) else np.zeros(0, bool)
    pairs = of_cluster[known] * max(1, len(names)) + of_row[known]
    found, numbers = np.unique(pairs, return_counts=True)
    # the commonest first, of equally common ones the first in the alphabet
    ranked = sorted(
        (cluster, -number, names[thing])
        for cluster, thing, number in zip(*np.divmod(found, max(1, len(names))), numbers.tolist(), strict=True)
    )
    commonest: dict[int, str] = {}
    for cluster, _, name in ranked:
        commonest.setdefault(int(cluster), name)
    digits = len(str(count - 1))
    return tuple(f"c{place:0{digits}d} {commonest.get(place, '')}".rstrip() for place in range(count))


def novelty_of(vectors: Vectors | RowArray, places: Ints, worth: Floats, hashes: Hashes) -> Floats:
    """What is new in each row beside the better ones of its cluster: 1 - the cosine to the nearest of them, 0..1.

    places: the cluster of each row, -1 for none, whose rows have no novelty. worth: of each row; of equal ones the one
    with the smaller hash is better. The best of a cluster has 1. Rows that are added only make it smaller, except in
    clusters of more than BEST rows, where only the best ones are compared with.

    It is the distance to the nearest point of higher density of density peaks (Rodriguez and Laio, "Clustering by fast
    search and find of density peaks", Science 344, 2014), with the worth of a row as its density.
    """
    novelty = np.zeros(len(places))
    order = np.lexsort((hashes, -worth, places))
    bounds = np.searchsorted(places[order], np.arange(int(places.max(initial=-1)) + 2))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        rows = order[first:last]
        novelty[rows] = 1 - _nearest_before(vectors[rows].astype(np.float32))
    return np.clip(novelty, 0.0, 1.0)


def _nearest_before(vectors: Vectors) -> Floats:
    """The highest cosine of each vector to one before it, 0 for the first."""
    nearest = np.zeros(len(vectors))
    for start in range(0, len(vectors), NEAR):
        block = vectors[start : start + NEAR]
        cosines = block @ vectors[: min(start + len(block), BEST)].T
        if start < cosines.shape[1]:
            # within the block only those before
            inside = cosines[:, start:]
            inside[np.triu_indices(len(block), m=inside.shape[1])] = -1.0
        nearest[start : start + len(block)] = np.maximum(0.0, cosines.max(axis=1, initial=0.0))
    return nearest
