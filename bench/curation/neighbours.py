"""Time, memory and recall of the comparison of many vectors: random ones, among which near ones are planted.

Random vectors are the worst case for lists: they have no clusters, so that many lie at the edge of a list.
"""

from __future__ import annotations

import logging
import resource
import time
from pathlib import Path

import numpy as np

from bench.curation.duplicates import Figures
from strata.snapshots import RowArray
from strata.snapshots.duplicates.arrays import on_disk
from strata.snapshots.duplicates.vectors import alike_vectors

BLOCK = 65_536
log = logging.getLogger(__name__)


def measure(folder: Path, rows: int, width: int, share: float, cosine: float) -> Figures:
    """Plant copies of a share of the rows, at a cosine of about `cosine`, and look for them.

    The vectors lie in a file of the folder, in half precision. Pairs are looked for at a cosine that is lower by 0.01.
    """
    random = np.random.default_rng(0)
    vectors = on_disk((rows, width), np.float16, folder)
    for start in range(0, rows, BLOCK):
        some = random.standard_normal((min(BLOCK, rows - start), width), np.float32)
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
    found = {
        (min(pair), max(pair))
        for ones, twos in alike_vectors(RowArray(vectors), None, cosine - 0.01)
        for pair in zip(ones.tolist(), twos.tolist(), strict=True)
    }
    seconds, spent = time.perf_counter() - wall, time.process_time() - processor
    wanted = {(int(min(pair)), int(max(pair))) for pair in zip(originals, others, strict=True)}
    return {
        "rows": rows,
        "planted": copies,
        "recall": len(found & wanted) / copies,
        "precision": len(found & wanted) / len(found) if found else float("nan"),
        "seconds": seconds,
        "CPU seconds": spent,
        "file of the vectors, MB": vectors.nbytes / 1e6,
        # with the pages of the file that are in memory
        "peak memory before, MB": before,
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }
