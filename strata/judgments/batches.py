"""Batches: the files of judgments. A batch is a Parquet file that is written once, and removed only as a whole.

Its name has the time, a hash of its reviewers, and a hash of its bytes: so two processes never write to one name, the
same bytes have the same name, and damage is found. In its footer it names the batches that it follows (those of its
folder that no other one had named yet), so that a batch that was lost is missed, and those that it replaces, if it was
made of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from strata.core.records import arrow_type
from strata.errors import DataError
from strata.judgments.judgment import JudgedSentence, Judgment

_NAME = re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}-([0-9a-f]{16})\.parquet", re.ASCII)
_VERSION, _AFTER, _REPLACES = b"strata.judgments_version", b"strata.after", b"strata.replaces"
VERSION = 1
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("id", "reviewer", "verdict")),
        *(pa.field(name, pa.string()) for name in ("reason", "comment")),
        pa.field("sentences", pa.list_(arrow_type(JudgedSentence))),
        pa.field("supersedes", pa.string()),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("job", "fingerprint", "identity", "key")),
        pa.field("text", pa.string()),
    ]
)


class BrokenBatch(DataError):
    """The bytes are not those of the batch that the name names; the message is one line."""


@dataclass(frozen=True)
class Batch:
    """The judgments of one file. after: the names of the batches that it follows; replaces: that it was made of."""

    judgments: tuple[Judgment, ...]
    after: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()


def is_batch(name: str) -> bool:
    """Whether a file has the name of a batch."""
    return _NAME.fullmatch(name) is not None


def encode(judgments: Sequence[Judgment], after: Iterable[str] = (), replaces: Iterable[str] = ()) -> tuple[str, bytes]:
    """The name and the bytes of a batch with these judgments, at least one."""
    rows = [judgment.model_dump() for judgment in judgments]
    entries = {
        _VERSION: str(VERSION).encode(),
        _AFTER: json.dumps(sorted(after)).encode(),
        _REPLACES: json.dumps(sorted(replaces)).encode(),
    }
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata(entries))
    pq.write_table(table, buffer, compression="zstd", write_statistics=False)
    data = buffer.getvalue()
    # the name sorts by the time of the newest judgment
    newest = max(judgment.at for judgment in judgments).astimezone(UTC)
    reviewers = "\0".join(sorted({judgment.reviewer for judgment in judgments}))
    name = f"{newest:%Y%m%dT%H%M%S%f}-{_digest(reviewers.encode(), 4)}-{_digest(data, 8)}.parquet"
    return name, data


def decode(name: str, data: bytes) -> Batch:
    """The batch of a file. Raises BrokenBatch."""
    found = _NAME.fullmatch(name)
    if found is None or found[1] != _digest(data, 8):
        raise BrokenBatch("its bytes are not those that were written")
    try:
        table = pq.read_table(pa.BufferReader(data))
        entries = table.schema.metadata or {}
        if int(entries[_VERSION]) > VERSION:
            raise BrokenBatch("a later version of Strata has written it")
        judgments = tuple(Judgment.model_validate(_complete(row)) for row in table.to_pylist())
        after, replaces = (tuple(map(str, json.loads(entries[name]))) for name in (_AFTER, _REPLACES))
    except BrokenBatch:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenBatch(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    return Batch(judgments, after, replaces)


def _complete(row: dict[str, object]) -> dict[str, object]:
    return {**row, "sentences": row["sentences"] or ()}


def _digest(data: bytes, size: int) -> str:
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def now() -> datetime:
    """The time of a judgment that is stored now."""
    return datetime.now(UTC)
