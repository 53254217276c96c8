"""Time, memory and recall of the comparison of many embeddings: random vectors, among which near ones are planted.

Random vectors are the worst case for inverted lists: they have no clusters, so that many lie at the edge of a list.
"""

from __future__ import annotations

import resource
import time

import numpy as np

from strata.snapshots.duplicates.vectors import alike_vectors

Figures = dict[str, float]


def measure(rows: int, width: int, share: float, cosine: float) -> Figures:
    """Plant copies of a share of the rows, at a cosine of about `cosine`, and look for them.

    Pairs are looked for at a cosine that is lower by 0.01.
    """
    random = np.random.default_rng(0)
    vectors = np.empty((rows, width), np.float16)
    for start in range(0, rows, 65_536):
        some = random.standard_normal((min(65_536, rows - start), width), np.float32)
        vectors[start : start + len(some)] = some / np.linalg.norm(some, axis=1, keepdims=True)
    # each copy is its original, turned towards a random direction
    copies = round(rows * share)
    places = random.permutation(rows)[: 2 * copies]
    originals, others = places[:copies], places[copies:]
    turned = vectors[others].astype(np.float32)
    bases = vectors[originals].astype(np.float32)
    turned -= (turned * bases).sum(axis=1, keepdims=True) * bases
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    vectors[others] = cosine * bases + np.sqrt(1 - cosine**2) * turned
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    wall, processor = time.perf_counter(), time.process_time()
    found = {(min(pair), max(pair)) for pair in alike_vectors(vectors, None, cosine - 0.01)}
    wanted = {(int(min(pair)), int(max(pair))) for pair in zip(originals, others, strict=True)}
    return {
        "rows": rows,
        "planted": copies,
        "recall": len(found & wanted) / copies,
        "precision": len(found & wanted) / len(found) if found else float("nan"),
        "seconds": time.perf_counter() - wall,
        "CPU seconds": time.process_time() - processor,
        "memory of the vectors, MB": vectors.nbytes / 1e6,
        "peak memory before, MB": before,
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }
