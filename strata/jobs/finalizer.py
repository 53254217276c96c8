"""The finalizer: ends a job, as completed only if the counts in its parts' footers add up to its images.

First the status is changed, by which it is decided how the job ends. Then `Jobs.write_end` writes the end to the store.
A process may die between any two steps: the job stays active until the last one, and the next scheduler goes on.
"""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import UTC, datetime

from strata.core import FINAL_GROUP, GROUPS, JobRequest, JobStatus, ShardSummary, part_name, source_shard
from strata.jobs.job_parts import Written
from strata.jobs.jobs import Jobs
from strata.jobs.plans import Plan
from strata.store import count_of

log = logging.getLogger(__name__)

FEW_CHUNKS = 1000  # a job that has no more does not wait for the counts of bigger ones


class Finalizer:
    """Ends jobs. It counts parts in threads: a big job has thousands of them, and the scheduler must not wait."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.queue, self.store = jobs, jobs.queue, jobs.store
        self.parts = jobs.parts
        self._counting: dict[str, Future[Counter[str]]] = {}
        self._ending: dict[str, Future[Written]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="finalizer")
        self._quick_pool = ThreadPoolExecutor(1, thread_name_prefix="quick finalizer")

    def close(self) -> None:
        """Stop counting."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._quick_pool.shutdown(wait=False, cancel_futures=True)

    def reset(self) -> None:
        """Forget what was counted: another process ends the jobs, or Redis was emptied."""
        self._counting.clear()
        self._ending.clear()

    def forget(self, job_id: str) -> None:
        """Forget what was counted of a job that has ended."""
        self._counting.pop(job_id, None)
        self._ending.pop(job_id, None)

    def _pool_for(self, request: JobRequest, summaries: list[ShardSummary]) -> Executor:
        chunks = sum(summary.chunks(request.chunk_size) for summary in summaries)
        return self._quick_pool if chunks <= FEW_CHUNKS else self._pool

    # a job of which everything is computed

    def begin(self, request: JobRequest) -> None:
        """Start to count the images in a job's parts, unless the job was cancelled or has failed in this moment."""
        if self.jobs.set_status(request.id, JobStatus.FINALIZING) is JobStatus.FINALIZING:
            summaries = list(self.jobs.summaries(request.id).values())
            self._counting[request.id] = self._pool_for(request, summaries).submit(
                self.parts.counts, request, summaries
            )

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
        reasons = [
            f"{source_shard(name)}: {summary.failure.detail}" for name, summary in summaries.items() if summary.failure
        ]
        if reasons and not any(summary.images for summary in summaries.values()):
            status, fields = JobStatus.FAILED, {"error": f"no shard could be read: {reasons[0]}"}
        else:
            status, fields = JobStatus.COMPLETED, final_counts(counts)
        # a job that was cancelled while it was counted ends on the next tick, as cancelled
        stands = self.jobs.set_status(job_id, status, finished_at=_now(), **fields)
        return stands is status and self.jobs.write_end(job_id, status, None)

    def _restart(self, plan: Plan) -> bool:
        """Rebuild the job's working copy and compare its plan with the store again. False: the job has not ended."""
        # the job keeps its indexes, except those whose parts are missing
        summaries = list(self.jobs.with_index(plan.request, self.jobs.summaries(plan.request.id).values()))
        if self.queue.job_states.run_again(plan.request, JobStatus.IN_PROGRESS) is JobStatus.IN_PROGRESS:
            self.jobs.activate(plan.request, summaries)
            plan.restart()
        return False

    # a job that was cancelled or has failed, or whose end was interrupted

    def end(self, request: JobRequest, status: JobStatus) -> bool:
        """End a job whose status is `cancelling` or final; True when its end is written, which takes several calls.

        Workers drop the chunks for which no other job waits. What they write from now on is not the job's any more:
        its results and its counts are the parts that exist when they are counted here.
        """
        job_id = request.id
        self._counting.pop(job_id, None)
        # the process that completed the job died before it wrote the end
        if status is JobStatus.COMPLETED:
            return self.jobs.write_end(job_id, status, None)
        if job_id not in self._ending:
            self.queue.broker.withdraw(job_id)
            summaries = self._own(request)
            self._ending[job_id] = self._pool_for(request, summaries).submit(self.parts.all_written, request, summaries)
        if not self._ending[job_id].done():
            return False
        return self._write_end(request, status, self._ending.pop(job_id).result())

    def end_at_once(self, request: JobRequest, status: JobStatus) -> None:
        """End a job as `end` does, all in the caller's thread."""
        if status is JobStatus.COMPLETED:
            self.jobs.write_end(request.id, status, None)
            return
        summaries = self._own(request)
        chunks = [chunk for one in summaries for group in GROUPS[1:] for chunk in request.chunks(one, group)]
        self.queue.broker.withdraw(request.id, chunks)
        self._write_end(request, status, self.parts.all_written(request, summaries))

    def _own(self, request: JobRequest) -> list[ShardSummary]:
        """The shards of a job that ends early. While a sample is not drawn, no image of them is one of the job."""
        return [] if request.draws else list(self.jobs.summaries(request.id).values())

    def _write_end(self, request: JobRequest, status: JobStatus, written: Written) -> bool:
        job_id = request.id
        if request.key:
            # what was queued for the job and is not its result does not count for its key
            results = {f"{name}/{part_name(number, 0)}" for name in written.numbers for number in written.numbers[name]}
            self.queue.windows.give_back_for(job_id, but=results)
        # a status that is final already only gets the counts
        final = JobStatus.CANCELLED if status is JobStatus.CANCELLING else status
        change = self.queue.job_states.set_fields if final is status else self.jobs.set_status
        stands = change(job_id, final, finished_at=_now(), **final_counts(written.counts))
        return stands is final and self.jobs.write_end(job_id, final, written.numbers)


def final_counts(counts: Counter[str]) -> dict[str, str]:
    """The fields of a job's hash for the counts of its images by status."""
    numbers = {"images": sum(counts.values()), **count_of(counts)}
    return {f"{FINAL_GROUP}:{name}": str(number) for name, number in numbers.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat()
