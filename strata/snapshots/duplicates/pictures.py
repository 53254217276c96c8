"""Which rows show the same picture: equal bytes or pixels, and pictures that look alike although these differ.

Alike means that the PDQ hashes (Meta, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019)
differ in at most MOST_DIFFERENT of 256 bits. PDQ's authors call up to 31 a match. Of 129 photographs, saved again with
quality 30 to 50, or at half or one and a half of their size, 99 % are within 31 bits, and of those that lost 2 % of
their sides 84 %; different pictures differ by 96 bits or more. A picture with a quality below LEAST_QUALITY, mostly
one of a single colour, has hardly any edges: its hash says nothing, so only equal bytes or pixels count.

A picture that lost 5 % of its sides, or has other colours, differs in more bits: such copies are found by thumbnails
(`thumbnails.py`). Where more bits may differ (`bits`), all hashes are compared with one another.

Embeddings find pictures of the same things; what cosine means the same depends on the model (`vectors.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from strata.errors import InvalidInput
from strata.snapshots.duplicates.arrays import Ints, RowArray
from strata.snapshots.duplicates.thumbnails import copies
from strata.snapshots.duplicates.vectors import Pairs, alike_vectors

MOST_DIFFERENT = 31  # bits of 256
LEAST_QUALITY = 50  # of 0 to 100
BANDS = 16  # of 16 bits: hashes that differ in 31 bits have a band that differs in at most one
MOST_PAIRS = 2_000_000  # pairs that are compared together
Hashes = np.typing.NDArray[np.uint16]
# each finds what the one before it finds: equal bytes, equal pixels, pictures that look alike, also mirror images of
# them, those that lost up to 5 % of their sides or have other colours, pictures whose embeddings are near each other
Same = Literal["bytes", "pixels", "near", "mirrored", "cropped", "embedding"]
HASHED: tuple[Same, ...] = ("near", "mirrored", "cropped", "embedding")
ALL = 20_000  # hashes that are all compared with one another without faiss
BLOCK = 256  # hashes that are compared with all others together


class SameError(InvalidInput):
    """Pictures that cannot be compared as asked. The message gives the reason in one line."""


@dataclass(frozen=True)
class PictureHashes:
    """The hashes of the pictures of some rows.

    sha256: of their bytes as hexadecimal digits, or another text that identifies a picture that cannot be read; pdq:
    (rows, 16) uint16; quality: (rows,) 0 to 100, 0 for a picture that cannot be read; unread: their number. pixels:
    hashes of the pixels, empty for a picture that cannot be decoded; mirrored: as pdq, of the mirror images;
    thumbnails: (rows, THUMBNAIL_BYTES) uint8, or zeros; vectors: (rows, width) of length 1, or zeros where there is
    none. The last four only where they are compared.
    """

    sha256: list[str]
    pdq: Hashes
    quality: Ints
    unread: int = 0
    pixels: Sequence[bytes] | None = None
    mirrored: Hashes | None = None
    thumbnails: RowArray | None = None
    vectors: RowArray | None = None

    def take(self, rows: Ints) -> Self:
        """Those of some rows, in this order."""
        return replace(
            self,
            sha256=[self.sha256[row] for row in rows],
            pdq=self.pdq[rows],
            quality=self.quality[rows],
            pixels=None if self.pixels is None else [self.pixels[row] for row in rows],
            mirrored=None if self.mirrored is None else self.mirrored[rows],
            thumbnails=None if self.thumbnails is None else self.thumbnails.take(rows),
            vectors=None if self.vectors is None else self.vectors.take(rows),
        )

    def identities(self, same: Same) -> list[str]:
        """What equal pictures have in common: the hash of the bytes, or of the pixels where that is known."""
        if same == "bytes" or (self.pixels is None and same != "pixels"):
            return self.sha256
        if self.pixels is None:
            raise SameError("the hashes of the pixels are not there")
        return [pixels.hex() or other for pixels, other in zip(self.pixels, self.sha256, strict=True)]


def same_pictures(hashes: PictureHashes, same: Same, alike: float | None = None, bits: int = MOST_DIFFERENT) -> Ints:
    """For each row the index of the first row with the same picture.

    alike: the least cosine of embeddings that are near each other; bits: by which hashes differ at most. If A looks
    like B, and B like C, all three are the same. Raises SameError if what is compared is not there.
    """
    # equal bytes first, so that each picture is compared once
    _, firsts, places = np.unique(np.array(hashes.identities(same), object), return_index=True, return_inverse=True)
    parents = np.arange(len(firsts))
    for ones, others in _pairs(hashes.take(firsts), None, same, alike, bits):
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            _join(parents, one, other)
    roots = np.array([_root(parents, place) for place in range(len(parents))] or [0], np.int64)
    # the first row of each group of pictures
    first_of_root = np.full(len(parents) or 1, len(hashes.sha256), np.int64)
    np.minimum.at(first_of_root, roots[: len(firsts)], firsts)
    return np.asarray(first_of_root[roots[places]] if len(firsts) else places, np.int64)


def found_in(
    hashes: PictureHashes, others: PictureHashes, same: Same, alike: float | None = None, bits: int = MOST_DIFFERENT
) -> Ints:
    """For each row the index of the first of the other pictures that is the same, -1 for none. Raises SameError.

    Each row is compared with the other pictures alone: a row that is like another row that is like one of them stays.
    """
    last = len(others.sha256)
    known = {identity: number for number, identity in reversed(list(enumerate(others.identities(same))))}
    found = np.array([known.get(identity, last) for identity in hashes.identities(same)], np.int64)
    for rows, like in _pairs(hashes, others, same, alike, bits):
        np.minimum.at(found, rows, like)
    return np.where(found == last, -1, found)


def _pairs(
    queries: PictureHashes, database: PictureHashes | None, same: Same, alike: float | None, bits: int
) -> Iterator[Pairs]:
    """Indices of pictures that are alike, of two tables, or of one with itself; a pair may come twice."""
    inside = queries if database is None else database
    if same not in HASHED or not queries.sha256 or not inside.sha256:
        return
    for ones, others in _alike_hashes(queries, inside, same, bits):
        if database is None:
            two = ones != others
            ones, others = ones[two], others[two]
        yield ones, others
    if same in ("cropped", "embedding"):
        if queries.thumbnails is None or inside.thumbnails is None:
            raise SameError(f"{same!r} needs thumbnails, which are not there")
        yield from copies(queries.thumbnails, None if database is None else inside.thumbnails)
    if same == "embedding":
        if alike is None or queries.vectors is None or inside.vectors is None:
            raise SameError("embeddings are compared only where they are there, and with the least cosine (--alike)")
        if queries.vectors.width != inside.vectors.width:
            raise SameError("the embeddings are those of different models")
        yield from alike_vectors(queries.vectors, None if database is None else inside.vectors, alike)


def _alike_hashes(queries: PictureHashes, inside: PictureHashes, same: Same, bits: int) -> Iterator[Pairs]:
    """Indices of pictures whose PDQ hashes are alike, those of one picture with itself included."""
    asked, known = (np.flatnonzero(one.quality >= LEAST_QUALITY) for one in (queries, inside))
    find = _near if bits <= MOST_DIFFERENT else _near_by_all
    for hashes in _turns(queries, same):
        ones, others = hashes[asked], inside.pdq[known]
        # the fewer are looked for among the more
        if len(asked) <= len(known):
            pairs = find(ones, others, bits)
        else:
            pairs = ((one, other) for other, one in find(others, ones, bits))
        for one, other in pairs:
            yield asked[one], known[other]


def _turns(queries: PictureHashes, same: Same) -> Iterator[Hashes]:
    """The hashes that are looked for: of the pictures, and of their mirror images."""
    yield queries.pdq
    if same != "near":
        if queries.mirrored is None:
            raise SameError(f"{same!r} needs the hashes of mirror images, which are not there")
        yield queries.mirrored


def _near_by_all(queries: Hashes, database: Hashes, most: int) -> Iterator[Pairs]:
    """As `_near`, for any number of bits: each hash is compared with all others. Raises SameError without faiss."""
    if len(database) <= ALL:
        words, whole = (np.ascontiguousarray(one).view(np.uint64) for one in (queries, database))
        for start in range(0, len(queries), BLOCK):
            different = np.bitwise_count(words[start : start + BLOCK, None] ^ whole[None]).sum(axis=2)
            ones, others = np.nonzero(different <= most)
            yield ones + start, others
        return
    try:
        import faiss
    except ImportError:
        raise SameError("more than 31 bits are compared with faiss: pip install 'strata[curation]'") from None
    index = faiss.IndexBinaryFlat(256)
    index.add(np.ascontiguousarray(database).view(np.uint8))
    for start in range(0, len(queries), ALL):
        some = np.ascontiguousarray(queries[start : start + ALL]).view(np.uint8)
        bounds, _, others = index.range_search(some, most + 1)  # those below the radius
        found = (bounds[1:] - bounds[:-1]).astype(np.int64)
        yield np.repeat(np.arange(len(some)), found) + start, others.astype(np.int64)


def _near(queries: Hashes, database: Hashes, most: int) -> Iterator[Pairs]:
    """Pairs of indices of hashes that differ in at most `most` bits, up to 31; a pair may come several times."""
    masks = np.array([0, *(1 << bit for bit in range(16))], np.uint16)
    everyone = np.arange(len(queries))
    for band in range(BANDS):
        values = queries[:, band]
        order = np.argsort(database[:, band], kind="stable")
        ordered = database[order, band]
        # all whose band differs in at most one bit are next to each other, once the bit is changed
        for mask in masks:
            starts = np.searchsorted(ordered, values ^ mask, "left")
            counts = np.searchsorted(ordered, values ^ mask, "right") - starts
            for rows in _portions(everyone, counts):
                ones = np.repeat(rows, counts[rows])
                steps = np.arange(len(ones)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
                others = order[np.repeat(starts[rows], counts[rows]) + steps]
                near = np.bitwise_count(queries[ones] ^ database[others]).sum(axis=1) <= most
                yield ones[near], others[near]


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
