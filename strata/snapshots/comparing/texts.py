"""Two descriptions of the same images side by side: whose texts have changed, and how the matcher's scores have.

Rows are of the same image if the feature `image` is the same: where it lies, or its SHA-256. In memory are some numbers
for each row; the texts of the pairs that are shown are read again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from strata.snapshots.features import read_rows
from strata.snapshots.places import places_of
from strata.snapshots.snapshot import Snapshot
from strata.store import Part, Store, matchers_of

Ints = np.typing.NDArray[np.int64]
Floats = np.typing.NDArray[np.float64]

SLICE = 1024  # parts whose texts are in memory at a time
STEP = 0.005  # of the matcher's mean: what differs by less counts as equal


@dataclass(frozen=True)
class Descriptions:
    """What is compared: parts as paths, and which of their rows (columns part and row, sorted); None: all."""

    store: Store
    parts: Sequence[str]
    rows: pa.Table | None = None

    @classmethod
    def of_snapshot(cls, store: Store, snapshot: Snapshot) -> Descriptions:
        """The rows of a snapshot. Raises OSError."""
        return cls(store, snapshot.parts, snapshot.rows())

    def differs(self, other: Descriptions) -> bool:
        """Whether an image can have another text in the other side: they have the parts of several fingerprints."""
        return len(self.fingerprints | other.fingerprints) > 1

    @functools.cached_property
    def fingerprints(self) -> set[str]:
        """The fingerprints of the parts."""
        return {Part.parse(path).fingerprint for path in self.parts}


class Side(BaseModel):
    """A description of an image. text: the description, without one the caption; match: as the feature, 0 to 1.

    part: its path from the store's root; row: the index in it.
    """

    text: str
    match: float
    part: str
    row: int


class Pair(BaseModel):
    """An image that both sides describe. key: as in the first side."""

    key: str
    before: Side
    after: Side


class Compared(BaseModel):
    """The second side compared with the first.

    images: that both describe; changed: those with another text; only_before, only_after: rows of images, or further
    rows of the same images, that have no row beside them. match_before, match_after: means of the feature `match` over
    the images of both; higher, lower: images whose match is so in the second side, by STEP at least. matchers: the
    models that have computed it, if there are several: their probabilities are not on one scale. pairs: some of those
    with another text, the largest changes of the match first.
    """

    images: int
    changed: int
    only_before: int
    only_after: int
    match_before: float | None
    match_after: float | None
    higher: int
    lower: int
    matchers: list[str] = Field(default_factory=list)
    pairs: list[Pair]


class _Rows(NamedTuple):
    """Numbers of rows: hashes of the image and of the text, the match, and the place (part in the high 32 bits)."""

    images: np.typing.NDArray[np.uint64]
    texts: np.typing.NDArray[np.uint64]
    match: Floats
    places: Ints

    def take(self, indices: Ints) -> _Rows:
        return _Rows(self.images[indices], self.texts[indices], self.match[indices], self.places[indices])


def compared(
    first: Descriptions, second: Descriptions, shown: int = 0, advance: Callable[[int], object] = lambda parts: None
) -> Compared:
    """Compare two sides. shown: the most pairs that are given. advance: gets the numbers of parts that were read.

    Raises OSError, and FileNotFoundError for lost parts.
    """
    whole = [_rows(side, advance) for side in (first, second)]
    # of several rows of one image the first one stands for all
    _, left, right = np.intersect1d(whole[0].images, whole[1].images, return_indices=True)
    before, after = whole[0].take(left), whole[1].take(right)
    rise = after.match - before.match
    changed = np.flatnonzero(before.texts != after.texts)
    # the largest changes first; equal ones in the order of the first side
    chosen = changed[np.lexsort((before.places[changed], -np.abs(rise[changed])))][:shown]
    both = len(left)
    matchers = matchers_of(first.store, first.fingerprints | second.fingerprints)
    return Compared(
        images=both,
        changed=len(changed),
        only_before=len(whole[0].images) - both,
        only_after=len(whole[1].images) - both,
        match_before=float(before.match.mean()) if both else None,
        match_after=float(after.match.mean()) if both else None,
        higher=int((rise >= STEP).sum()),
        lower=int((rise <= -STEP).sum()),
        matchers=matchers if len(matchers) > 1 else [],
        pairs=list(_pairs((first, second), (before.take(chosen), after.take(chosen)))),
    )


def _rows(side: Descriptions, advance: Callable[[int], object]) -> _Rows:
    found = list(_slices(side, advance))
    if not found:
        none = np.zeros(0, np.uint64)
        return _Rows(none, none, np.zeros(0), np.zeros(0, np.int64))
    return _Rows(
        np.concatenate([one.images for one in found]),
        np.concatenate([one.texts for one in found]),
        np.concatenate([one.match for one in found]),
        np.concatenate([one.places for one in found]),
    )


def _slices(side: Descriptions, advance: Callable[[int], object]) -> Iterator[_Rows]:
    wanted = None if side.rows is None else places_of(side.rows)
    for start in range(0, len(side.parts), SLICE):
        paths = side.parts[start : start + SLICE]
        if wanted is not None:
            ends = np.searchsorted(wanted, [start << 32, start + len(paths) << 32])
            if ends[0] == ends[1]:
                advance(len(paths))
                continue
        table = read_rows(side.store, paths, {"image", "description", "caption", "match"}, advance).table
        places = places_of(table) + (start << 32)
        kept = np.arange(len(places)) if wanted is None else np.flatnonzero(np.isin(places, wanted[slice(*ends)]))
        table = table.take(pa.array(kept))
        texts = list(map(_text, _list(table, "description"), _list(table, "caption")))
        match = np.asarray(table.column("match").to_numpy(), np.float64)
        yield _Rows(_hashes(_list(table, "image")), _hashes(texts), match, places[kept])


def _text(description: str, caption: str) -> str:
    return description or caption


def _list(table: pa.Table, name: str) -> list[str]:
    found: list[str] = table.column(name).to_pylist()
    return found


def _hashes(texts: Sequence[str]) -> np.typing.NDArray[np.uint64]:
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), np.dtype("<u8")).astype(np.uint64)


def _pairs(sides: tuple[Descriptions, Descriptions], rows: tuple[_Rows, _Rows]) -> Iterator[Pair]:
    both = zip(sides, rows, strict=True)
    before, after = (list(map(functools.partial(_side, side), one.places, one.match)) for side, one in both)
    for (key, first), (_, second) in zip(before, after, strict=True):
        yield Pair(key=key, before=first, after=second)


def _side(side: Descriptions, place: np.int64, match: np.float64) -> tuple[str, Side]:
    part, row = side.parts[int(place) >> 32], int(place) & 0xFFFFFFFF
    columns = side.store.read_columns(part, ["key", "description.text", "caption.text"]).slice(row, 1)
    (found,) = columns.to_pylist()
    description, caption = ((found[name] or {}).get("text") or "" for name in ("description", "caption"))
    return found["key"], Side(text=_text(description, caption), match=float(match), part=part, row=row)
