"""Lists that are made here: the shard of images that were sent in bulk, and that of images picked from other shards.

Images that were sent in bulk are known by the hash of the sender's file.

An upload is stored without metadata, under the SHA-256 of what is stored. `received/` has, by the SHA-256 of the file
as it was sent, under which one that is, so that a file need not be sent twice. Each tenant has its own: who knows the
hash of a picture that another tenant has sent has not got the picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import pyarrow as pa

from strata.core import (
    DEFAULT_TENANT,
    Chunk,
    JobRequest,
    ShardSummaries,
    ShardSummary,
    chosen_by,
    is_hash,
    source_shard,
)
from strata.store.index_rows import IndexRow, index_table, located_rows
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
        received = _read(self.store, self._path(digest))
        return received if received and self.store.has_upload(self.store.upload_uri(received.sha256)) else None

    def _path(self, digest: str) -> str:
        return self.store.path(*self._folder, digest[:2], digest)


def received_uploads(store: Store) -> set[str]:
    """The SHA-256 of all stored images that any tenant has sent for batches. It reads each note. Raises OSError."""
    with ThreadPoolExecutor(READERS) as pool:
        notes = pool.map(lambda path: _read(store, store.path(path)), store.find("received"))
        return {note.sha256 for note in notes if note}


def _read(store: Store, path: str) -> Received | None:
    """A note of what was received; None if there is none, or if it is damaged."""
    try:
        found: Any = json.loads(store.get(path))
        received = Received(str(found["sha256"]), int(found["size"]))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return received if len(received.sha256) == 64 and is_hash(received.sha256) else None


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
    """Whether a shard is a list of images that lie in other shards. Rows that are chosen of it are none."""
    return uri.startswith(_PICKED) and chosen_by(uri) is None


def is_made_list(uri: str) -> bool:
    """Whether a shard is a list that was made here: only who has made it can index it, but not rows chosen of it."""
    return uri.startswith((_UPLOADS, _PICKED)) and chosen_by(uri) is None


def uploads_of(store: Store, request: JobRequest) -> set[str]:
    """The URIs of the uploads that a job uses, `upload:SHA256`. Raises OSError; a lost index part names none."""
    if request.kind == "image":
        return set(request.shards)
    found: set[str] = set()
    for summary in _lists(store, request):
        index = request.index_chunk(summary.shard, summary.identity)
        with suppress(FileNotFoundError):
            table, _ = store.read_part(index)
            # of a list of picked images only some may be uploads
            found.update(row.uri for row in located_rows(table, summary.shard))
    return {uri for uri in found if store.is_upload(uri)}


def _lists(store: Store, request: JobRequest) -> Iterator[ShardSummary]:
    """The indexes in which a job's uploads are; of rows that are not chosen yet, those of what they are chosen from."""
    yield from (summary for summary in request.indexed if is_made_list(summary.shard))
    chosen = [shard for shard in request.shards if chosen_by(shard) and _holds_uploads(store, source_shard(shard))]
    if not chosen:
        return
    known = store.parse_job_file(request.id, "shards", ShardSummaries)
    summaries = {one.shard: one for one in known.shards} if known else {}
    for shard in chosen:
        _, identity = chosen_by(shard) or ("", "")
        summary = summaries.get(shard)
        # before they are indexed, the whole shard stands for them
        whole = ShardSummary(shard=source_shard(shard), identity=identity)
        yield summary if summary is not None and summary.identity else whole


def _holds_uploads(store: Store, uri: str) -> bool:
    return store.is_upload(uri) or is_made_list(uri)
