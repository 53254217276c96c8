"""One snapshot: its rows, the texts that people have left, its clusters, and whether it is still whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa

from strata.errors import BrokenStore, DamagedFile
from strata.snapshots.creation import with_whole
from strata.snapshots.duplicates import CLUSTER_SCHEMA
from strata.snapshots.features import read_rows
from strata.snapshots.filters import FilterError
from strata.snapshots.manifests import ROW_SCHEMA, Manifest, id_of
from strata.snapshots.places import by_part
from strata.snapshots.reviewing.texts import SCHEMA, digest_of
from strata.snapshots.rules import LeftOut, left_out, names_of
from strata.snapshots.selection import SelectionError
from strata.snapshots.selection.embeddings import clusters_fault
from strata.store import Part, Store


class LostRows(BrokenStore):
    """Parts with rows of a snapshot are not in the store any more."""

    def __init__(self, snapshot: str, parts: Sequence[str]) -> None:
        more = f", and {len(parts) - 1:,} more" if parts[1:] else ""
        super().__init__(f"snapshot {snapshot} has lost {parts[0]}{more}; `strata verify --all` has it computed again")


class Snapshot:
    """One snapshot; it never changes.

    parts: the parts that rows were selected from, as paths from the store's root, in canonical order (group,
    fingerprint, shard identity, number). A part may have no selected row.
    """

    def __init__(self, store: Store, name: str, manifest: Manifest) -> None:
        self._store, self.name, self.manifest = store, name, manifest
        self.id, self.parts, self.provenance = manifest.id, manifest.parts, manifest.provenance

    def rows(self) -> pa.Table:
        """The selected rows, all succeeded: part (int32, index in `parts`) and row (int32, index in the part).

        They are sorted by part and row. Raises DamagedFile and OSError.
        """
        return self._store.parse_table(rows_path(self.id))

    def reviewed(self) -> pa.Table:
        """The texts of selected rows as people had left them when the snapshot was made: part, row, text; sorted.

        Raises DamagedFile and OSError.
        """
        if self.manifest.selection.reviewed is None:
            return SCHEMA.empty_table()
        return self._store.parse_table(texts_path(self.id))

    def clusters(self) -> pa.Table:
        """The rows that show the same picture as another one of those that passed, of CLUSTER_SCHEMA; sorted.

        Rows that were left out because another one stays are among them. It is empty if pictures were not compared.
        Raises DamagedFile and OSError.
        """
        with suppress(FileNotFoundError):
            return self._store.parse_table(clusters_path(self.id))
        return CLUSTER_SCHEMA.empty_table()

    def with_keys(self, rows: pa.Table) -> pa.Table:
        """A table with the columns part and row, sorted by part, and the key of each row. Raises OSError."""
        keys = [pa.array([], pa.string())]
        for number, places in by_part(rows):
            column = self._store.read_columns(self.parts[number], ["key"]).column("key")
            keys += column.take(pa.array(places)).chunks
        return rows.append_column("key", pa.chunked_array(keys))

    def left_out(self) -> Iterator[LeftOut]:
        """The rows that its rules leave out, by rule. Raises OSError, and SelectionError for rules by own scores."""
        selection = self.manifest.selection
        try:
            features = names_of(selection.leave_out, {})
        except FilterError as error:
            raise SelectionError(f"a rule reads a file that the store does not have: {error.reason}") from None
        table = read_rows(self._store, self.parts, features, ways=selection.ways, whole=True).table
        table = with_whole(
            self._store, self.manifest.sources, list(map(Part.parse, self.parts)), table, selection
        ).table
        yield from left_out(table, selection.leave_out)

    def check_parts(self) -> None:
        """Raise LostRows if a part with selected rows is not in the store any more. Raises OSError."""
        if lost := self.lost():
            raise LostRows(self.name, lost)

    def lost(self) -> list[str]:
        """The parts with selected rows that are not in the store any more, in order. Raises OSError."""
        held = [self.parts[number] for number in np.unique(self.rows().column("part").to_numpy())]
        lost = set(self._store.lost([Part.parse(path) for path in held]))
        return [path for path in held if Part.parse(path) in lost]

    def fault(self) -> str | None:
        """Why its rows, reviewed texts or clusters are not those of its creation; None if they are. Raises OSError."""
        checks = ((rows_path(self.id), self._rows_fit, "rows"), (texts_path(self.id), self._texts_fit, "texts"))
        for path, fit, content in checks:
            try:
                whole = fit()
            except FileNotFoundError:
                return f"{path} is missing"
            except DamagedFile as error:
                return str(error)
            if not whole:
                return f"{path}, or snapshots/{self.name}.json, is damaged: the id is that of other {content}"
        centroids = self.manifest.selection.centroids
        return None if centroids is None else clusters_fault(self._store, centroids)

    def _rows_fit(self) -> bool:
        rows = self.rows()
        return rows.schema.equals(ROW_SCHEMA) and id_of(self.parts, self.manifest.selection, rows) == self.id

    def _texts_fit(self) -> bool:
        texts = self.reviewed()
        return texts.schema.equals(SCHEMA) and digest_of(texts) == self.manifest.selection.reviewed


def rows_path(snapshot_id: str) -> str:
    """Where the rows of a snapshot lie, from the store's root."""
    return f"snapshots/objects/{snapshot_id}.parquet"


def texts_path(snapshot_id: str) -> str:
    """Where the texts that people have left lie, from the store's root."""
    return f"snapshots/objects/{snapshot_id}.reviewed.parquet"


def clusters_path(snapshot_id: str) -> str:
    """Where the rows that show the same pictures lie, from the store's root."""
    return f"snapshots/objects/{snapshot_id}.clusters.parquet"
