"""Duplicates: which rows show the same picture, which of them stays, and which show a picture of a benchmark.

`pictures.py` has the hashes and compares them, `thumbnails.py` finds copies that were cropped or recoloured and
`alignment.py` judges them, `vectors.py` compares embeddings, `clusters.py` chooses the row that stays, `benchmarks.py`
reads the hashes of pictures that training must not see.
"""

from __future__ import annotations

from strata.snapshots.duplicates.arrays import FilledRows, RowArray
from strata.snapshots.duplicates.benchmarks import (
    Benchmarks,
    bits_of,
    bytes_of,
    read_benchmarks,
    vectors_of,
    write_benchmarks,
)
from strata.snapshots.duplicates.clusters import CLUSTER_SCHEMA, Keep, clusters_of, kept_of
from strata.snapshots.duplicates.pictures import PictureHashes, Same, SameError, found_in, same_pictures

__all__ = [
    "CLUSTER_SCHEMA",
    "Benchmarks",
    "FilledRows",
    "Keep",
    "PictureHashes",
    "RowArray",
    "Same",
    "SameError",
    "bits_of",
    "bytes_of",
    "clusters_of",
    "found_in",
    "kept_of",
    "read_benchmarks",
    "same_pictures",
    "vectors_of",
    "write_benchmarks",
]
