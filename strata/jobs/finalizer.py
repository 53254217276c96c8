"""The finalizer: ends a job, as completed only if the counts in its parts' footers add up to its images."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

from strata.core import FINAL_GROUP, JobRequest, JobStatus, ShardSummary
from strata.jobs.job_parts import JobParts
from strata.jobs.jobs import Jobs
from strata.jobs.plans import Plan
from strata.store import count_of

log = logging.getLogger(__name__)


class Finalizer:
    """Ends jobs. It counts parts in a thread: a big job has thousands of them, and the scheduler must not wait."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.queue, self.store = jobs, jobs.queue, jobs.store
        self.parts = JobParts(jobs)
        self._counting: dict[str, Future[Counter[str]]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="finalizer")

    def close(self) -> None:
        """Stop counting."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self, request: JobRequest) -> None:
        """Start to count the images in a job's parts."""
        self.jobs.set_status(request.id, JobStatus.FINALIZING)
        summaries = list(self.jobs.summaries(request.id).values())
        self._counting[request.id] = self._pool.submit(self._count, request, summaries)

    def is_counting(self, request: JobRequest) -> bool:
        """Whether `begin` was called for a job that has not ended yet."""
        return request.id in self._counting

    def advance(self, plan: Plan) -> bool:
        """End a job whose parts have been counted, or restart its plan if they do not add up; True if it ended."""
        job_id = plan.request.id
        if not self._counting[job_id].done():
            return False
        counting = self._counting.pop(job_id)
        summaries = self.jobs.summaries(job_id)
        # parts may have been deleted since they were counted in Redis: then they are computed again
        try:
            counts = counting.result()
        except FileNotFoundError as error:
            log.warning("job %s: a part is missing, so the plan starts again: %s", job_id, error)
            return self._restart(plan)
        if sum(counts.values()) != sum(summary.images for summary in summaries.values()):
            log.error("job %s: the counts of its parts, %s, do not add up to its images", job_id, dict(counts))
            return self._restart(plan)
        # a job of which no shard could be read has failed; single unreadable shards are reported in its failures
        reasons = [f"{name}: {summary.failure.detail}" for name, summary in summaries.items() if summary.failure]
        if reasons and not any(summary.images for summary in summaries.values()):
            self._end(job_id, JobStatus.FAILED, error=f"no shard could be read: {reasons[0]}")
        else:
            final_counts = {f"{FINAL_GROUP}:{name}": str(n) for name, n in count_of(counts).items()}
            self._end(job_id, JobStatus.COMPLETED, **final_counts)
        return True

    def end_unfinished(self, request: JobRequest, status: JobStatus) -> None:
        """End a job before it is complete. Workers drop the chunks for which no other job waits."""
        self._counting.pop(request.id, None)
        self.queue.broker.withdraw(request.id)
        self._end(request.id, status)

    def _count(self, request: JobRequest, summaries: list[ShardSummary]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for summary in summaries:
            for footer in self.parts.footers(request, summary):
                counts += footer.counts
        return counts

    def _restart(self, plan: Plan) -> bool:
        """Rebuild the job's working copy and compare its plan with the store again. False: the job has not ended."""
        self.jobs.forget(plan.request.id)
        self.jobs.activate(plan.request)
        plan.restart()
        return False

    def _end(self, job_id: str, status: JobStatus, **fields: str) -> None:
        self.jobs.set_status(job_id, status, finished_at=datetime.now(UTC).isoformat(), **fields)
        # write the job's files before its mark is removed: a process that dies in between ends the job once more
        self.jobs.write_shards(job_id)
        self.store.write_job_file(job_id, "end", self.jobs.view(job_id))
        self.store.close_job(job_id)
        # the working copy in Redis is no longer needed
        self.queue.job_states.deactivate(job_id)
        self.queue.job_states.expire(job_id)
