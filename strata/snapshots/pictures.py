"""Which rows show the same picture: equal bytes, and pictures that look alike although their bytes differ.

Alike means that the PDQ hashes (Meta, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019)
differ in at most MOST_DIFFERENT of 256 bits. PDQ's authors call up to 31 a match. Of 129 photographs, saved again with
quality 30 to 50, or at half or one and a half of their size, 99 % are within 31 bits, and of those that lost 2 % of
their sides 84 %; different pictures differ by 96 bits or more. A picture with a quality below LEAST_QUALITY, mostly
one of a single colour, has hardly any edges: its hash says nothing, so only equal bytes count.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MOST_DIFFERENT = 31  # bits of 256
LEAST_QUALITY = 50  # of 0 to 100
BANDS = 16  # of 16 bits: hashes that differ in 31 bits have a band that differs in at most one
MOST_PAIRS = 2_000_000  # pairs that are compared together
Ints = np.typing.NDArray[np.int64]


@dataclass(frozen=True)
class PictureHashes:
    """The hashes of the pictures of some rows.

    sha256: of their bytes as hexadecimal digits, or another text that identifies a picture that cannot be read; pdq:
    (rows, 16) uint16; quality: (rows,) 0 to 100, 0 for a picture that cannot be read; unread: their number.
    """

    sha256: list[str]
    pdq: np.typing.NDArray[np.uint16]
    quality: Ints
    unread: int = 0


def same_pictures(hashes: PictureHashes, near: bool) -> Ints:
    """For each row the index of the first row with the same picture. near: whether pictures that look alike count.

    If A looks like B, and B like C, all three are the same.
    """
    # equal bytes first, so that each picture is compared once
    _, firsts, places = np.unique(np.array(hashes.sha256, object), return_index=True, return_inverse=True)
    parents = np.arange(len(firsts))
    if near:
        known = np.flatnonzero(hashes.quality[firsts] >= LEAST_QUALITY)
        for one, other in _alike(hashes.pdq[firsts[known]]):
            _join(parents, int(known[one]), int(known[other]))
    roots = np.array([_root(parents, place) for place in range(len(parents))] or [0], np.int64)
    # the first row of each group of pictures
    first_of_root = np.full(len(parents) or 1, len(hashes.sha256), np.int64)
    np.minimum.at(first_of_root, roots[: len(firsts)], firsts)
    return np.asarray(first_of_root[roots[places]] if len(firsts) else places, np.int64)


def _alike(pdq: np.typing.NDArray[np.uint16]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of hashes that differ in at most MOST_DIFFERENT bits; a pair may come several times."""
    masks = np.array([0, *(1 << bit for bit in range(16))], np.uint16)
    everyone = np.arange(len(pdq))
    for band in range(BANDS):
        values = pdq[:, band]
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        # all whose band differs in at most one bit are next to each other, once the bit is changed
        for mask in masks:
            starts = np.searchsorted(ordered, values ^ mask, "left")
            counts = np.searchsorted(ordered, values ^ mask, "right") - starts
            for rows in _portions(everyone, counts):
                ones = np.repeat(rows, counts[rows])
                steps = np.arange(len(ones)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
                others = order[np.repeat(starts[rows], counts[rows]) + steps]
                ones, others = ones[ones < others], others[ones < others]
                bits = np.bitwise_count(pdq[ones] ^ pdq[others]).sum(axis=1)
                near = bits <= MOST_DIFFERENT
                yield from zip(ones[near].tolist(), others[near].tolist(), strict=True)


def _portions(rows: Ints, counts: Ints) -> Iterator[Ints]:
    """Rows in portions with about MOST_PAIRS pairs each."""
    ends = np.searchsorted(np.cumsum(counts), np.arange(MOST_PAIRS, counts.sum() + MOST_PAIRS, MOST_PAIRS), "left") + 1
    for start, end in itertools.pairwise([0, *np.unique(np.minimum(ends, len(rows))).tolist()]):
        yield rows[start:end]


def _root(parents: Ints, place: int) -> int:
    while parents[place] != place:
        parents[place] = parents[parents[place]]
        place = int(parents[place])
    return place


def _join(parents: Ints, one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first
