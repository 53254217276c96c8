"""Snapshots: a named, immutable list of parts plus a selection of rows; what training pins.

`snapshots/NAME.json` says everything but the rows, which are in `snapshots/objects/ID.parquet`. The id is a hash of
parts, selection and rows: the same choice has the same id, whatever it is called.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from strata.core import FINAL_GROUP, Chunk
from strata.errors import Conflict, InvalidInput, NotFound
from strata.snapshots.axes import DEFAULT_AXES
from strata.snapshots.composition import Composition, composition_of
from strata.snapshots.features import Rows, read_rows
from strata.snapshots.selection import Choice, Selection, SelectionError, select
from strata.store import Part, Provenance, Store, last_attempts, provenance_of

SHORT_ID = 12  # digits of an id that are enough to name a snapshot
ROW_SCHEMA = pa.schema([pa.field("part", pa.int32(), nullable=False), pa.field("row", pa.int32(), nullable=False)])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class SnapshotExists(Conflict):
    """A snapshot of this name exists already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a snapshot {name!r}; a snapshot never changes, so take another name")
        self.name = name


class UnknownSnapshot(NotFound):
    """No snapshot of the store has this name or id."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no snapshot {name!r}; there are: {', '.join(known[-20:]) or 'none'}")
        self.name, self.known = name, list(known)


class Counts(BaseModel):
    """Numbers of parts, and of rows by status; passed: succeeded and accepted by the filter; selected: taken."""

    parts: int
    succeeded: int
    filtered: int
    failed: int
    passed: int
    selected: int


class Manifest(BaseModel):
    """The content of `snapshots/NAME.json`. sources: the jobs and data sets whose parts were taken."""

    id: str
    created_at: datetime
    sources: list[str]
    selection: Selection
    counts: Counts
    composition: Composition
    provenance: list[Provenance]
    parts: list[str]


class Snapshot:
    """One snapshot; it never changes.

    parts: the parts it was chosen from, as paths from the store's root, in canonical order (group, fingerprint, shard
    identity, number); the rows of some may not be taken at all.
    """

    def __init__(self, store: Store, name: str, manifest: Manifest) -> None:
        self._store, self.name, self.manifest = store, name, manifest
        self.id, self.parts, self.provenance = manifest.id, manifest.parts, manifest.provenance

    def rows(self) -> pa.Table:
        """The rows taken, all of them succeeded: part (int32, index in `parts`) and row (int32, index in the part).

        In canonical order, by part and row. Raises OSError.
        """
        return pq.read_table(pa.BufferReader(self._store.get(_rows_path(self._store, self.id))))


class Snapshots:
    """The snapshots of one store. Every method raises OSError where the store cannot be reached."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(
        self,
        name: str,
        parts: Sequence[Part | Chunk | str],
        selection: Selection,
        sources: Sequence[str] = (),
        advance: Callable[[int], object] = lambda parts: None,
    ) -> Snapshot:
        """Choose rows of parts of `llm` and keep the choice under a name.

        parts: in any form and order; of several attempts of a chunk the last counts. advance: called with
        the number of parts read. Raises SnapshotExists, SelectionError, FilterError, ValueError for what is no part of
        `llm`, and FileNotFoundError for a part that is not there.
        """
        self._check(name)
        chosen_from = last_attempts(map(_part, parts))
        if not chosen_from:
            raise SelectionError("nothing of that is described yet: there is no part to take rows from")
        axes = {axis.feature: axis for axis in (*DEFAULT_AXES, *selection.axes)}
        paths = [part.path for part in chosen_from]
        rows = read_rows(self.store, paths, selection.features | set(axes), advance)
        choice = select(rows.table, [part.identity for part in chosen_from], selection)
        if not len(choice.indices):
            raise SelectionError(f"no row to take: {rows.table.num_rows} succeeded, of which {choice.passed} pass")
        taken = rows.table.select(ROW_SCHEMA.names).take(pa.array(choice.indices)).cast(ROW_SCHEMA)
        fingerprints = sorted({part.fingerprint for part in chosen_from})
        manifest = Manifest(
            id=_id(paths, choice.selection, taken),
            created_at=datetime.now(UTC),
            sources=list(sources),
            selection=choice.selection,
            counts=_counts(len(paths), rows, choice),
            composition=composition_of(rows.table, choice.indices, {**axes, **choice.axes}.values()),
            provenance=[provenance_of(self.store, fingerprint) for fingerprint in fingerprints],
            parts=paths,
        )
        return self._keep(name, manifest, taken)

    def _check(self, name: str) -> None:
        """Check that a name can be used. Raises SnapshotExists, and InvalidInput for a name that is not allowed."""
        if not _NAME.fullmatch(name):
            line = f"{name!r} is no snapshot's name: letters, digits, and . _ - behind the first, at most 100"
            raise InvalidInput(line)
        if self.store.exists(self._path(name)):
            raise SnapshotExists(name)

    def _keep(self, name: str, manifest: Manifest, rows: pa.Table) -> Snapshot:
        """Write the rows, then the manifest under its name: only then does the snapshot exist."""
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression="zstd")
        self.store.put(_rows_path(self.store, manifest.id), buffer.getvalue())
        try:
            self.store.put_new(self._path(name), manifest.model_dump_json().encode())
        except FileExistsError:
            raise SnapshotExists(name) from None
        return Snapshot(self.store, name, manifest)

    def open(self, name: str) -> Snapshot:
        """The snapshot of a name, or of an id or at least 12 first digits of it. Raises UnknownSnapshot."""
        if _NAME.fullmatch(name):
            with suppress(FileNotFoundError):
                return self._open(name)
        if len(name) >= SHORT_ID:
            for snapshot in self.all():
                if snapshot.id.startswith(name):
                    return snapshot
        raise UnknownSnapshot(name, self.names())

    def _open(self, name: str) -> Snapshot:
        return Snapshot(self.store, name, Manifest.model_validate_json(self.store.get(self._path(name))))

    def names(self) -> list[str]:
        """The names of all snapshots, sorted."""
        return [name.removesuffix(".json") for name in self.store.names("snapshots") if name.endswith(".json")]

    def all(self) -> list[Snapshot]:
        """All snapshots, the oldest first."""
        return sorted(map(self._open, self.names()), key=lambda snapshot: snapshot.manifest.created_at)

    def _path(self, name: str) -> str:
        return self.store.path("snapshots", f"{name}.json")


def _part(named: Part | Chunk | str) -> Part:
    part = Part.of_chunk(named) if isinstance(named, Chunk) else Part.parse(named) if isinstance(named, str) else named
    if part.group != FINAL_GROUP:
        raise ValueError(f"{part.path} is no part of {FINAL_GROUP}, which alone have descriptions")
    return part


def _rows_path(store: Store, snapshot_id: str) -> str:
    return store.path("snapshots", "objects", f"{snapshot_id}.parquet")


def _id(parts: Sequence[str], selection: Selection, rows: pa.Table) -> str:
    """SHA-256 of parts, selection and rows; the selection has all its names resolved."""
    content = {"parts": list(parts), "selection": selection.model_dump(mode="json")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    for name in ROW_SCHEMA.names:
        digest.update(rows.column(name).to_numpy().astype(np.dtype("<i4")).tobytes())
    return digest.hexdigest()


def _counts(parts: int, rows: Rows, choice: Choice) -> Counts:
    ended = {name: rows.statuses[name] for name in ("succeeded", "filtered", "failed")}
    return Counts(parts=parts, **ended, passed=choice.passed, selected=len(choice.indices))
