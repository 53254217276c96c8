"""What a job keeps for good: its request, and what its shards were found to hold."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from strata.core.chunks import Chunk
from strata.core.records import SCHEMA_VERSION, FailureNote
from strata.core.schemas import Budget, Priority


class ShardSummary(BaseModel):
    """What `index` found in a shard; failure: why it could not be read, wholly or from some place on."""

    shard: str
    identity: str = ""
    images: int = 0
    failure: FailureNote | None = None

    def chunks(self, size: int) -> int:
        """How many chunks of size images the shard has."""
        return -(-self.images // size)


class ShardSummaries(BaseModel):
    """What a finished job keeps of its shards."""

    shards: list[ShardSummary]


class JobRequest(BaseModel):
    """What was asked for, with everything that decides which parts answer it.

    Only a retry changes it. paid: the groups that ask a server; priced: whether the profile knows what that costs.
    retries: of chunks (by their field) whose failed images were tried again, which attempt
    counts for this job.
    """

    id: str
    kind: Literal["image", "batch"]
    shards: list[str]
    profile: str
    fingerprints: dict[str, str]
    chunk_size: int
    priority: Priority
    metadata: dict[str, str]
    created_at: datetime
    schema_version: int = SCHEMA_VERSION
    indexed: list[ShardSummary] = []  # shards that need no indexing: an upload
    retries: dict[str, int] = {}
    paid: list[str] = []
    priced: bool = False
    budget: Budget | None = None

    def index_chunk(self, shard: str) -> Chunk:
        """The chunk that reads a shard's table of contents."""
        return Chunk("index", self.profile, self.fingerprints["index"], shard)

    def chunks(self, summary: ShardSummary, group: str, numbers: Iterable[int] | None = None) -> Iterable[Chunk]:
        """The chunks of an indexed shard in a group, in order."""
        fingerprint = self.fingerprints[group]
        for number in range(summary.chunks(self.chunk_size)) if numbers is None else numbers:
            images = min(self.chunk_size, summary.images - number * self.chunk_size)
            attempt = self.retries.get(f"{summary.identity}/{number:05d}", 0)
            yield Chunk(group, self.profile, fingerprint, summary.shard, summary.identity, number, images, attempt)
