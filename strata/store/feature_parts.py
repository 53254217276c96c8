"""The parts of the group `features`: beside the `llm` part of a chunk, one for each stage, with the same rows.

`parts/features/FINGERPRINT/IDENTITY/NUMBER.parquet` has what one stage has computed for the images of a chunk. What a
fingerprint stands for is kept in `features/FINGERPRINT.json`, so that a reader finds the parts of a stage.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from strata.core import (
    FEATURES,
    READS_TEXTS,
    Chunk,
    Profile,
    StageSettings,
    feature_fingerprint,
    installed,
)
from strata.core.layers.features import way_of
from strata.errors import DamagedFile, InvalidInput
from strata.store.part_files import PartFiles
from strata.store.part_format import Footer
from strata.store.part_paths import Part
from strata.store.provenance import provenance_of
from strata.store.store import Store

_NAME = re.compile(r"[0-9a-f]{16}\.json")


class FeatureKind(BaseModel):
    """What the parts of a fingerprint of the group `features` are.

    way: how the stage computes (`strata.core.layers.features.way_of`); profile: who first asked for it; chunk_size:
    of the chunks whose rows the parts have; before: the fingerprint of the `llm` parts whose texts were read, or empty;
    settings: of the stage.
    """

    fingerprint: str
    stage: str
    way: str
    profile: str
    chunk_size: int
    before: str = ""
    settings: dict[str, Any] = {}


class MissingFeatures(InvalidInput):
    """A stage of the group `features` has not been computed for some rows, or in several ways."""


def kind_of(store: Store, profile: Profile, stage: str, fingerprint: str) -> FeatureKind:
    """What a profile's stage computes beside `llm` parts with this fingerprint.

    Raises MissingFeatures if the store does not know the profile of these parts, so that the size of their chunks is
    not known. Raises OSError.
    """
    size = chunk_size_of(store, fingerprint)
    way, before = profile.feature_ways()[stage], fingerprint if stage in READS_TEXTS else ""
    return FeatureKind(
        fingerprint=feature_fingerprint(way, size, before),
        stage=stage,
        way=way,
        profile=profile.name,
        chunk_size=size,
        before=before,
        settings=profile.stages[stage].model_dump(mode="json"),
    )


def chunk_size_of(store: Store, fingerprint: str) -> int:
    """The images of a whole chunk of `llm` parts with this fingerprint. Raises MissingFeatures and OSError."""
    size = provenance_of(store, fingerprint).settings.get("chunk_size")
    if not isinstance(size, int):
        raise MissingFeatures(f"the store does not know the profile of the rows with the fingerprint {fingerprint}")
    return size


def keep_kind(store: Store, kind: FeatureKind) -> None:
    """Write what a fingerprint stands for, once. Raises OSError."""
    path = f"features/{kind.fingerprint}.json"
    with suppress(FileNotFoundError, DamagedFile):
        store.parse(path, FeatureKind)
        return
    store.put(store.path(path), kind.model_dump_json().encode())


def kinds_of(store: Store) -> list[FeatureKind]:
    """All that stages of the group `features` have computed in a store, by fingerprint. Raises OSError."""
    names = store.without_foreign("features", store.names("features"), lambda name: bool(_NAME.fullmatch(name)))
    found = []
    for name in sorted(names):
        with suppress(FileNotFoundError, DamagedFile):  # whoever computes the stage again writes it anew
            found.append(store.parse(f"features/{name}", FeatureKind))
    return found


class Beside:
    """Which parts of the group `features` have the rows of some `llm` parts. The others belong to rows that are gone.

    rows: the `llm` parts, of any attempt. Where the store does not know a kind, or a size of chunks, the two are
    believed to fit. Raises OSError.
    """

    def __init__(self, store: Store, rows: Iterable[Part]) -> None:
        self._store = store
        self._kinds = {kind.fingerprint: kind for kind in kinds_of(store)}
        self._size = functools.cache(self._size_of)
        self._rows: dict[tuple[str, int], set[str]] = {}
        for part in rows:
            self._rows.setdefault((part.identity, part.number), set()).add(part.fingerprint)

    def has(self, part: Part) -> bool:
        """Whether a part is one of the group `features`, and beside one of the `llm` parts."""
        if part.group != FEATURES:
            return False
        kind = self._kinds.get(part.fingerprint)
        beside = self._rows.get((part.identity, part.number), ())
        return any(kind is None or self._fits(kind, fingerprint) for fingerprint in beside)

    def _fits(self, kind: FeatureKind, fingerprint: str) -> bool:
        return kind.before in ("", fingerprint) and self._size(fingerprint) in (None, kind.chunk_size)

    def _size_of(self, fingerprint: str) -> int | None:
        with suppress(MissingFeatures):
            return chunk_size_of(self._store, fingerprint)
        return None


def feature_part(part: Part, fingerprint: str) -> Part:
    """The part of the group `features` with the rows of a `llm` part."""
    return part._replace(group=FEATURES, fingerprint=fingerprint)


def write_features(store: PartFiles, part: Part, kind: FeatureKind, shard: str, table: pa.Table) -> Counter[str]:
    """Write a part from a table of `part_schema`; returns how many images have values, and how many have none."""
    failed = table.num_rows - table.column("failure").null_count
    counts = Counter({"succeeded": table.num_rows - failed, "failed": failed})
    chunk = Chunk(FEATURES, kind.profile, kind.fingerprint, shard, part.identity, part.number, 0, part.attempt)
    store.write_part(chunk, table, Footer(+counts), "zstd")
    return counts


class FeatureReader:
    """Reads the columns of the group `features` beside `llm` parts.

    ways: of stages that were computed in several ways for the same rows, that which is read; other stages need none.
    `used` has the ways that were read, so that a selection says which.
    """

    def __init__(self, store: Store, ways: Mapping[str, str] | None = None) -> None:
        self._store, self._ways = store, dict(ways or {})
        self._kinds = kinds_of(store)
        self._size = functools.cache(functools.partial(chunk_size_of, store))
        self._fitting = functools.cache(self._find)
        self._listed = functools.cache(lambda folder: store.attempts_in(folder).found)
        self.used: dict[str, str] = {}

    def read(self, part: Part, stage: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows of a `llm` part, in order. Raises MissingFeatures, OSError and BrokenPart."""
        self.way([part], stage)
        beside = feature_part(part, self._kind(part, stage).fingerprint)
        with suppress(FileNotFoundError):
            return self._store.read_some(beside.path, columns)
        # another attempt at the chunk was computed: a newer one has all rows too
        newest = max(self._store.attempts_in(beside.folder).found.get(part.number, ()), default=-1)
        if newest < part.attempt:
            raise MissingFeatures(f"{part.path}: its rows have no {stage!r} yet: {_COMPUTE}")
        return self._store.read_some(beside._replace(attempt=newest).path, columns)

    def way(self, parts: Iterable[Part], stage: str) -> str:
        """How a stage has computed beside `llm` parts. Raises MissingFeatures."""
        for part in parts:
            way = self._kind(part, stage).way
            if self.used.setdefault(stage, way) != way:
                raise MissingFeatures(f"the rows have several kinds of {stage!r}, which cannot be compared")
        return self.used[stage]

    def _kind(self, part: Part, stage: str) -> FeatureKind:
        """What is read beside a `llm` part: the only kind that fits, or of several that which has its rows.

        Raises MissingFeatures.
        """
        found = self._fitting(part.fingerprint, stage)
        if len(found) > 1:
            found = [kind for kind in found if self._newest(part, kind) >= part.attempt]
        if not found:
            name = provenance_of(self._store, part.fingerprint).profile
            rows = f"the rows of the profile {name!r}" if name else f"the rows with the fingerprint {part.fingerprint}"
            raise MissingFeatures(f"{rows} have no {stage!r} yet: {_COMPUTE}")
        # what an earlier version of the code has computed counts where nothing else was
        found = [kind for kind in found if _is_current(kind)] or found
        if len(found) > 1:
            profiles = ", ".join(sorted({kind.profile for kind in found}))
            raise MissingFeatures(f"{stage!r} was computed in {len(found)} ways: name one with --features ({profiles})")
        return found[0]

    def _newest(self, part: Part, kind: FeatureKind) -> int:
        found = self._listed(feature_part(part, kind.fingerprint).folder)
        return max(found.get(part.number, ()), default=-1)

    def _find(self, fingerprint: str, stage: str) -> list[FeatureKind]:
        """The kinds of a stage whose parts may be beside `llm` parts with this fingerprint. Raises MissingFeatures."""
        size = self._size(fingerprint)
        return [
            kind
            for kind in self._kinds
            if (kind.stage, kind.chunk_size) == (stage, size)
            and kind.before in ("", fingerprint)
            and kind.way == self._ways.get(stage, kind.way)
        ]


def _is_current(kind: FeatureKind) -> bool:
    """Whether this version of the code computes what a kind says."""
    with suppress(ValidationError):  # a plug-in's settings, or those of a later version
        settings = StageSettings.model_validate(kind.settings)
        decided = settings.deciding() | installed().deciding(kind.stage, settings.backend)
        return way_of(kind.stage, decided) == kind.way
    return False


_COMPUTE = "`strata features` computes it, with --profile if their own has no such stage"
