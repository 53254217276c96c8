"""Snapshots: named, immutable lists of parts with a selection of rows. Training runs pin their data with them.

The manifest `snapshots/NAME.json` (`manifests.py`) holds everything but the rows, which are in
`snapshots/objects/ID.parquet`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from strata.core import FINAL_GROUP, Chunk, is_tenant
from strata.errors import BrokenStore, Conflict, DamagedFile, InvalidInput, NotFound
from strata.snapshots.axes import DEFAULT_AXES, Axis
from strata.snapshots.composition import Composition, composition_of, noun_counts
from strata.snapshots.duplicates import CLUSTER_SCHEMA, PictureHashes, same_pictures
from strata.snapshots.features import Rows, read_rows
from strata.snapshots.filters import FilterError
from strata.snapshots.manifests import ROW_SCHEMA, Counts, Manifest, id_of, manifest_of
from strata.snapshots.own_files import OwnFiles
from strata.snapshots.reviewing.texts import SCHEMA, digest_of, texts_of
from strata.snapshots.rules import LeftOut, left_out, names_of
from strata.snapshots.selection import Choice, Pictures, Selection, SelectionError, Split, select
from strata.snapshots.targets import check_labels, check_targets
from strata.store import READERS, FeatureReader, Part, PartsOf, Provenance, Store, last_attempts, provenance_of

log = logging.getLogger(__name__)

SHORT_ID = 12  # digits of an id that are enough to identify a snapshot
# reads the pictures of some rows (columns part and row) of parts: (parts, rows), and for embeddings `ways=`
PartPictures = Callable[..., PictureHashes]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILE = re.compile(_NAME.pattern + r"\.json")


class SnapshotExists(Conflict):
    """There is already a snapshot of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a snapshot {name!r}; a snapshot never changes, so take another name")
        self.name = name


class UnknownSnapshot(NotFound):
    """No snapshot of the store has this name or id."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no snapshot {name!r}; there are: {', '.join(known[-20:]) or 'none'}")
        self.name, self.known = name, list(known)


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

        They are sorted by part and row. Raises OSError.
        """
        return pq.read_table(pa.BufferReader(self._store.get(_rows_path(self._store, self.id))))

    def reviewed(self) -> pa.Table:
        """The texts of selected rows as people had left them when the snapshot was made: part, row, text; sorted.

        Raises OSError.
        """
        if self.manifest.selection.reviewed is None:
            return SCHEMA.empty_table()
        return pq.read_table(pa.BufferReader(self._store.get(_texts_path(self._store, self.id))))

    def clusters(self) -> pa.Table:
        """The rows that show the same picture as another one of those that passed, of CLUSTER_SCHEMA; sorted.

        Rows that were left out because another one stays are among them. It is empty if pictures were not compared.
        Raises OSError.
        """
        path = _clusters_path(self._store, self.id)
        with suppress(FileNotFoundError):
            return pq.read_table(pa.BufferReader(self._store.get(path)))
        return CLUSTER_SCHEMA.empty_table()

    def with_keys(self, rows: pa.Table) -> pa.Table:
        """A table with the columns part and row, and the key of each row. Raises OSError."""
        numbers, places = rows.column("part").to_numpy(), rows.column("row").to_numpy()
        keys = np.empty(rows.num_rows, object)
        for number in np.unique(numbers):
            there = numbers == number
            column = self._store.read_columns(self.parts[number], ["key"]).column("key")
            keys[there] = column.take(pa.array(places[there])).to_numpy(zero_copy_only=False)
        return rows.append_column("key", pa.array(keys, pa.string()))

    def left_out(self) -> Iterator[LeftOut]:
        """The rows that its rules leave out, by rule. Raises OSError, and SelectionError for rules by own scores."""
        selection = self.manifest.selection
        try:
            features = names_of(selection.leave_out, {})
        except FilterError as error:
            raise SelectionError(f"a rule reads a file that the store does not have: {error.reason}") from None
        rows = read_rows(self._store, self.parts, features, ways=selection.ways)
        yield from left_out(rows.table, selection.leave_out)

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
        """Why its rows or reviewed texts are not those that it was created with; None if they are. Raises OSError."""
        checks = (("", self._rows_fit, "rows"), (".reviewed", self._texts_fit, "texts"))
        for suffix, fit, content in checks:
            path = f"snapshots/objects/{self.id}{suffix}.parquet"
            try:
                whole = fit()
            except FileNotFoundError:
                return f"{path} is missing"
            except pa.ArrowException as error:
                return f"{path} is damaged: {' '.join(str(error).split())[:200]}"
            if not whole:
                return f"{path}, or snapshots/{self.name}.json, is damaged: the id is that of other {content}"
        return None

    def _rows_fit(self) -> bool:
        rows = self.rows()
        return rows.schema.equals(ROW_SCHEMA) and id_of(self.parts, self.manifest.selection, rows) == self.id

    def _texts_fit(self) -> bool:
        texts = self.reviewed()
        return texts.schema.equals(SCHEMA) and digest_of(texts) == self.manifest.selection.reviewed


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
        chosen_from = last_attempts(map(_part, parts))
        if not chosen_from:
            raise SelectionError("none of these sources is described yet: there is no part to select rows from")
        own = own or OwnFiles()
        selection = _with_files(selection, own)
        # read the features of the selection, and of the default axes, which the composition always shows
        axes = {axis.feature: axis for axis in (*DEFAULT_AXES, *selection.axes)}
        paths = [part.path for part in chosen_from]
        owner = PartsOf(self.store).tenant(sources) if tenant is None else tenant
        rows = read_rows(self.store, paths, selection.features | set(axes), advance, selection.ways)
        rows = _joined(rows, own, tell)
        selection = _with_ways(self.store, selection, rows.ways, chosen_from, own)
        ways = {"ways": selection.ways} if selection.same == "embedding" else {}
        reads = functools.partial(pictures, paths, **ways) if pictures else None
        choice = _choice(rows.table, chosen_from, selection, (own, reads), accept_shortfall)
        return self._pin(name, (paths, sources, owner), rows, choice, {**axes, **choice.axes}, tell)

    def _pin(
        self,
        name: str,
        origin: tuple[list[str], Sequence[str], str],
        rows: Rows,
        choice: Choice,
        axes: Mapping[str, Axis],
        tell: Callable[[str], object],
    ) -> Snapshot:
        """Store the chosen rows, the clusters, and the texts that people have left. origin: parts, sources, tenant."""
        paths, sources, tenant = origin
        selected = rows.table.select(ROW_SCHEMA.names).take(pa.array(choice.indices)).cast(ROW_SCHEMA)
        texts = texts_of(self.store, paths, selected, tell)
        manifest = manifest_of(
            paths,
            selected,
            choice.selection.model_copy(update={"reviewed": digest_of(texts)}),
            counts=_counts(len(paths), rows, choice),
            composition=_composition(rows.table, choice, axes),
            origin=(list(sources), _provenance(self.store, paths), tenant),
        )
        return self._write(name, manifest, selected, texts, choice.clusters)

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
        files = [(rows, _rows_path(self.store, manifest.id))]
        files += [(texts, _texts_path(self.store, manifest.id))] if texts.num_rows else []
        files += [(clusters, _clusters_path(self.store, manifest.id))] if clusters is not None else []
        for table, path in files:
            buffer = io.BytesIO()
            pq.write_table(table, buffer, compression="zstd")
            self.store.put(path, buffer.getvalue())
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
        rows = snapshot.rows()
        held_out = _held_out(pictures(snapshot.parts, rows), same == "near", validation, seed)
        if not 0 < held_out.sum() < len(held_out):
            raise SelectionError(f"of {len(held_out):,} rows one part would have none; choose another --validation")
        # the features of all rows, for the composition of the parts
        axes = {axis.feature: axis for axis in (*DEFAULT_AXES, *snapshot.manifest.selection.axes)}
        table = _chosen(read_rows(self.store, snapshot.parts, axes).table, rows)
        made = []
        parts: tuple[Literal["train", "validation"], ...] = ("train", "validation")
        for each, part, places in zip(names, parts, (~held_out, held_out), strict=True):
            setting = Split(of=snapshot.id, part=part, validation=validation, seed=seed, same=same)
            indices = np.flatnonzero(places)
            selected = rows.take(pa.array(indices))
            texts = snapshot.reviewed().join(selected, ["part", "row"], join_type="left semi")
            texts = texts.sort_by([("part", "ascending"), ("row", "ascending")])
            manifest = manifest_of(
                snapshot.parts,
                selected,
                snapshot.manifest.selection.model_copy(update={"split": setting, "reviewed": digest_of(texts)}),
                counts=snapshot.manifest.counts.model_copy(update={"selected": len(indices)}),
                composition=composition_of(table, indices, axes.values()),
                origin=(snapshot.manifest.sources, snapshot.provenance, snapshot.manifest.tenant),
            )
            made.append(self._write(each, manifest, selected, texts))
        return made[0], made[1]

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


def _with_files(selection: Selection, own: OwnFiles) -> Selection:
    """The selection with what it gets from the user's files. Raises SelectionError if one that it needs is absent."""
    given = dict(own.sha256s)
    needed = {option for option, _ in selection.files} - set(given)
    if selection.split is not None:
        raise SelectionError("a part of a split snapshot cannot be repeated; split another snapshot")
    if needed:
        raise SelectionError(f"the selection needs a file: give --{' and --'.join(sorted(needed))}")
    return selection.model_copy(update={"own": own.kinds, "files": own.sha256s})


def _with_ways(
    store: Store, selection: Selection, read: Mapping[str, str], parts: Sequence[Part], own: OwnFiles
) -> Selection:
    """The selection with how the features were computed that it reads. Raises SelectionError for other embeddings."""
    ways = {**selection.ways, **read}
    if selection.same == "embedding":
        ways["embedding"] = FeatureReader(store, ways).way({part.fingerprint for part in parts}, "embedding")
        if own.benchmarks is not None and own.benchmarks.way != ways["embedding"]:
            raise SelectionError("the embeddings in the file of --without are not those of the rows' profile")
    return selection.model_copy(update={"ways": ways})


def _joined(rows: Rows, own: OwnFiles, tell: Callable[[str], object]) -> Rows:
    """The rows with the columns of the user's files, whose gaps are told."""
    table = own.join(rows.table)
    for line in own.gaps(table):
        tell(line)
    return replace(rows, table=table)


def _provenance(store: Store, paths: Sequence[str]) -> list[Provenance]:
    fingerprints = sorted({Part.parse(path).fingerprint for path in paths})
    return [provenance_of(store, fingerprint) for fingerprint in fingerprints]


def _choice(
    table: pa.Table,
    parts: Sequence[Part],
    selection: Selection,
    given: tuple[OwnFiles, Pictures | None],
    accept: bool,
) -> Choice:
    """Select rows; an empty snapshot is refused, and, unless they are accepted, targets that cannot be met."""
    if not accept:
        check_labels(table, selection)
    own, pictures = given
    identities = [part.identity for part in parts]
    choice = select(table, identities, selection, own.excluded, pictures, own.benchmarks)
    if not len(choice.indices):
        raise SelectionError(f"no row to select: {table.num_rows} succeeded, of which {choice.passed} pass")
    if not accept:
        check_targets(table, choice)
    return choice


def _composition(table: pa.Table, choice: Choice, axes: Mapping[str, Axis]) -> Composition:
    counted = composition_of(table, choice.indices, axes.values())
    return counted | ({"nouns": noun_counts(table, choice.indices)} if choice.selection.cap else {})


def _held_out(hashes: PictureHashes, near: bool, validation: float, seed: int) -> np.typing.NDArray[np.bool_]:
    """Which rows are for validation, by the smallest hash of the seed and the bytes of each row's picture."""
    groups = same_pictures(hashes, "near" if near else "bytes")
    digests = (hashlib.blake2b(f"{seed}/{one}".encode(), digest_size=8).digest() for one in hashes.sha256)
    drawn = np.frombuffer(b"".join(digests), np.dtype("<u8"))
    smallest = np.full(len(drawn), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, groups, drawn)
    return np.asarray(smallest[groups] / 2.0**64 < validation)


def _chosen(table: pa.Table, rows: pa.Table) -> pa.Table:
    """The rows of a table of features that a snapshot has, in order."""
    places = [one["part"].to_numpy().astype(np.int64) << 32 | one["row"].to_numpy() for one in (table, rows)]
    return table.take(pa.array(np.searchsorted(*places)))


def _part(form: Part | Chunk | str) -> Part:
    """The part of any form, which must be of the group `llm`. Raises ValueError."""
    part = Part.of_chunk(form) if isinstance(form, Chunk) else Part.parse(form) if isinstance(form, str) else form
    if part.group != FINAL_GROUP:
        raise ValueError(f"{part.path} is no part of {FINAL_GROUP}, the only group with descriptions")
    return part


def _rows_path(store: Store, snapshot_id: str) -> str:
    return store.path("snapshots", "objects", f"{snapshot_id}.parquet")


def _texts_path(store: Store, snapshot_id: str) -> str:
    return store.path("snapshots", "objects", f"{snapshot_id}.reviewed.parquet")


def _clusters_path(store: Store, snapshot_id: str) -> str:
    return store.path("snapshots", "objects", f"{snapshot_id}.clusters.parquet")


def _counts(parts: int, rows: Rows, choice: Choice) -> Counts:
    ended = {name: rows.statuses[name] for name in ("succeeded", "filtered", "failed")}
    numbers = {"passed": choice.passed, "selected": len(choice.indices)}
    return Counts(parts=parts, **ended, **numbers, left_out=choice.left_out)
