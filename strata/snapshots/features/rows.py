"""Features of the rows of parts. Only the columns that they need are read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.core import Status
from strata.errors import InvalidInput
from strata.judgments import Judgments, Review, Subject, reviews
from strata.snapshots.features.catalogue import FEATURES, Feature
from strata.snapshots.features.values import NOTHING
from strata.store import READERS, FeatureReader, Part, Store

PARTS_AT_ONCE = 64  # parts whose columns are computed together in one thread
_ALWAYS = ("key", "status")


@dataclass(frozen=True)
class Rows:
    """The succeeded rows of some parts, and the number of all rows by status.

    table: part (int32, index in the list of parts), row (int32, index in the part), key, and one column per feature;
    sorted by part and row. ways: how the stages of the group `features` have computed that were read.
    """

    table: pa.Table
    statuses: Counter[str]
    ways: Mapping[str, str] = field(default_factory=dict)


def read_rows(
    store: Store,
    parts: Sequence[str],
    features: Iterable[str],
    advance: Callable[[int], object] = lambda parts: None,
    ways: Mapping[str, str] | None = None,
    statuses: Collection[Status] = (Status.SUCCEEDED,),
    whole: bool = False,
) -> Rows:
    """Read features of all rows of parts that have ended so (statuses), which are those that succeeded.

    parts: paths from the store's root. advance: gets the numbers of parts that were read. ways: of stages of the group
    `features`, where there are several. whole: whether features that need all rows may be asked for; the caller sets
    them. Raises FileNotFoundError for a missing part, LostJudgments for `review`, MissingFeatures and InvalidInput.
    """
    names = _names(features, whole)
    own, beside = ([FEATURES[name] for name in names if bool(FEATURES[name].stage) is there] for there in (False, True))
    columns = list(dict.fromkeys((*_ALWAYS, *(column for feature in own for column in feature.columns))))
    reader = FeatureReader(store, ways) if beside else None
    said = reviews(Judgments(store).of_fingerprints(_fingerprints(parts)).whole()) if "review" in names else {}

    def read(start: int) -> tuple[pa.Table, Counter[str], int]:
        batch = parts[start : start + PARTS_AT_ONCE]
        tables = [_with_origin(index, store.read_columns(path, columns)) for index, path in enumerate(batch, start)]
        tables = [_with_features(*each, reader, beside) for each in zip(tables, batch, strict=True)]
        table = pa.concat_tables(tables).combine_chunks()
        table, counts = _ended_so(table, statuses)
        if "review" in names:
            table = table.append_column("review", _reviewed(table, parts, said))
        computed = {name: FEATURES[name].compute(table) for name in names}
        return pa.table({"part": table["part"], "row": table["row"], **computed}), counts, len(batch)

    found, ended = [], Counter[str]()
    # threads wait for a remote store, and compute on a local one
    with ThreadPoolExecutor(os.cpu_count() if store.local else READERS) as pool:
        for table, counts, number in pool.map(read, range(0, len(parts), PARTS_AT_ONCE)):
            found.append(table)
            ended += counts
            advance(number)
    return Rows(pa.concat_tables(found).combine_chunks(), ended, reader.used if reader is not None else {})


def _ended_so(table: pa.Table, statuses: Collection[Status]) -> tuple[pa.Table, Counter[str]]:
    """The rows with some statuses, and the number of all rows by status."""
    column, wanted = table.column("status"), pa.array([status.value for status in statuses], pa.string())
    return table.filter(pc.is_in(column, value_set=wanted)).combine_chunks(), Counter(column.to_pylist())


def _names(features: Iterable[str], whole: bool) -> list[str]:
    """The features that are read, sorted. Raises InvalidInput for one that only the selection of a snapshot knows."""
    names = sorted({*features, "key"})
    for name in names:
        if FEATURES[name].whole and not whole:
            raise InvalidInput(f"the feature {name!r} needs all rows: only `strata snapshot create` has it")
    return names


def _with_features(table: pa.Table, path: str, reader: FeatureReader | None, features: Sequence[Feature]) -> pa.Table:
    """A part's columns with those of its parts of the group `features`, which have the same rows."""
    for stage in dict.fromkeys(feature.stage for feature in features):
        assert reader is not None
        columns = [column for feature in features if feature.stage == stage for column in feature.columns]
        found = reader.read(Part.parse(path), str(stage), columns)
        for name in found.column_names:
            table = table.append_column(name, found.column(name))
    return table


def _fingerprints(parts: Sequence[str]) -> set[str]:
    return {Part.parse(path).fingerprint for path in parts}


def _reviewed(table: pa.Table, parts: Sequence[str], said: Mapping[Subject, Review]) -> pa.Array:
    """What people said of each row, by its part and key."""
    rows = zip(table.column("part").to_pylist(), table.column("key").to_pylist(), strict=True)
    named = ((Part.parse(parts[part]), key) for part, key in rows) if said else ()
    found = [said.get(Subject(part.fingerprint, part.identity, key), NOTHING) for part, key in named]
    return pa.array(found if said else [NOTHING] * table.num_rows, pa.string())


def _with_origin(index: int, table: pa.Table) -> pa.Table:
    """A part's columns, with the index of the part and of each row in it."""
    rows = np.arange(table.num_rows, dtype=np.int32)
    return table.append_column("part", pa.array(np.full_like(rows, index))).append_column("row", pa.array(rows))
