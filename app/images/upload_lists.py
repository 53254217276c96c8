"""The shard of a batch whose images were sent before: a row for each, with a key from the name that it was given."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

from app.problems import ProblemError
from strata.core import BatchInput, Chunk, Profile, ShardSummary
from strata.shards import Keys
from strata.store import IndexRow, ReceivedUploads, Store, write_list

MOST_TOLD = 20  # missing images that a problem lists


def upload_list(store: Store, given: BatchInput, profile: Profile, tenant: str) -> ShardSummary:
    """Index the uploads that a request of a tenant names. Raises ProblemError if some are not there, and OSError."""
    lines = [line.partition(" ") for line in given.uploads or ()]
    received = ReceivedUploads(store, tenant).find([digest for digest, _, _ in lines])
    missing = [digest for (digest, _, _), found in zip(lines, received, strict=True) if found is None]
    if missing:
        detail = f"{len(missing):,} of {len(lines):,} images are not here: ask `POST /v1/uploads`, and send them"
        place = ["body", "input", "uploads"]
        errors = [{"type": "missing", "location": place, "message": digest} for digest in missing[:MOST_TOLD]]
        raise ProblemError("uploads-missing", detail, errors)
    alt_texts = given.alt_texts or [None] * len(lines)

    def rows() -> Iterator[IndexRow]:
        keys = Keys()
        for (digest, _, name), found, alt_text in zip(lines, received, alt_texts, strict=True):
            assert found is not None
            key = keys.distinct(Keys.clean(_stem(name)) or digest[:16])
            yield IndexRow(key, store.upload_uri(found.sha256), 0, found.size, alt_text or None)

    index = Chunk("index", profile.name, profile.fingerprint("index"), "")
    return write_list(store, rows(), functools.partial(_of_shard, index))


def _of_shard(index: Chunk, shard: str) -> Chunk:
    return replace(index, shard=shard)


def _stem(name: str) -> str:
    """A path without its extension, as a folder's images have keys; of `.jpg` it is the whole name."""
    folder, slash, last = name.rpartition("/")
    stem = last.rpartition(".")[0] or last
    return f"{folder}{slash}{stem}"
