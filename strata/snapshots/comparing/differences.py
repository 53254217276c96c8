"""The difference of two snapshots: rows, parts, selection and provenance."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel

from strata.snapshots.selection import Selection
from strata.snapshots.snapshot import Snapshot
from strata.store import Part, Provenance


class Change(BaseModel):
    """A setting and its values in both snapshots, as JSON. A snapshot with parts of several profiles has several."""

    setting: str
    before: list[str]
    after: list[str]


class Overlap(BaseModel):
    """Counts. common: in both snapshots; added: only in the second; removed: only in the first."""

    common: int
    added: int
    removed: int


class Difference(BaseModel):
    """The second snapshot compared with the first. A row is the same in the parts of all attempts of its chunk."""

    rows: Overlap
    parts: Overlap
    selection: list[Change]
    provenance: list[Change]


def difference(first: Snapshot, second: Snapshot) -> Difference:
    """Compare two snapshots. Raises OSError if the store cannot be reached."""
    # number the rows the same way in both snapshots, so that sets of numbers can be compared
    chunks: dict[tuple[Any, ...], int] = {}
    rows = [_codes(snapshot, chunks) for snapshot in (first, second)]
    # selection and provenance are compared setting by setting
    chosen = [[_choices(snapshot.manifest.selection)] for snapshot in (first, second)]
    made = [[_content(one) for one in snapshot.provenance] for snapshot in (first, second)]
    return Difference(
        rows=_overlap(set_of=rows),
        parts=_overlap(set_of=[np.unique(_paths(snapshot)) for snapshot in (first, second)]),
        selection=list(_changes(*chosen)),
        provenance=list(_changes(*made)),
    )


def _codes(snapshot: Snapshot, chunks: dict[tuple[Any, ...], int]) -> np.typing.NDArray[np.int64]:
    """A number for each row of a snapshot that is the same in every snapshot: from its chunk and its index there."""
    # without the attempt, the last field of a part
    names = [Part.parse(path)[:-1] for path in snapshot.parts]
    numbers = np.array([chunks.setdefault(name, len(chunks)) for name in names], np.int64)
    rows = snapshot.rows()
    # the chunk in the high 32 bits, the row's index in the low ones
    return np.asarray(numbers[rows.column("part").to_numpy()] << 32 | rows.column("row").to_numpy())


def _paths(snapshot: Snapshot) -> list[str]:
    """The paths of a snapshot's parts, as this version of Strata writes them."""
    return [Part.parse(path).path for path in snapshot.parts]


def _overlap(set_of: list[np.typing.NDArray[Any]]) -> Overlap:
    first, second = set_of
    common = len(np.intersect1d(first, second, assume_unique=True))
    return Overlap(common=common, added=len(second) - common, removed=len(first) - common)


def _choices(selection: Selection) -> dict[str, Any]:
    """The selection's settings, with axes by feature, so that their order does not count as a difference."""
    values = selection.model_dump(mode="json")
    return values | {"axes": {axis.pop("feature"): axis for axis in values["axes"]}}


def _content(provenance: Provenance) -> dict[str, Any]:
    """The provenance without its time, which differs between equal ones."""
    return provenance.model_dump(mode="json", exclude={"kept_at"})


def _changes(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> Iterator[Change]:
    """The settings whose sets of values differ."""
    before, after = _values(first), _values(second)
    for setting in dict.fromkeys([*before, *after]):
        old, new = sorted(before[setting]), sorted(after[setting])
        if old != new:
            yield Change(setting=setting, before=old, after=new)


def _values(contents: list[dict[str, Any]]) -> defaultdict[str, set[str]]:
    """The values of every setting as JSON, by its path such as "stages.ocr.model"."""
    values: defaultdict[str, set[str]] = defaultdict(set)
    for content in contents:
        for setting, value in leaves(content):
            values[setting].add(json.dumps(value, ensure_ascii=False))
    return values


def leaves(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of nested settings with their paths."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
