"""Chunks and requests for tests of the queue."""

from __future__ import annotations

from datetime import UTC, datetime

from strata.core.chunks import Chunk
from strata.core.profiles import GROUPS
from strata.core.requests import JobRequest


def chunk(number: int = 0, group: str = "vision") -> Chunk:
    """A chunk of four images."""
    return Chunk(group, "fake", "f" * 16, "a.tar", "i" * 16, number, 4)


def job_request(job_id: str, shards: tuple[str, ...] = ("a.tar",), caller: str = "") -> JobRequest:
    """The request of a batch job."""
    return JobRequest(
        id=job_id,
        kind="batch",
        shards=list(shards),
        profile="fake",
        fingerprints=dict.fromkeys(GROUPS, "f" * 16),
        chunk_size=4,
        priority="lo",
        metadata={},
        created_at=datetime.now(UTC),
        caller=caller,
    )
