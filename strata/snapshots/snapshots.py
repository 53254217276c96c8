"""Snapshots: named, immutable lists of parts with a selection of rows. Training runs pin their data with them.

The manifest `snapshots/NAME.json` (`manifests.py`) holds everything but the rows, which are in
`snapshots/objects/ID.parquet`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal

import pyarrow as pa

from strata.core import Chunk, is_tenant
from strata.errors import Conflict, DamagedFile, InvalidInput, NotFound
from strata.snapshots.creation import PartPictures, choose
from strata.snapshots.division import divided
from strata.snapshots.manifests import Manifest
from strata.snapshots.own_files import OwnFiles
from strata.snapshots.reviewing.texts import texts_of
from strata.snapshots.selection import Selection
from strata.snapshots.selection.embeddings import keep_clusters
from strata.snapshots.snapshot import Snapshot, clusters_path, rows_path, texts_path
from strata.store import READERS, Part, PartsOf, Store

log = logging.getLogger(__name__)

SHOWN = 20  # names that an error lists
SHORT_ID = 12  # digits of an id that are enough to identify a snapshot
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILE = re.compile(_NAME.pattern + r"\.json")


class SnapshotExists(Conflict):
    """There is already a snapshot of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a snapshot {name!r}; a snapshot never changes, so take another name")
        self.name = name


class UnknownSnapshot(NotFound):
    """No snapshot of the store has this name or id."""

    def __init__(self, name: str, known: Sequence[str], what: str = "snapshot") -> None:
        others = f", and {len(known) - SHOWN:,} others" if len(known) > SHOWN else ""
        there = f"there are{' the snapshots' if what != 'snapshot' else ''}: {', '.join(known[-SHOWN:]) or 'none'}"
        super().__init__(f"no {what} {name!r}; {there}{others}")
        self.name, self.known = name, list(known)


class Snapshots:
    """The snapshots of one store. Every method raises OSError if the store cannot be reached."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(
        self,
        name: str,
        parts: Sequence[Part | Chunk | str],
        selection: Selection,
        sources: Sequence[str] = (),
        advance: Callable[[int], object] = lambda parts: None,
        accept_shortfall: bool = False,
        own: OwnFiles | None = None,
        tell: Callable[[str], object] = log.warning,
        pictures: PartPictures | None = None,
        tenant: str | None = None,
    ) -> Snapshot:
        """Select rows of parts of the group `llm`, and store the selection under a name.

        parts: in any form and order; of several attempts of a chunk the last one is used. advance: called with the
        number of parts read since the last call. accept_shortfall: whether target shares may be missed, and names of
        axes be those of no row. own: the files of the user that the selection needs. tell: gets a line for each file of
        which not all keys are those of the rows. pictures: reads them, for selections that compare them. tenant: to
        whom the snapshot belongs; None: as `PartsOf.tenant` says. Raises SnapshotExists, SelectionError, AxisError,
        FilterError, ValueError for a part of another group, and FileNotFoundError for a part that does not exist.
        """
        # check the names before reading, which may take minutes
        self._check(name, tenant)
        owner = PartsOf(self.store).tenant(sources) if tenant is None else tenant
        given = (own or OwnFiles(), pictures, sources)
        chosen = choose(self.store, parts, selection, given, advance, accept_shortfall, tell)
        if chosen.clusters is not None:
            keep_clusters(self.store, chosen.clusters)
        selected = chosen.selected
        texts = texts_of(self.store, chosen.paths, selected, tell)
        manifest = chosen.manifest(self.store, selected, texts, (list(sources), owner))
        return self._write(name, manifest, selected, texts, chosen.choice.clusters)

    def _check(self, name: str, tenant: str | None = None) -> None:
        """Check that a name is valid and free, and a tenant valid. Raises SnapshotExists and InvalidInput."""
        if tenant is not None and not is_tenant(tenant):
            raise InvalidInput(f"{tenant[:80]!r} is not the name of a tenant: lower-case letters, digits and -")
        if not _NAME.fullmatch(name):
            rule = "letters and digits, after the first one also . _ -, at most 100 characters"
            raise InvalidInput(f"{name!r} is not a valid snapshot name: {rule}")
        if self.store.exists(self._path(name)):
            raise SnapshotExists(name)

    def _write(
        self, name: str, manifest: Manifest, rows: pa.Table, texts: pa.Table, clusters: pa.Table | None = None
    ) -> Snapshot:
        """Write the rows, the reviewed texts and the clusters, then the manifest: only then the snapshot exists."""
        files = [(rows, rows_path(manifest.id))]
        files += [(texts, texts_path(manifest.id))] if texts.num_rows else []
        files += [(clusters, clusters_path(manifest.id))] if clusters is not None else []
        for table, path in files:
            self.store.write_table(path, table)
        # put_new fails if another process has created the name since the check
        try:
            self.store.put_new(self._path(name), manifest.model_dump_json().encode())
        except FileExistsError:
            raise SnapshotExists(name) from None
        return Snapshot(self.store, name, manifest)

    def split(
        self, name: str, validation: float, seed: int, same: Literal["bytes", "near"], pictures: PartPictures
    ) -> tuple[Snapshot, Snapshot]:
        """Divide a snapshot's rows into NAME-train and NAME-validation, so that no picture is in both.

        validation: the share of the pictures in the second one, 0..1. The hash of a picture's bytes and the seed
        decide, so the part of a picture does not change when rows are added; of pictures that look alike, that of the
        one with the smallest hash. Raises UnknownSnapshot, SnapshotExists, LostRows, and SelectionError for a part
        without rows.
        """
        snapshot = self.open(name)
        names = (f"{name}-train", f"{name}-validation")
        for each in names:
            self._check(each)
        snapshot.check_parts()
        parts = divided(self.store, snapshot, (validation, seed, same), pictures)
        train, held_out = [self._write(each, *part) for each, part in zip(names, parts, strict=True)]
        return train, held_out

    def delete(self, name: str) -> None:
        """Delete a snapshot by its name, also one whose manifest is damaged. Raises UnknownSnapshot.

        Its rows, and the parts that nothing else needs, are then what `strata clean` removes. A snapshot of another
        name with the same rows stays whole.
        """
        self.check_name(name)
        self.store.remove(self._path(name))

    def check_name(self, name: str) -> None:
        """Raise UnknownSnapshot if no snapshot has this name; its manifest may be damaged."""
        if not _NAME.fullmatch(name) or not self.store.exists(self._path(name)):
            raise UnknownSnapshot(name, self.names())

    def open(self, name: str) -> Snapshot:
        """Open a snapshot by its name, its id, or at least the first 12 digits of the id.

        Raises UnknownSnapshot, and DamagedFile for a name whose manifest is damaged.
        """
        if _NAME.fullmatch(name):
            with suppress(FileNotFoundError):
                return self._open(name)
        # no such name: it may be an id, which only the manifests contain
        if len(name) >= SHORT_ID:
            for snapshot in self.all():
                if snapshot.id.startswith(name):
                    return snapshot
        raise UnknownSnapshot(name, self.names())

    def manifest_bytes(self, name: str) -> bytes | None:
        """The manifest of a snapshot's name as it is stored; None if there is no snapshot of this name."""
        with suppress(FileNotFoundError):
            return self.store.get(self._path(name)) if _NAME.fullmatch(name) else None
        return None

    def _open(self, name: str) -> Snapshot:
        return Snapshot(self.store, name, self.store.parse(f"snapshots/{name}.json", Manifest))

    def names(self) -> list[str]:
        """The names of all snapshots, sorted."""
        found = [name for name in self.store.names("snapshots") if name != "objects"]
        ours = self.store.without_foreign("snapshots", found, lambda name: bool(_FILE.fullmatch(name)))
        return [name.removesuffix(".json") for name in ours]

    def all(self) -> list[Snapshot]:
        """All snapshots whose manifests can be read, by creation time."""
        return self.scan()[0]

    def scan(self) -> tuple[list[Snapshot], list[DamagedFile]]:
        """All snapshots, by creation time, and an error for each manifest that is damaged."""

        def read(name: str) -> Snapshot | DamagedFile:
            try:
                return self._open(name)
            except DamagedFile as error:
                return error
            except FileNotFoundError:  # a link that leads nowhere: what it pins is not known
                return DamagedFile(f"snapshots/{name}.json", "it cannot be found")

        # several at a time: in a bucket each is a round trip
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(read, self.names()))
        snapshots = [one for one in found if isinstance(one, Snapshot)]
        damaged = [one for one in found if isinstance(one, DamagedFile)]
        return sorted(snapshots, key=lambda snapshot: snapshot.manifest.created_at), damaged

    def pinned(self) -> tuple[set[Part], list[DamagedFile]]:
        """The parts of all snapshots, and an error for each manifest that is damaged, whose parts are not known."""
        snapshots, damaged = self.scan()
        return {Part.parse(path) for snapshot in snapshots for path in snapshot.parts}, damaged

    def _path(self, name: str) -> str:
        return self.store.path("snapshots", f"{name}.json")
