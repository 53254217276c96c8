"""What a user would write for a selection without Strata: clusters by faiss's k-means, and a loop of numpy."""

from __future__ import annotations

import faiss
import numpy as np

Ints = np.typing.NDArray[np.int64]
Floats = np.typing.NDArray[np.float64]
Vectors = np.typing.NDArray[np.float32]
ROUNDS = 20  # of faiss's documentation


def best_of_clusters(vectors: Vectors, worth: Floats, taken: int, clusters: int) -> Ints:
    """The best rows of each cluster, of all clusters equally many as far as they have so many."""
    kmeans = faiss.Kmeans(vectors.shape[1], clusters, niter=ROUNDS, spherical=True, seed=0)
    kmeans.train(vectors)
    _, found = kmeans.index.search(vectors, 1)
    labels = found[:, 0]
    members = [np.flatnonzero(labels == cluster) for cluster in range(clusters)]
    members = [rows[np.argsort(-worth[rows])] for rows in members]
    chosen, depth, left = [], np.zeros(clusters, np.int64), taken
    while left > 0:
        open_ones = [cluster for cluster in range(clusters) if depth[cluster] < len(members[cluster])]
        each = max(1, left // len(open_ones))
        for cluster in open_ones[: max(1, left)]:
            rows = members[cluster][depth[cluster] : depth[cluster] + min(each, left)]
            chosen.append(rows)
            depth[cluster] += len(rows)
            left -= len(rows)
    return np.sort(np.concatenate(chosen))


def facility_location(vectors: Vectors, worth: Floats, labels: Ints, quotas: Ints, weight: float = 0.5) -> Ints:
    """A greedy facility location in each cluster: each step takes the row that most raises, over the rows of its
    cluster, the sum of the cosines to the nearest one taken, and its own worth times `weight`.

    labels: the cluster of each row; quotas: the rows to be taken of each. It is the exact greedy algorithm (Nemhauser
    et al., Mathematical Programming 14, 1978), which libraries make faster by being lazy and not better.
    """
    chosen = []
    for cluster, quota in enumerate(quotas.tolist()):
        rows = np.flatnonzero(labels == cluster)
        cosines = vectors[rows] @ vectors[rows].T
        nearest, open_ones = np.zeros(len(rows), np.float32), np.ones(len(rows), bool)
        for _ in range(min(quota, len(rows))):
            gains = np.maximum(cosines - nearest[:, None], 0).sum(axis=0) + weight * worth[rows]
            best = int(np.where(open_ones, gains, -np.inf).argmax())
            open_ones[best] = False
            nearest = np.maximum(nearest, cosines[:, best])
        chosen.append(rows[~open_ones])
    return np.sort(np.concatenate(chosen))
