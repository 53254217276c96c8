"""The better of several descriptions of an image: of the rows of one image under one key, one stays.

Criteria are names of features, of which the higher value is better, and with a `-` before it the lower one. Of `review`
what a person has accepted or edited comes before what nobody has judged, and what was rejected comes last. Rows that
are equal by the first criterion are compared by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from strata.errors import InvalidInput
from strata.snapshots.features import FEATURES, Kind

Ints = np.typing.NDArray[np.int64]
Floats = np.typing.NDArray[np.float64]

_REVIEWS = {"accepted": 2.0, "edited": 2.0, "rejected": 0.0}
_UNJUDGED = 1.0


class Better(BaseModel):
    """What was chosen among several rows of an image.

    images: those with several rows; ties: those whose best rows were equal by all criteria, so that the first one in
    the order of the parts stays; taken: of these images, how many have their row from which fingerprint.
    """

    images: int
    ties: int
    taken: dict[str, int]


def checked_criteria(criteria: Sequence[str], own: Mapping[str, Kind]) -> None:
    """Raise InvalidInput for a criterion that is none. own: columns of the user's scores, with their kinds."""
    for criterion in criteria:
        name = criterion.removeprefix("-")
        kind = own.get(name) or (FEATURES[name].kind if name in FEATURES else None)
        if kind is None:
            raise InvalidInput(f"better: there is no feature {name!r}; there are: review, {', '.join(_numbers(own))}")
        if kind == "name" and criterion != "review":
            raise InvalidInput(f"better: {name!r} has no order; those with one are: review, {', '.join(_numbers(own))}")


def _numbers(own: Mapping[str, Kind]) -> list[str]:
    known = {name: feature.kind for name, feature in FEATURES.items()} | dict(own)
    return [name for name, kind in known.items() if kind != "name"]


def features_of(criteria: Sequence[str], own: Mapping[str, Kind]) -> set[str]:
    """The features that criteria read, with those by which rows of one image are found."""
    names = {criterion.removeprefix("-") for criterion in criteria} - own.keys()
    return names | {"image"} if criteria else set()


def better_rows(table: pa.Table, fingerprints: Sequence[str], criteria: Sequence[str]) -> tuple[Ints, Better]:
    """The indices of the rows that stay, in order, of a table of features with the columns part, key and image.

    Rows are of one image if the image and the key are equal: an image that a data set has under two keys stays twice.
    fingerprints: by the numbers of the parts.
    """
    images = _groups(table)
    worth = [_worth(table, criterion) for criterion in criteria]
    # sort by image, then by the criteria; equal rows stay in the order of the table
    order = np.lexsort((*(-values for values in reversed(worth)), images))
    starts = np.flatnonzero(np.diff(images[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    best = order[starts]
    several = lengths > 1
    second = order[starts[several] + 1]
    tied = np.ones(len(second), np.bool_)
    for values in worth:
        tied &= values[best[several]] == values[second]
    return np.sort(best), Better(
        images=int(several.sum()), ties=int(tied.sum()), taken=_taken(table, best[several], fingerprints)
    )


def _groups(table: pa.Table) -> Ints:
    """A number for each image under each key, the same in all its rows."""
    codes = [table.column(name).combine_chunks().dictionary_encode().indices.to_numpy() for name in ("image", "key")]
    pairs = codes[0].astype(np.int64) << 32 | codes[1]
    return np.asarray(np.unique(pairs, return_inverse=True)[1], np.int64)


def _worth(table: pa.Table, criterion: str) -> Floats:
    """The value of each row, of which the higher one is better; a row without one is worse than all others."""
    name = criterion.removeprefix("-")
    column = table.column(name)
    if name == "review":
        return np.array([_REVIEWS.get(one, _UNJUDGED) for one in column.to_pylist()], np.float64)
    values = pc.cast(column, pa.float64()).to_numpy()
    return np.asarray(np.nan_to_num(-values if criterion.startswith("-") else values, nan=-np.inf), np.float64)


def _taken(table: pa.Table, rows: Ints, fingerprints: Sequence[str]) -> dict[str, int]:
    numbers, counts = np.unique(table.column("part").to_numpy()[rows], return_counts=True)
    found = dict.fromkeys(sorted(set(fingerprints)), 0)
    for number, count in zip(numbers, counts, strict=True):
        found[fingerprints[int(number)]] += int(count)
    return found
