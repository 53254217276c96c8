"""Which parts the index must have: the newest ones of the store, and those that snapshots keep."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow as pa

from strata.core import FINAL_GROUP
from strata.snapshots import Snapshots
from strata.store import Part, Store, last_attempts, parts_at

log = logging.getLogger(__name__)

LISTED = pa.schema(
    [
        ("path", pa.string()),
        ("fingerprint", pa.string()),
        ("identity", pa.string()),
        ("number", pa.int32()),
        ("attempt", pa.int32()),
        ("size", pa.int64()),
        ("latest", pa.bool_()),
    ]
)


class PartListing:
    """Lists the parts of a store. Its methods raise OSError if the store cannot be reached."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._manifests: dict[str, int] = {}
        self._pinned: set[Part] = set()

    def table(self) -> pa.Table:
        """The parts of the last group that are searched, in the order of the store; `path` is that of `Part.path`.

        The size of a part in a bundle is null: a part that is bundled stays as it is in the index.
        """
        sizes = self._sizes("parts")
        latest = last_attempts(sizes)
        # a snapshot may keep an attempt that has been superseded
        kept = self._of_snapshots().difference(latest)
        if kept:
            sizes |= {part: size for part, size in self._sizes("superseded").items() if part in kept}
        parts = sorted([*latest, *kept.intersection(sizes)])
        columns: dict[str, list[Any]] = {"path": [part.path for part in parts], "size": [sizes[part] for part in parts]}
        for name in ("fingerprint", "identity", "number", "attempt"):
            columns[name] = [getattr(part, name) for part in parts]
        newest = set(latest)
        return pa.table(columns | {"latest": [part in newest for part in parts]}, schema=LISTED)

    def of_folders(self, folders: list[tuple[str, str]]) -> set[str]:
        """The paths of the parts in folders, by fingerprint and identity."""
        found: set[str] = set()
        for fingerprint, identity in folders:
            folder = f"parts/{FINAL_GROUP}/{fingerprint}/{identity}"
            found.update(part.path for name in self.store.names(folder) for part in parts_at(f"{folder}/{name}"))
        return found

    def _sizes(self, place: str) -> dict[Part, int | None]:
        return self.store.parts_below(place, FINAL_GROUP)

    def _of_snapshots(self) -> set[Part]:
        """The parts of all snapshots. Their manifests are read only when one came, went or changed its size."""
        manifests = {path: size for path, size in self.store.find("snapshots").items() if path.endswith(".json")}
        if manifests != self._manifests:
            self._pinned, damaged = Snapshots(self.store).pinned()
            for error in damaged:
                log.warning("the search passes over a snapshot: %s", error)
            self._manifests = manifests
        return self._pinned
