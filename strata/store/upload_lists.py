"""Lists that are made here: the shard of images that were sent in bulk, and that of images picked from other shards.

Images that were sent in bulk are known by the hash of the sender's file.

An upload is stored without metadata, under the SHA-256 of what is stored. `received/` has, by the SHA-256 of the file
as it was sent, under which one that is, so that a file need not be sent twice. Each tenant has its own: who knows the
hash of a picture that another tenant has sent has not got the picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa

from strata.core import DEFAULT_TENANT, Chunk, JobRequest, ShardSummary, is_hash
from strata.store.index_rows import IndexRow, index_table
from strata.store.part_files import READERS
from strata.store.store import Store

_UPLOADS = "uploads:"  # before the identity of a list of uploads in its URI
_PICKED = "picked:"  # the same of images that lie in other shards
_IDENTIFYING = ("key", "uri", "size", "alt_text")


class Received(NamedTuple):
    """An image that was sent: the SHA-256 under which it is stored, and the bytes that are stored."""

    sha256: str
    size: int


class ReceivedUploads:
    """What a tenant has sent, by the SHA-256 of the senders' files. Every method raises OSError."""

    def __init__(self, store: Store, tenant: str = DEFAULT_TENANT) -> None:
        self.store = store
        self._folder = ["received"] if tenant == DEFAULT_TENANT else ["received", "tenants", tenant]

    def find(self, digests: Sequence[str]) -> list[Received | None]:
        """What was received under each hash, in order; None for what was never sent, or is not there any more."""
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self._find, digests))

    def keep(self, digest: str, data: bytes) -> Received:
        """Store what remains of a file with this hash without its metadata."""
        received = Received(hashlib.sha256(data).hexdigest(), len(data))
        self.store.put_upload(received.sha256, data)
        # after the image: what is told of here is there
        self.store.put(self._path(digest), json.dumps(received._asdict()).encode())
        return received

    def _find(self, digest: str) -> Received | None:
        try:
            found: Any = json.loads(self.store.get(self._path(digest)))
            received = Received(str(found["sha256"]), int(found["size"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        known = (
            len(received.sha256) == 64
            and is_hash(received.sha256)
            and self.store.has_upload(self.store.upload_uri(received.sha256))
        )
        return received if known else None

    def _path(self, digest: str) -> str:
        return self.store.path(*self._folder, digest[:2], digest)


def write_list(store: Store, rows: Iterable[IndexRow], index: Callable[[str], Chunk]) -> ShardSummary:
    """Write the index part of a list of uploads; equal lists have the same identity, and so share their results.

    index: the chunk that reads a shard's table of contents, by its URI. Raises OSError.
    """
    table = index_table(rows)
    identity = _identity(table, _IDENTIFYING)
    return _write(store, table, index(f"{_UPLOADS}{identity}"), identity)


def write_picked(
    store: Store,
    rows: Iterable[IndexRow],
    index: Callable[[str], Chunk],
    sources: Mapping[str, str],
    families: Sequence[str] = (),
) -> ShardSummary:
    """Write the index part of a list of images that lie in other shards; rows: with absolute URIs.

    sources: the identities of the tars among these shards, with which they are compared before an image is read;
    families: of the folders and lists among them, whose earlier rows are then found. Equal lists have the same
    identity, and so share their results. Raises OSError.
    """
    table = index_table(rows)
    identity = _identity(table, (*_IDENTIFYING, "offset", "stamp"))
    store.keep_sources(identity, sources)
    return _write(store, table, index(f"{_PICKED}{identity}"), identity, families)


def _identity(table: pa.Table, columns: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for row in table.select(list(columns)).to_pylist():
        digest.update(json.dumps(list(row.values())).encode())
    return digest.hexdigest()[:16]


def _write(store: Store, table: pa.Table, index: Chunk, identity: str, families: Sequence[str] = ()) -> ShardSummary:
    part = Chunk("index", index.profile, index.fingerprint, index.shard, identity)
    store.write_index(part, table, families=families)
    return ShardSummary(shard=index.shard, identity=identity, images=table.num_rows)


def is_picked_list(uri: str) -> bool:
    """Whether a shard is a list of images that lie in other shards."""
    return uri.startswith(_PICKED)


def is_made_list(uri: str) -> bool:
    """Whether a shard is a list that was made here: only who has made it can index it."""
    return uri.startswith((_UPLOADS, _PICKED))


def uploads_of(store: Store, request: JobRequest) -> set[str]:
    """The URIs of the uploads that a job uses, `upload:SHA256`. Raises OSError; a lost index part names none."""
    if request.kind == "image":
        return set(request.shards)
    found: set[str] = set()
    for summary in request.indexed:
        if is_made_list(summary.shard):
            fingerprint = request.fingerprints["index"]
            chunk = Chunk("index", request.profile, fingerprint, summary.shard, summary.identity)
            try:
                table, _ = store.read_part(chunk)
            except FileNotFoundError:
                continue
            # of a list of picked images only some may be uploads
            found.update(uri for uri in table.column("uri").to_pylist() if store.is_upload(uri))
    return found
