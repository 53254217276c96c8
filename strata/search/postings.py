"""Postings: in which rows a word or a label is, as a list of ids or as a bitmap.

A word that many rows have costs a list a byte a row in the file, and the time to read millions of ids for each search.
Its rows are kept as one bit for each row of a run instead: a run is what is added to the index together. Roaring
bitmaps make the same choice for each block of rows (Lemire et al., "Roaring Bitmaps", arXiv 1709.07821).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Bools = np.typing.NDArray[np.bool_]
Ints = np.typing.NDArray[np.int64]

SHARE = 8  # rows of a run, of which one must have the word: a bitmap is then not larger than a list
LEAST = 512  # rows that must have the word, for which a bitmap is worth a row in its table


class Bitmap(NamedTuple):
    """The rows of a run that have a term, a bit for each from its first row on. number: of the rows that have it."""

    term: int
    number: int
    bits: bytes


def divided(terms: Ints, rows: Ints, count: int) -> tuple[Bools, list[Bitmap]]:
    """Which pairs of a term and a row stay in lists, and the bitmaps of the others.

    terms, rows: each pair once, the rows of a term one after another; rows are below count, the rows of the run.
    """
    starts = np.flatnonzero(np.append(True, terms[1:] != terms[:-1])) if len(terms) else np.zeros(0, np.int64)
    ends = np.append(starts[1:], len(terms))
    many = ends - starts >= max(LEAST, count / SHARE)
    listed, bitmaps = np.ones(len(terms), bool), []
    for start, end in zip(starts[many].tolist(), ends[many].tolist(), strict=True):
        listed[start:end] = False
        has = np.zeros(count, bool)
        has[rows[start:end]] = True
        bitmaps.append(Bitmap(int(terms[start]), end - start, np.packbits(has).tobytes()))
    return listed, bitmaps


def unpacked(mask: Bools, bitmaps: Iterable[tuple[int, bytes]]) -> None:
    """Set those rows of a mask that bitmaps have; each bitmap with the row that its first bit stands for."""
    for first, bits in bitmaps:
        part = mask[first : first + 8 * len(bits)]
        # the bits after the last row of a run are zero
        part |= np.unpackbits(np.frombuffer(bits, np.uint8), count=len(part)).view(bool)


def pairs_of(bitmaps: Iterable[tuple[int, int, bytes]], among: range) -> tuple[Ints, Ints]:
    """The terms and rows of bitmaps, given with their terms and first rows: those of the rows in a range."""
    terms, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for term, first, bits in bitmaps:
        row = first + np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8)))
        rows.append(row[(row >= among.start) & (row < among.stop)])
        terms.append(np.full(len(rows[-1]), term))
    return np.concatenate(terms), np.concatenate(rows)


def counts(mask: Bools, firsts: Ints, lengths: Ints) -> Ints:
    """How many rows a mask has in each of some ranges, which do not overlap: their first rows and lengths."""
    found = np.zeros(len(firsts), np.int64)
    there = np.flatnonzero(lengths)
    order = there[np.argsort(firsts[there])]
    if len(order):
        edges = np.stack([firsts[order], firsts[order] + lengths[order]], axis=1).ravel()
        # every second sum is that of what lies between two ranges; the last range may end with the mask
        found[order] = np.add.reduceat(np.append(mask.view(np.uint8), np.uint8(0)), edges, dtype=np.uint32)[::2]
    return found


def counts_of_bitmaps(mask: Bools, bitmaps: Sequence[bytes]) -> list[int]:
    """How many rows of a mask each bitmap of a run has; the mask begins with the run."""
    bits = np.frombuffer(b"".join(bitmaps), np.uint8).reshape(len(bitmaps), -1)
    wanted = np.zeros(bits.shape[1], np.uint8)
    packed = np.packbits(mask)
    wanted[: len(packed)] = packed
    return [int(number) for number in np.bitwise_count(bits & wanted).sum(axis=1, dtype=np.int64)]
