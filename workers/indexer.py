"""The group `index`: reads a shard's table of contents once and writes it as a part."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict

import redis

from strata.broker import Claim
from strata.chunks import Chunk
from strata.jobs import Jobs
from strata.records import FailureNote
from strata.requests import ShardSummary
from strata.sources import SourceError, index_shard, shard_identity
from workers.leases import Leases

log = logging.getLogger(__name__)


class Indexer:
    """Indexes shards until told to stop."""

    def __init__(self, jobs: Jobs, leases: Leases) -> None:
        self.jobs, self.leases = jobs, leases

    def run(self, stop: threading.Event) -> None:
        """Work until stop is set."""
        broker, name = self.jobs.broker, self.leases.name
        while not stop.is_set():
            try:
                claims = broker.take_over("index", name, self.leases.seconds)
                for claim in claims or broker.claim("index", name, 1, block=1.0):
                    self.leases.hold([claim])
                    self._work(claim)
            except redis.RedisError as error:
                log.warning("index waits for Redis: %s", error)
                stop.wait(1.0)

    def _work(self, claim: Claim) -> None:
        if self.jobs.broker.waiting_jobs(claim.chunk):
            summary = self._summary(claim.chunk)
        else:
            summary = ShardSummary(shard=claim.chunk.shard)
        unreadable = int(summary.failure is not None and summary.images == 0)
        counts = {"images": summary.images, "chunks": 1, "unreadable": unreadable}
        self.leases.release(claim)
        self.jobs.broker.finish(claim, self.leases.name, summary.model_dump_json(), counts)

    def _summary(self, chunk: Chunk) -> ShardSummary:
        """What the shard holds, from its index part if there is one, else by reading the shard."""
        try:
            part = Chunk("index", chunk.profile, chunk.fingerprint, chunk.shard, shard_identity(chunk.shard))
            if not self.jobs.store.has_part(part):
                index = index_shard(chunk.shard)
                part = Chunk("index", chunk.profile, chunk.fingerprint, chunk.shard, index.identity)
                self.jobs.store.write_index(part, (asdict(row) for row in index.rows), index.failure)
            table, failure = self.jobs.store.read_index(part)
        except (SourceError, OSError, ValueError) as error:
            log.warning("shard %s: %s", chunk.shard, error)
            note = FailureNote(stage="index", error_type=type(error).__name__, detail=str(error)[:300])
            return ShardSummary(shard=chunk.shard, failure=note)
        note_or_none = failure and FailureNote(stage="index", error_type="damaged_shard", detail=failure)
        return ShardSummary(
            shard=chunk.shard, identity=part.identity, images=table.num_rows, failure=note_or_none or None
        )
