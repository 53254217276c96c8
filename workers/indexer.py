"""The group `index`: reads a shard's table of contents once and writes it as a part."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa
import redis

from strata.core.chunks import Chunk
from strata.core.records import FailureNote
from strata.core.requests import ShardSummary
from strata.jobs.jobs import Jobs
from strata.queue.broker import Claim
from strata.shards.sources import SourceError, index_shard, shard_identity
from workers.leases import Leases
from workers.retry import Result, WorkInterrupted, retry_until_done

log = logging.getLogger(__name__)

MOST_DELIVERIES = 4  # a shard that ended this many workers is given up


class Indexer:
    """Indexes shards until told to stop. roots: where the images that a list names must lie."""

    def __init__(self, jobs: Jobs, leases: Leases, roots: Sequence[str] = ()) -> None:
        self.jobs, self.leases, self.roots = jobs, leases, roots

    def run(self, stop: threading.Event) -> None:
        """Work until stop is set."""
        broker, name = self.jobs.broker, self.leases.name
        while not stop.is_set():
            try:
                claims = broker.take_over("index", name, self.leases.seconds)
                for claim in claims or broker.claim("index", name, 1, block=1.0):
                    self.leases.hold([claim])
                    self._work(claim, stop)
            except redis.RedisError as error:
                log.warning("index waits for Redis: %s", error)
                stop.wait(1.0)

    def _work(self, claim: Claim, stop: threading.Event) -> None:
        try:
            summary = self._summary(claim, stop)
            unreadable = int(summary.failure is not None and summary.images == 0)
            counts = {"images": summary.images, "chunks": 1, "unreadable": unreadable}
            self.leases.release(claim)
            self.jobs.broker.finish(claim, self.leases.name, summary.model_dump_json(), counts)
        except WorkInterrupted:
            self.jobs.broker.give_back(claim, self.leases.name)
        finally:
            self.leases.release(claim)

    def _summary(self, claim: Claim, stop: threading.Event) -> ShardSummary:
        """What the shard holds; a shard that ended several workers is read no more. Raises WorkInterrupted."""
        chunk = claim.chunk
        if claim.deliveries > MOST_DELIVERIES:
            return _failed(chunk, "poison", f"reading it ended {claim.deliveries - 1} workers")
        try:
            part = replace(chunk, identity=shard_identity(chunk.shard))
            stored = self._stored(part, stop)
            index = None if stored else index_shard(chunk.shard, self.roots)
        except (SourceError, OSError, ValueError) as error:
            return _failed(chunk, type(error).__name__, str(error))
        if index is not None:
            part, stored = replace(chunk, identity=index.identity), (index.table, index.failure)
            self._waiting(lambda: self.jobs.store.write_index(part, index.table, index.failure), stop)
        assert stored is not None
        table, failure = stored
        note = FailureNote(stage="index", error_type="damaged_shard", detail=failure) if failure else None
        return ShardSummary(shard=chunk.shard, identity=part.identity, images=table.num_rows, failure=note)

    def _stored(self, part: Chunk, stop: threading.Event) -> tuple[pa.Table, str | None] | None:
        """The shard's index part: it is read once in its life. None if there is none yet."""
        try:
            return self._waiting(lambda: self.jobs.store.read_index(part), stop)
        except FileNotFoundError:
            return None

    def _waiting(self, act: Callable[[], Result], stop: threading.Event) -> Result:
        """A store that is away or full is waited for: that is no fault of the shard."""
        return retry_until_done(act, (OSError,), stop, lambda: True)


def _failed(chunk: Chunk, kind: str, detail: str) -> ShardSummary:
    log.warning("shard %s: %s", chunk.shard, detail)
    return ShardSummary(
        shard=chunk.shard, failure=FailureNote(stage="index", error_type=kind, detail=" ".join(detail.split())[:300])
    )
