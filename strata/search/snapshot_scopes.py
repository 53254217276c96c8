"""The scopes of snapshots, of which some are kept: reading a large one takes longer than searching it."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from strata.search.filters import Scope
from strata.snapshots import Snapshots
from strata.store import Store

KEPT_ROWS = 8_000_000  # of the snapshots that are kept, 16 bytes for each


class SnapshotScopes:
    """Makes scopes of the snapshots of a store. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self.snapshots = Snapshots(store)
        self._kept: OrderedDict[str, tuple[bytes, Scope, int]] = OrderedDict()
        self._lock = threading.Lock()

    def scope(self, name: str) -> Scope:
        """The rows of a snapshot by its name or id. Raises UnknownSnapshot, DamagedFile and OSError."""
        # a name may have been given to another snapshot since
        manifest = self.snapshots.manifest_bytes(name)
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None and manifest is not None and kept[0] == manifest:
                self._kept.move_to_end(name)
                return kept[1]
        snapshot = self.snapshots.open(name)
        rows = snapshot.rows()
        parts, places = (rows.column(column).to_numpy().astype(np.int64) for column in ("part", "row"))
        scope = Scope.of_snapshot(snapshot.parts, parts, places)
        if manifest is not None:
            self._keep(name, manifest, scope, len(parts))
        return scope

    def _keep(self, name: str, manifest: bytes, scope: Scope, rows: int) -> None:
        with self._lock:
            self._kept[name] = manifest, scope, rows
            while len(self._kept) > 1 and sum(rows for _, _, rows in self._kept.values()) > KEPT_ROWS:
                self._kept.popitem(last=False)
