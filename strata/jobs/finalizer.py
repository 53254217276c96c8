"""The finalizer: ends a job, as completed only when its counts, read again from its parts, add up."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import cast

from strata.core.profiles import FINAL_GROUP
from strata.core.requests import JobRequest, ShardSummary
from strata.core.schemas import JobStatus
from strata.jobs.jobs import Jobs
from strata.jobs.plans import Plan
from strata.queue import keys
from strata.store.store import count_of

log = logging.getLogger(__name__)


class Finalizer:
    """Ends jobs. Parts are counted in a thread, beside the scheduler's beat: a big job has thousands."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.broker, self.store = jobs, jobs.broker, jobs.store
        self._counting: dict[str, Future[Counter[str]]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="finalizer")

    def close(self) -> None:
        """Count no further."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self, request: JobRequest) -> None:
        """Start to count the images in a job's parts."""
        self.jobs.set_status(request.id, JobStatus.FINALIZING)
        summaries = list(self.jobs.summaries(request.id).values())
        self._counting[request.id] = self._pool.submit(self._count, request, summaries)

    def counts(self, request: JobRequest) -> bool:
        """Whether the job's parts are being counted."""
        return request.id in self._counting

    def advance(self, plan: Plan) -> bool:
        """End the job if its parts are counted and add up, start its plan anew if they do not; whether it ended."""
        job_id = plan.request.id
        if not self._counting[job_id].done():
            return False
        counting = self._counting.pop(job_id)
        summaries = self.jobs.summaries(job_id)
        try:
            counts = counting.result()
        except FileNotFoundError as error:
            log.warning("job %s: a part is gone, its plan starts anew: %s", job_id, error)
            return self._start_anew(plan)
        if sum(counts.values()) != sum(summary.images for summary in summaries.values()):
            log.error("job %s: parts hold %s, that is not its number of images", job_id, dict(counts))
            return self._start_anew(plan)
        reasons = [f"{name}: {summary.failure.detail}" for name, summary in summaries.items() if summary.failure]
        if reasons and not any(summary.images for summary in summaries.values()):
            self._end(job_id, JobStatus.FAILED, error=f"no shard could be read: {reasons[0]}")
        else:
            own = {f"{FINAL_GROUP}:{name}": str(n) for name, n in count_of(counts).items()}
            self._end(job_id, JobStatus.COMPLETED, **own)
        return True

    def withdraw(self, request: JobRequest, status: JobStatus) -> bool:
        """End a job before it is complete: always True. Workers drop chunks that nobody waits for."""
        self._counting.pop(request.id, None)
        waiting = cast(dict[str, str], self.broker.redis.hgetall(keys.QUEUED))
        with self.broker.redis.pipeline(transaction=False) as pipe:
            for chunk_id in waiting:
                pipe.srem(keys.waiters(chunk_id), request.id)
            pipe.execute()
        self._end(request.id, status)
        return True

    def _count(self, request: JobRequest, summaries: list[ShardSummary]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for summary in summaries:
            for found in self.store.read_all_counts(list(request.chunks(summary, FINAL_GROUP))):
                counts += found
        return counts

    def _start_anew(self, plan: Plan) -> bool:
        """Always False: the job goes on."""
        self.jobs.forget(plan.request.id)
        self.jobs.activate(plan.request)
        plan.restart()
        return False

    def _end(self, job_id: str, status: JobStatus, **fields: str) -> None:
        self.jobs.set_status(job_id, status, finished_at=datetime.now(UTC).isoformat(), **fields)
        self.jobs.write_shards(job_id)
        self.store.write_job_file(job_id, "end", self.jobs.view(job_id))
        self.store.close_job(job_id)
        self.broker.redis.srem(keys.ACTIVE, job_id)
        self.jobs.let_expire(job_id)
