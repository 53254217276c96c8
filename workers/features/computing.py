"""Which parts of the group `features` rows lack, and computing them: each image is read and decoded once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from models.base import Stage
from models.building import build_stage, load_stages
from models.items import Failure
from models.weights.cache import fetched_for
from strata.core import FEATURE_COLUMNS, READS_EMBEDDING, READS_TEXTS, Profile, part_schema
from strata.errors import InvalidInput
from strata.store import (
    BrokenPart,
    FeatureKind,
    FeatureReader,
    Part,
    Store,
    feature_part,
    keep_kind,
    kind_of,
    write_features,
)
from workers.features.reading import FileAway, PartImages

EMBEDDING = "embedding"  # the stage that READS_EMBEDDING read
_TEXTS = ("description.text", "caption.text")  # what a stage that reads texts reads: the first that there is


@dataclass
class Totals:
    """What was computed: parts, rows with values and rows without, by stage.

    unread: a line for each `llm` part that is broken, or whose images cannot be read now: nothing was written beside
    it. gone: `llm` parts that were deleted meanwhile.
    """

    parts: dict[str, int] = field(default_factory=dict)
    succeeded: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    gone: int = 0

    def add(self, stage: str, counts: Mapping[str, int]) -> None:
        """Count one part more."""
        for numbers, number in (
            (self.parts, 1),
            (self.succeeded, counts.get("succeeded", 0)),
            (self.failed, counts.get("failed", 0)),
        ):
            numbers[stage] = numbers.get(stage, 0) + number


Missing = tuple[Part, tuple[FeatureKind, ...]]  # a `llm` part, and what is to be computed beside it


class FeatureRun:
    """Computes stages of a profile beside `llm` parts.

    stages: their names; none: all of the profile. A stage that reads embeddings has those computed that lack.
    max_pixels: of an image that is decoded. Raises InvalidInput for a profile without such stages.
    """

    def __init__(self, store: Store, profile: Profile, stages: Sequence[str], max_pixels: int) -> None:
        known = list(profile.feature_ways())
        self._names = list(dict.fromkeys(stages)) or known
        if unknown := [name for name in self._names if name not in known]:
            there = f"it has: {', '.join(known)}" if known else "it has none of the group `features`"
            raise InvalidInput(f"the profile {profile.name!r} has no stage {unknown[0]!r} of features; {there}")
        if not known:
            raise InvalidInput(f"the profile {profile.name!r} has no stage of the group `features`")
        if READS_EMBEDDING.intersection(self._names) and EMBEDDING not in self._names:
            self._names.append(EMBEDDING)
        self._store, self._profile, self._images = store, profile, PartImages(store, max_pixels)
        self._stages: dict[str, Stage[Any, Any]] = {}

    def missing(self, parts: Iterable[Part]) -> list[Missing]:
        """What is to be computed, in order. It takes one listing for each shard and stage.

        Raises MissingFeatures if the store does not know the profile of the parts, and OSError.
        """
        kinds: dict[str, list[FeatureKind]] = {}
        listed: dict[str, dict[int, dict[int, list[str]]]] = {}
        found = []
        for part in parts:
            if part.fingerprint not in kinds:
                kinds[part.fingerprint] = [
                    kind_of(self._store, self._profile, name, part.fingerprint) for name in self._names
                ]
            lacking = []
            for kind in kinds[part.fingerprint]:
                folder = feature_part(part, kind.fingerprint).folder
                if folder not in listed:
                    listed[folder] = self._store.attempts_in(folder).found
                    if listed[folder]:  # a note that is away would hide them
                        keep_kind(self._store, kind)
                if max(listed[folder].get(part.number, ()), default=-1) < part.attempt:
                    lacking.append(kind)
            if lacking:
                found.append((part, tuple(lacking)))
        return found

    def run(self, missing: Sequence[Missing], advance: Callable[[int], object] = lambda parts: None) -> Totals:
        """Compute parts and write them. advance: gets the number of `llm` parts done since the last call.

        Raises OSError, and the errors of loading stages and of `Stage.run`.
        """
        totals = Totals()
        self._load({kind.stage for _, kinds in missing for kind in kinds})
        for part, kinds in missing:
            try:
                self._write(part, kinds, self._computed(part, kinds), totals)
            except (FileAway, BrokenPart) as error:
                totals.unread.append(str(error) if isinstance(error, BrokenPart) else f"{part.path}: {error}")
            except FileNotFoundError:
                if not self._store.lost([part]):
                    raise
                totals.gone += 1
            advance(1)
        return totals

    def _write(
        self, part: Part, kinds: Sequence[FeatureKind], made: Sequence[tuple[str, pa.Table]], totals: Totals
    ) -> None:
        """Write the parts beside a `llm` part, and take them back if that was deleted meanwhile: see `Deletion`."""
        counts = []
        for kind, (shard, table) in zip(kinds, made, strict=True):
            keep_kind(self._store, kind)
            counts.append(write_features(self._store, part, kind, shard, table))
        if self._store.lost([part]):
            for kind in kinds:
                self._store.remove(self._store.path(feature_part(part, kind.fingerprint).path))
            totals.gone += 1
            return
        for kind, count in zip(kinds, counts, strict=True):
            totals.add(kind.stage, count)

    def _load(self, names: Iterable[str]) -> None:
        new = {name: build_stage(name, self._profile.stages[name]) for name in sorted(names)}
        with fetched_for(self._profile.name):
            load_stages(new)
        self._stages |= new

    def _computed(self, part: Part, kinds: Sequence[FeatureKind]) -> list[tuple[str, pa.Table]]:
        """For each kind the shard and the table of its part. Raises FileAway, BrokenPart and FileNotFoundError."""
        rows = self._store.read_columns(part.path, ["key", "status", "image", *_TEXTS]).to_pylist()
        stages = [kind.stage for kind in kinds]
        made: dict[str, list[Any]] = {stage: [] for stage in stages}
        of_images = [stage for stage in stages if stage not in READS_TEXTS | READS_EMBEDDING]
        for images in self._images.of(rows, part.identity) if of_images else ():
            for stage in of_images:
                made[stage] += _results(self._stages[stage], images)
        for stage in READS_TEXTS.intersection(stages):
            made[stage] += _results(self._stages[stage], [_text_of(row) for row in rows])
        for stage in READS_EMBEDDING.intersection(stages):
            made[stage] += _results(self._stages[stage], self._embeddings(part, made.get(EMBEDDING)))
        keys = [row["key"] for row in rows]
        shard = rows[0]["image"]["uri"] if rows else ""
        return [(shard, table_of(stage, keys, made[stage])) for stage in stages]

    def _embeddings(self, part: Part, made: Sequence[Any] | None) -> list[Any]:
        """The embedding of each row, or why it has none. made: the results that were just computed; None: read them."""
        if made is not None:
            return [_why(_reason(one)) if isinstance(one, Failure | Exception) else one[EMBEDDING] for one in made]
        table = self._reader.read(part, EMBEDDING, [f"{EMBEDDING}.list.element", "failure"])
        vectors, reasons = table.column(EMBEDDING), table.column("failure").to_pylist()
        return [
            vector.values.to_numpy(zero_copy_only=False) if vector.is_valid else _why(reason)
            for vector, reason in zip(vectors, reasons, strict=True)
        ]

    @functools.cached_property
    def _reader(self) -> FeatureReader:
        return FeatureReader(self._store, {EMBEDDING: self._profile.feature_ways()[EMBEDDING]})


def _why(reason: str) -> ValueError:
    return ValueError(f"it has no embedding: {reason}")


def table_of(stage: str, keys: Sequence[str], results: Sequence[Any]) -> pa.Table:
    """The table of a part: a row for each key, with the values of its result, or with the reason of a failure."""
    columns = {}
    for column in FEATURE_COLUMNS[stage]:
        values = [None if isinstance(one, Failure | Exception) else one[column.name] for one in results]
        columns[column.name] = _vectors(values, column.type) if pa.types.is_list(column.type) else values
    failures = [_reason(one) if isinstance(one, Failure | Exception) else None for one in results]
    return pa.table({"key": list(keys), **columns, "failure": failures}, schema=part_schema(stage))


def _vectors(values: Sequence[Any], kind: pa.DataType) -> pa.ListArray:
    """Vectors as a list column; null where there is none."""
    number = kind.value_type.to_pandas_dtype()
    there = [np.asarray(one, number) for one in values if one is not None]
    flat = np.concatenate(there) if there else np.zeros(0, number)
    offsets = np.cumsum([0, *(0 if one is None else len(one) for one in values)]).astype(np.int32)
    missing = pa.array([one is None for one in values], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind, mask=missing)


def _results(stage: Stage[Any, Any], items: Sequence[Any]) -> list[Any]:
    """The results of a stage, in order; an item that is an exception, or None, stays one."""
    there = [item for item in items if item is not None and not isinstance(item, Exception)]
    found = iter(stage.run(there) if there else ())
    return [
        item if isinstance(item, Exception) else ValueError("there is no text") if item is None else next(found)
        for item in items
    ]


def _text_of(row: Mapping[str, Any]) -> str | None:
    texts = ((row[name.partition(".")[0]] or {}).get("text") for name in _TEXTS)
    return next((text for text in texts if text), None)


def _reason(error: Failure | Exception) -> str:
    text = f"{error.error_type}: {error.detail}" if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]
