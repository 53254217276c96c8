"""The cap per noun of a selection: of rows whose text names common things fewer are kept, of rare ones all.

The method is that of MetaCLIP (Xu et al., "Demystifying CLIP Data", arXiv 2309.16671, algorithm 1): a concept that
`count` texts name keeps each of them with the probability min(1, t / count), and a text stays if any of its concepts
keeps it. So a rare noun protects a row that also names a common one, and a common noun may have more than t rows.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from strata.snapshots.nouns import nouns_of

Hashes = np.typing.NDArray[np.uint64]
NO_NOUN = ""  # the concept of texts without a noun, which a cap limits as any other


def within_cap(texts: pa.ChunkedArray, hashes: Hashes, cap: int) -> np.typing.NDArray[np.bool_]:
    """Which rows stay. hashes: of the rows, which decide; cap: rows that each noun keeps on average.

    Rows that are added make probabilities smaller, so they only remove other rows.
    """
    rows, nouns, names = nouns_of(texts)
    # rows without a noun share one concept
    without = np.setdiff1d(np.arange(len(texts)), rows)
    rows = np.concatenate([rows, without])
    nouns = np.concatenate([nouns, np.full(len(without), len(names))])
    chances = np.minimum(1.0, cap / np.maximum(1, np.bincount(nouns, minlength=len(names) + 1)))
    # a number from 0 to 1 for each pair of a row and a noun, of their hashes alone
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in [*names, NO_NOUN])
    drawn = _mixed(hashes[rows] ^ np.frombuffer(digests, np.dtype("<u8"))[nouns]) / 2.0**64
    stays = np.zeros(len(texts), bool)
    stays[rows[drawn < chances[nouns]]] = True
    return stays


def _mixed(values: Hashes) -> Any:
    """SplitMix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
