"""Balancing concepts: of rows that name common things fewer are taken, of those that name rare ones all.

The method is that of MetaCLIP (Xu et al., "Demystifying CLIP Data", arXiv 2309.16671, algorithm 1): a concept that
`count` rows name keeps each of them with the probability min(1, t / count), and a row stays if any of its concepts
keeps it. So a rare concept protects a row that also names a common one, and a common one may have more than t rows.

Here hashes draw, not a generator of random numbers. So the least t at which a row stays is a number of its own
(`least_caps`): a cap keeps the rows below it, and a selection of n rows takes those with the n smallest numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.snapshots.nouns import names_in, noun_of, nouns_of

ConceptKind = Literal["nouns", "tags"]
Hashes = np.typing.NDArray[np.uint64]
Ints = np.typing.NDArray[np.int64]
Floats = np.typing.NDArray[np.float64]
COLUMNS: dict[ConceptKind, str] = {"nouns": "description", "tags": "tag_words"}  # the features that name concepts
SLICE = 65_536  # rows whose words are in memory at a time: of all rows they take many times as much as the texts
NOTHING = ""  # the concept of rows that name none, which a cap limits as any other


@dataclass(frozen=True, eq=False)
class Concepts:
    """What rows name: pairs of the index of a row and of a name, each pair once. Of `concepts_of` sorted by row."""

    rows: Ints
    numbers: Ints
    names: Sequence[str]

    def take(self, indices: Ints) -> Concepts:
        """What some rows name, each row with its place among these indices; pairs are in their order."""
        places = np.full(1 + max(int(self.rows.max(initial=-1)), int(indices.max(initial=-1))), -1, np.int64)
        places[indices] = np.arange(len(indices))
        kept = places[self.rows] >= 0
        return Concepts(places[self.rows[kept]], self.numbers[kept], self.names)


def concepts_of(table: pa.Table, kinds: Sequence[ConceptKind]) -> Concepts:
    """The concepts of the rows of a table with the features of COLUMNS.

    nouns: of the descriptions; tags: the kept tags, whose nouns are in the singular too, so that both name one concept.
    """
    # names are numbered as they are found, then by the alphabet
    numbers: dict[str, int] = {}
    rows, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, table.num_rows, SLICE):
        for kind in kinds:
            places, named, names = _READ[kind](table.column(COLUMNS[kind]).slice(start, SLICE))
            codes = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
            rows.append(places + start)
            found.append(codes[named])
    names = sorted(numbers)
    ranks = np.argsort([numbers[name] for name in names])
    # both kinds may name one concept
    pairs = np.unique(np.concatenate(rows) * max(1, len(names)) + ranks[np.concatenate(found)])
    return Concepts(pairs // max(1, len(names)), pairs % max(1, len(names)), names)


def _tags_of(texts: pa.ChunkedArray) -> tuple[Ints, Ints, list[str]]:
    """The tags of texts with one a line, as `nouns_of`."""
    lines = pc.split_pattern(pc.fill_null(pc.utf8_lower(texts), ""), "\n")
    return names_in(lines, lambda tag: noun_of(tag.strip()) or tag.strip() or None)


_READ: dict[ConceptKind, Any] = {"nouns": nouns_of, "tags": _tags_of}


def least_caps(concepts: Concepts, hashes: Hashes) -> Floats:
    """For each row the least cap at which it stays: a cap t keeps the rows whose number is below t.

    hashes: of the rows, which decide. Rows that are added make numbers larger, so a cap only loses rows by them.
    """
    # rows that name nothing share one concept
    without = np.setdiff1d(np.arange(len(hashes)), concepts.rows)
    rows = np.concatenate([concepts.rows, without])
    numbers = np.concatenate([concepts.numbers, np.full(len(without), len(concepts.names))])
    counts = np.bincount(numbers, minlength=len(concepts.names) + 1)
    # a number from 0 to 1 for each pair of a row and a concept, of their hashes alone
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in [*concepts.names, NOTHING])
    drawn = _mixed(hashes[rows] ^ np.frombuffer(digests, np.dtype("<u8"))[numbers]) / 2.0**64
    least = np.full(len(hashes), np.inf)
    np.minimum.at(least, rows, drawn * counts[numbers])
    return least


def _mixed(values: Hashes) -> Any:
    """SplitMix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
