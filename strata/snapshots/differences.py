"""The differences between two snapshots: rows, parts, selection, and the profiles that made the parts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel

from strata.snapshots.selection import Selection
from strata.snapshots.snapshots import Snapshot
from strata.store import Part, Provenance


class Change(BaseModel):
    """A setting and its values in either snapshot, as JSON: several where parts of several profiles are in it."""

    setting: str
    before: list[str]
    after: list[str]


class Overlap(BaseModel):
    """How many are in both, in the second only, in the first only."""

    common: int
    added: int
    removed: int


class Difference(BaseModel):
    """The second snapshot compared with the first. A retried image is the same row in both attempts' parts."""

    rows: Overlap
    parts: Overlap
    selection: list[Change]
    provenance: list[Change]


def difference(first: Snapshot, second: Snapshot) -> Difference:
    """Compare two snapshots. Raises OSError where the store cannot be reached."""
    chunks: dict[tuple[Any, ...], int] = {}
    rows = [_codes(snapshot, chunks) for snapshot in (first, second)]
    chosen = [[_choices(snapshot.manifest.selection)] for snapshot in (first, second)]
    made = [[_content(one) for one in snapshot.provenance] for snapshot in (first, second)]
    return Difference(
        rows=_overlap(set_of=rows),
        parts=_overlap(set_of=[np.unique(snapshot.parts) for snapshot in (first, second)]),
        selection=list(_changes(*chosen)),
        provenance=list(_changes(*made)),
    )


def _codes(snapshot: Snapshot, chunks: dict[tuple[Any, ...], int]) -> np.typing.NDArray[np.int64]:
    """A number for each row of a snapshot, the same in every snapshot: of its chunk and its index in the chunk."""
    names = [Part.parse(path)[:-1] for path in snapshot.parts]
    numbers = np.array([chunks.setdefault(name, len(chunks)) for name in names], np.int64)
    rows = snapshot.rows()
    return np.asarray(numbers[rows.column("part").to_numpy()] << 32 | rows.column("row").to_numpy())


def _overlap(set_of: list[np.typing.NDArray[Any]]) -> Overlap:
    first, second = set_of
    common = len(np.intersect1d(first, second, assume_unique=True))
    return Overlap(common=common, added=len(second) - common, removed=len(first) - common)


def _choices(selection: Selection) -> dict[str, Any]:
    values = selection.model_dump(mode="json")
    return values | {"axes": {axis.pop("feature"): axis for axis in values["axes"]}}


def _content(provenance: Provenance) -> dict[str, Any]:
    return provenance.model_dump(mode="json", exclude={"kept_at"})


def _changes(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> Iterator[Change]:
    before, after = _values(first), _values(second)
    for setting in dict.fromkeys([*before, *after]):
        old, new = sorted(before[setting]), sorted(after[setting])
        if old != new:
            yield Change(setting=setting, before=old, after=new)


def _values(contents: list[dict[str, Any]]) -> defaultdict[str, set[str]]:
    """Every setting, by its path, with the values that it has."""
    values: defaultdict[str, set[str]] = defaultdict(set)
    for content in contents:
        for setting, value in _settings(content):
            values[setting].add(json.dumps(value, ensure_ascii=False))
    return values


def _settings(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
