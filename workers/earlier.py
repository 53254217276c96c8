"""Rows that were computed before for the same image: of earlier versions of a folder or a list, or of its copies.

The chunks of a folder's new version have other images than those of the version before, so its parts are written
anew; but of an image that has not changed, the row is copied from an earlier part of the same fingerprint. So it is
with rows that are chosen of a shard: those of the whole shard, and of earlier choices, are its versions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from strata.core import Chunk, Record, Status, chosen_by, source_identity
from strata.store import Attempts, BrokenPart, Source, Store, is_picked_list
from workers.items import ChunkIndex

MAX_CANDIDATES = 4  # rows of equal size and alt text whose bytes are compared with an image's
Key = tuple[str, int, str | None, str | None]


class _Version(NamedTuple):
    """Another version of a folder: its identity, and its rows' positions by what identifies an image.

    own: it is of the same URI, so that the time stamps of both are of the same files.
    """

    identity: str
    own: bool
    exact: dict[Key, int]
    names: dict[str, int]
    alike: dict[tuple[int, str | None], list[int]]

    @classmethod
    def of(cls, identity: str, own: bool, index: pa.Table, tar: str) -> _Version:
        """The version with an index; rows without an image are left out. tar: as of `_keys`."""
        exact: dict[Key, int] = {}
        names: dict[str, int] = {}
        alike: dict[tuple[int, str | None], list[int]] = defaultdict(list)
        for position, key in enumerate(_keys(index, tar)):
            if key is not None:
                exact[key] = position
                names[key[0]] = position
                alike[key[1], key[3]].append(position)
        return cls(identity, own, exact, names, alike)


class EarlierRows:
    """Finds rows of other versions of a folder or list. Every method raises OSError."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._versions: tuple[Chunk, list[_Version]] | None = None

    def of(self, chunk: Chunk, index: ChunkIndex) -> Earlier | None:
        """What was computed before of a chunk's images with its fingerprint; None if there is nothing."""
        if not index.families:
            return None
        # keep the versions of the shard that was asked for last: consecutive chunks are mostly of one shard
        kept = self._versions
        if kept is None or kept[0] != index.chunk:
            others = (one for one in self.store.family(index.families) if one != chunk.identity)
            versions = [version for one in others if (version := self._version(index, one))]
            kept = self._versions = index.chunk, versions
        return Earlier(self.store, chunk, index.size, _keys(index.slice(chunk)), kept[1]) if kept[1] else None

    def _version(self, index: ChunkIndex, identity: str) -> _Version | None:
        try:
            table, footer = self.store.read_part(replace(index.chunk, identity=identity))
            # the first family is that of the URI; chosen rows have that of their source before it, which has it not
            own = identity == source_identity(index.chunk.identity) or footer.families[:1] in _first_two(index)
            tar = self._tar_of(index, identity)
            return _Version.of(identity, own or tar != "", table, tar)
        except (FileNotFoundError, BrokenPart):  # `strata clean` has removed it, or a job of its own must repair it
            return None

    def _tar_of(self, index: ChunkIndex, identity: str) -> str:
        """The URI of the tar that a version is (chosen) of, if the index is a list of picked images; else ""."""
        if not is_picked_list(index.chunk.shard):
            return ""
        tars = self.store.read_sources(index.chunk.identity)
        return next((uri for uri, of in tars.items() if of == source_identity(identity)), "")


class Earlier:
    """The earlier rows of one chunk's images. keys: what identifies these images, None for a row without one."""

    def __init__(self, store: Store, chunk: Chunk, size: int, keys: list[Key | None], versions: list[_Version]) -> None:
        self.store, self.chunk, self.size, self.keys, self.versions = store, chunk, size, keys, versions
        self._attempts: dict[str, Attempts] = {}
        self._tables: dict[Chunk, pa.Table] = {}

    def same(self, row: int) -> Record | None:
        """The earlier row of an image whose name, size, time stamp and alt text have not changed; None without one.

        Only rows of the same URI count: elsewhere another file may have the same time stamp.
        """
        key = self.keys[row]
        if key is None or not key[2]:
            return None
        own = [version for version in self.versions if version.own]
        found = (self._row(version, version.exact[key]) for version in own if key in version.exact)
        return next((record for record in found if record is not None), None)

    def alike(self, row: int) -> list[Record]:
        """Earlier rows of images with the size and alt text of an image and a known SHA-256, first of its own name."""
        key = self.keys[row]
        if key is None:
            return []
        records = (self._row(version, at) for version in self.versions for at in _by_name(version, key))
        return [record for record in records if record is not None and record.image.sha256]

    def _row(self, version: _Version, position: int) -> Record | None:
        """The row at a position of a version; None if it is not computed yet, or has failed."""
        number, row = divmod(position, self.size)
        newest = self._attempts_of(version.identity).newest(
            replace(self.chunk, identity=version.identity, number=number, images=0, attempt=0)
        )
        if newest is None:
            return None
        try:
            if newest not in self._tables:
                self._tables[newest] = self.store.read_table(newest)
            (record,) = self.store.to_records(self._tables[newest].slice(row, 1), Source.of(newest))
        except (FileNotFoundError, BrokenPart):
            return None
        return None if record.status is Status.FAILED else record

    def _attempts_of(self, identity: str) -> Attempts:
        """The attempts at the chunks of a version."""
        if identity not in self._attempts:
            self._attempts[identity] = self.store.attempts(replace(self.chunk, identity=identity))
        return self._attempts[identity]


def _first_two(index: ChunkIndex) -> list[tuple[str, ...]]:
    return [index.families[:1], *([index.families[1:2]] if chosen_by(index.chunk.shard) else [])]


def _keys(index: pa.Table, tar: str = "") -> list[Key | None]:
    """What identifies the image of each row: place, size, stamp and alt text; None without an image.

    The place is the relative URI, in a tar with the offset. tar: the URI of the tar, for a list of picked images, whose
    own URIs are absolute.
    """
    names = [name for name in ("uri", "offset", "size", "stamp", "alt_text", "error") if name in index.column_names]
    rows = index.select(names).to_pylist()
    return [
        None if row["error"] is not None else (_place(row, tar), row["size"], row.get("stamp"), row["alt_text"])
        for row in rows
    ]


def _place(row: dict[str, Any], tar: str) -> str:
    uri: str = row["uri"] or tar
    return f"{uri}@{row['offset']}" if row["offset"] else uri


def _by_name(version: _Version, key: Key) -> Iterator[int]:
    """Positions of rows with the size and alt text of a key, at most MAX_CANDIDATES, first that of the same name."""
    positions = version.alike.get((key[1], key[3]), [])
    own = version.names.get(key[0])
    first = [own] if own in positions else []
    yield from (first + [at for at in positions[:MAX_CANDIDATES] if at != own])[:MAX_CANDIDATES]
