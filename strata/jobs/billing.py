"""Billing: when Redis has lost a job's ledger, the bills in the footers of its parts tell again what it has spent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from strata.core.chunks import Chunk
from strata.core.requests import JobRequest, ShardSummary
from strata.jobs.jobs import Jobs
from strata.queue import keys

log = logging.getLogger(__name__)


class Billing:
    """Reads bills beside the scheduler's beat: a big job has thousands."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.store, self.ledger = jobs, jobs.store, jobs.ledger
        self._reading: dict[str, Future[None]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="billing")

    def close(self) -> None:
        """Leave what is being read."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def known(self, request: JobRequest) -> bool:
        """Whether the ledger holds all that a job has spent; if not, and all its shards are indexed, have it read.

        Raises redis.RedisError, and OSError where the bills could not be read; the next call tries again.
        """
        if not request.paid or self.ledger.known(request.id):
            return True
        reading = self._reading.get(request.id)
        if reading is not None and reading.done():
            self._reading.pop(request.id).result()
        elif reading is None:
            indexed = self.jobs.broker.redis.hlen(keys.done(request.id, "index"))
            if indexed == len(request.shards):
                self._reading[request.id] = self._pool.submit(self._read, request)
        return False

    def _read(self, request: JobRequest) -> None:
        count = 0
        summaries = self.jobs.summaries(request.id).values()
        for chunks in (list(self._parts(request, summary)) for summary in summaries):
            for chunk, footer in zip(chunks, self.store.read_all_footers(chunks), strict=True):
                if footer.bill is not None and footer.bill.job == request.id:
                    self.ledger.settle(chunk.id, footer.bill)
                    count += 1
        self.ledger.complete(request.id)
        log.info("job %s: its ledger was lost and is made again of %d bills", request.id, count)

    def _parts(self, request: JobRequest, summary: ShardSummary) -> Iterator[Chunk]:
        """The parts there are of a shard in the groups that are paid, those of attempts before the last too."""
        for group in request.paid:
            chunks = list(request.chunks(summary, group))
            names = self.store.part_names(chunks[0]) if chunks else set()
            for last in chunks:
                attempts = [last]
                while attempts[-1].attempt:
                    attempts.append(attempts[-1].before())
                yield from (chunk for chunk in attempts if chunk.name in names)
