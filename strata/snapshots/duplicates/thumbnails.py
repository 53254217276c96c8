"""Pictures that are copies of one another although edges were cut off, colours changed, or left and right.

Two stages, as large collections are searched (Gaillard and Egyed-Zsigmond, "Large scale reverse image search", INFORSID
2017): vectors of the lowest frequencies find the pictures that may be copies, and these are laid over one another
(`alignment.py`). Both read thumbnails (`strata.images.hashes`), so no image is read again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from strata.images import THUMBNAIL
from strata.snapshots.duplicates.alignment import LEAST_LIKENESS, likeness
from strata.snapshots.duplicates.arrays import Array, Ints, RowArray
from strata.snapshots.duplicates.vectors import Pairs, alike_vectors

log = logging.getLogger(__name__)

LEAST_COSINE = 0.75  # of the vectors of pictures that may be copies
CANDIDATES = 6  # nearest pictures of each that are looked at
LEAST_CONTRAST = 1.0  # levels of 256: a picture with less is no copy (`alignment.LEAST_CONTRAST`)
BLOCK = 4096  # thumbnails whose vectors are computed together
PORTION = 512  # pairs that are laid over one another together
LIGHT, COLOUR = 8, 5  # frequencies of Y, and of Cb and Cr, in each direction


def copies(queries: RowArray, database: RowArray | None) -> Iterator[Pairs]:
    """Indices of pictures that are copies, by their thumbnails; database: None for the queries themselves.

    Raises InvalidInput as `alike_vectors` does.
    """
    inside = queries if database is None else database
    vectors = vectors_of(queries)
    known = RowArray(vectors if database is None else vectors_of(database))
    for step in (1, -1):  # through the columns of the queries: the pictures, and their mirror images
        asked = known if step == 1 and database is None else RowArray(vectors if step == 1 else vectors * MIRROR)
        near = alike_vectors(asked, None if asked is known else known, LEAST_COSINE, CANDIDATES)
        pairs = _once(near, len(inside), database is None)
        log.info("%d pairs of %d pictures may be copies", len(pairs), len(queries))
        yield from _verified(queries, inside, pairs, step)


def _once(near: Iterator[Pairs], count: int, same: bool) -> Ints:
    """Pairs as (pairs, 2), sorted, each once; of one table none with itself."""
    found = [np.stack(pair, axis=1) for pair in near]
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    if same:
        pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    numbers = np.unique(pairs[:, 0] * count + pairs[:, 1])
    return np.stack(np.divmod(numbers, count), axis=1)


def _verified(queries: RowArray, inside: RowArray, pairs: Ints, step: int) -> Iterator[Pairs]:
    """The pairs that are copies."""

    def copied(some: Ints) -> Pairs:
        ones, others = planes_of(queries[some[:, 0]]), planes_of(inside[some[:, 1]])
        there = likeness(ones[..., ::step], others) >= LEAST_LIKENESS
        return some[there, 0], some[there, 1]

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy releases the interpreter's lock
        yield from pool.map(copied, np.array_split(pairs, max(1, len(pairs) // PORTION)))


def planes_of(thumbnails: Array) -> np.typing.NDArray[np.float32]:
    """Thumbnails (rows, THUMBNAIL_BYTES) as Y, Cb and Cr: (rows, 3, THUMBNAIL, THUMBNAIL), of 0 to 255."""
    side, half = THUMBNAIL, THUMBNAIL // 2
    light = thumbnails[:, : side * side].reshape(-1, 1, side, side)
    colours = thumbnails[:, side * side :].reshape(-1, 2, half, half).repeat(2, axis=2).repeat(2, axis=3)
    return np.concatenate([light, colours], axis=1, dtype=np.float32)


def vectors_of(thumbnails: RowArray) -> np.typing.NDArray[np.float16]:
    """The lowest frequencies of thumbnails, of length 1; zeros for a picture without contrast."""
    found = np.zeros((len(thumbnails), len(MIRROR)), np.float16)
    for start in range(0, len(thumbnails), BLOCK):
        planes = planes_of(thumbnails[start : start + BLOCK]).reshape(-1, 3, THUMBNAIL**2)
        light, *colours = (planes[:, number] @ basis for number, basis in enumerate((_LIGHT, _COLOUR, _COLOUR)))
        vectors = np.concatenate([light, *colours], axis=1)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        there = lengths[:, 0] >= LEAST_CONTRAST * THUMBNAIL
        found[start : start + len(vectors)][there] = vectors[there] / lengths[there]
    return found


def _basis(count: int) -> tuple[Any, Any]:
    """The cosines of `count` frequencies in each direction, (THUMBNAIL**2, frequencies), without their mean and slope.

    Beside them what a mirror image multiplies each by.
    """
    places = (np.arange(THUMBNAIL) + 0.5) * np.pi / THUMBNAIL
    waves = np.cos(np.arange(count)[:, None] * places)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    down, across = (grid.ravel() for grid in np.mgrid[:count, :count])
    used = down + across > 0
    both = (waves[down[used], :, None] * waves[across[used], None, :]).reshape(used.sum(), -1)
    steps = np.linspace(-1, 1, THUMBNAIL)
    slopes = np.stack([np.tile(steps, THUMBNAIL), np.repeat(steps, THUMBNAIL)]) / np.linalg.norm(steps)
    both -= both @ slopes.T @ slopes / THUMBNAIL
    return both.T.astype(np.float32), np.where(across[used] % 2, -1, 1).astype(np.float16)


_LIGHT, _turn_of_light = _basis(LIGHT)
_COLOUR, _turn_of_colour = _basis(COLOUR)
MIRROR = np.concatenate([_turn_of_light, _turn_of_colour, _turn_of_colour])  # what a mirror image multiplies vectors by
