"""What the thresholds of `strata.snapshots.duplicates.thumbnails` rest on: values of copies, and of other pictures.

For each kind of copy: the cosine with its original, how many other pictures have a greater one, and the likeness. For
pairs of different pictures that may be copies by their cosine: the likeness, and how many a threshold would let pass.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.curation.duplicates import Asked, Curation, Figures
from samples.copies import KINDS
from strata.core import Profile
from strata.snapshots import RowArray
from strata.snapshots.duplicates.alignment import likeness
from strata.snapshots.duplicates.thumbnails import CANDIDATES, LEAST_COSINE, MIRROR, planes_of, vectors_of
from strata.snapshots.duplicates.vectors import alike_vectors

LEAST = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # thresholds of likeness that are compared
AT_ONCE = 1024
Array = np.typing.NDArray[np.float32]
Ints = np.typing.NDArray[np.int64]


def measure(folder: Path, profile: Profile, asked: Asked) -> dict[str, Figures]:
    """The values of pictures and copies that are planted in a folder."""
    curation = Curation(folder, profile, asked, ["hash"])
    hashes, of, kinds = curation.hashes()
    assert hashes.thumbnails is not None
    whole, originals = hashes.thumbnails[:], np.array(of)
    vectors = vectors_of(hashes.thumbnails)
    figures = {"all": curation.figures}
    for kind in KINDS:
        rows = np.flatnonzero(np.array(kinds) == kind)
        turned = vectors[rows] * (MIRROR if kind == "mirrored" else 1)
        cosines, ranks = _ranked(turned.astype(np.float32), vectors.astype(np.float32), rows, originals)
        like = _likeness(whole, rows, originals[rows], kind == "mirrored")
        figures[kind] = _quantiles("cosine", cosines, (0, 0.01, 0.02, 0.1, 0.5))
        figures[kind] |= _quantiles("pictures with a greater cosine", ranks, (0.5, 0.9, 0.98, 0.99, 1))
        figures[kind] |= _quantiles("likeness", like, (0, 0.01, 0.02, 0.1, 0.5))
    others = _of_others(whole, vectors, originals)
    figures["other pictures"] = _quantiles("likeness", others, (0.5, 0.9, 0.99, 0.999, 1)) | {"pairs": len(others)}
    figures["other pictures"] |= {f"pairs from {least}": int((others >= least).sum()) for least in LEAST}
    return figures


def _ranked(turned: Array, vectors: Array, rows: Ints, originals: Ints) -> tuple[Array, Array]:
    """The cosine of each copy with its original, and how many pictures that are no copies of it have a greater one."""
    cosines = turned @ vectors.T
    own = cosines[np.arange(len(rows)), originals[rows]]
    greater = (cosines > own[:, None]) & (originals[None] != originals[rows][:, None])
    return own, greater.sum(axis=1).astype(np.float32)


def _likeness(whole: np.typing.NDArray[np.uint8], ones: Ints, others: Ints, mirrored: bool) -> Array:
    found = [np.zeros(0, np.float32)]
    for start in range(0, len(ones), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        first = planes_of(whole[ones[some]])[..., :: -1 if mirrored else 1]
        found.append(likeness(first, planes_of(whole[others[some]])))
    return np.concatenate(found)


def _of_others(whole: np.typing.NDArray[np.uint8], vectors: np.typing.NDArray[np.float16], originals: Ints) -> Array:
    """The likeness of pairs of pictures that are no copies of one another, and may be by their cosine."""
    found = []
    for mirrored in (False, True):
        asked = vectors * MIRROR if mirrored else vectors
        near = list(alike_vectors(RowArray(asked), RowArray(vectors), LEAST_COSINE, CANDIDATES + 1))
        ones, others = (np.concatenate(column) for column in zip(*near, strict=True))
        different = (originals[ones] != originals[others]) & (ones < others)
        found.append(_likeness(whole, ones[different], others[different], mirrored))
    return np.concatenate(found)


def _quantiles(name: str, values: Array, shares: tuple[float, ...]) -> Figures:
    return {f"{name}, {share:.1%}": float(np.quantile(values, share)) for share in shares} if len(values) else {}
