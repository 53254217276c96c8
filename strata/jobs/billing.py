"""Billing: if Redis has lost a job's ledger, rebuild it from the bills in the footers of the job's parts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from strata.core import Chunk, JobRequest, ShardSummary
from strata.jobs.jobs import Jobs
from strata.store import Footer

log = logging.getLogger(__name__)


class Billing:
    """Rebuilds ledgers in a thread, because a big job has thousands of footers and the scheduler must not wait."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.store, self.ledger = jobs, jobs.store, jobs.ledger
        self._rebuilding: dict[str, Future[None]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="billing")

    def close(self) -> None:
        """Stop; a ledger that is not rebuilt yet stays incomplete."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def known(self, request: JobRequest) -> bool:
        """Whether a job's ledger is complete. If it is not, start to rebuild it once all shards are indexed.

        Raises QueueUnavailable, and OSError if the bills could not be read; the next call starts again.
        """
        if not request.paid or self.ledger.known(request.id):
            return True
        rebuilding = self._rebuilding.get(request.id)
        if rebuilding is not None and rebuilding.done():
            # raise the error of the thread, if there was one
            self._rebuilding.pop(request.id).result()
        elif rebuilding is None and self.jobs.queue.job_states.summary_count(request.id) == len(request.shards):
            # only the summaries of all shards tell which parts there are
            self._rebuilding[request.id] = self._pool.submit(self._rebuild, request)
        return False

    def _rebuild(self, request: JobRequest) -> None:
        count = 0
        for summary in self.jobs.summaries(request.id).values():
            chunks = list(self._paid_parts(request, summary))
            for chunk, footer in zip(chunks, self.store.read_all_footers(chunks), strict=True):
                # another job may have paid for a part that this job uses; the bill of a broken part is lost
                if isinstance(footer, Footer) and footer.bill is not None and footer.bill.job == request.id:
                    self.ledger.restore(chunk.id, footer.bill)
                    count += 1
        self.ledger.complete(request.id)
        log.info("job %s: the ledger was lost and has been rebuilt from %d bills", request.id, count)

    def _paid_parts(self, request: JobRequest, summary: ShardSummary) -> Iterator[Chunk]:
        """The chunks of a shard in groups that ask servers, whose parts exist; also those of earlier attempts."""
        for group in request.paid:
            chunks = list(request.chunks(summary, group))
            attempts = self.store.all_attempts(chunks[0]) if chunks else {}
            yield from (replace(chunk, attempt=each) for chunk in chunks for each in attempts.get(chunk.number, ()))
