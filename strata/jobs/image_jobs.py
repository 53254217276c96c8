"""The scheduler's work on jobs of one image: threads end them, so that none waits for the storage calls of another.

Such a job has one chunk, which the API has queued. In the ordinary case nothing is to be done for it until it has its
result, and then its end is written. Only if nothing of it is queued, because the API died or Redis was emptied, its
parts are looked for in the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from strata.core import GROUPS, STOPPED, JobRequest, JobStatus
from strata.errors import QueueUnavailable
from strata.jobs.billing import Billing
from strata.jobs.finalizer import Finalizer
from strata.jobs.jobs import Jobs, UnknownJob
from strata.jobs.new_jobs import created_at
from strata.jobs.plans import Plan
from strata.jobs.waiting import WaitingJobs
from strata.queue import JobProgress

log = logging.getLogger(__name__)

THREADS = 32  # jobs that are ended at a time: two calls to the store each
FIRST_LOOK = 5.0  # seconds after its creation, when a job's chunk must be queued
LOOK_SECONDS = 30.0  # between two looks whether the chunk is still queued
PAUSE = 5.0  # seconds after an error


@dataclass
class _Image:
    """An unfinished job: when it is looked at, when it resumes after an error, a thread's work, what it waits for.

    Times are those of the monotonic clock.
    """

    due: float
    resumes: float = 0.0
    work: Future[None] | None = None
    plan: Plan | None = None


class ImageJobs:
    """Ends jobs of one image. `advance` makes one round trip to Redis for all of them, and no call to the store."""

    def __init__(self, jobs: Jobs, billing: Billing, finalizer: Finalizer, waiting: WaitingJobs) -> None:
        self.jobs, self.queue, self.states = jobs, jobs.queue, jobs.queue.job_states
        self.billing, self.finalizer, self.waiting = billing, finalizer, waiting
        self._images: dict[str, _Image] = {}
        self._outcomes: list[tuple[str, Exception | None]] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="image jobs")

    def close(self) -> None:
        """Stop; jobs that have not ended yet are ended by the next scheduler."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def reset(self) -> None:
        """Forget all jobs: another process schedules, or Redis was emptied."""
        self._images.clear()

    def advance(self, active: Collection[str]) -> set[str]:
        """Start what can be done now for the jobs of one image among the active jobs; returns the ids of these jobs.

        Raises QueueUnavailable.
        """
        progress = {job_id: one for job_id, one in self.states.progress(active).items() if one.kind == "image"}
        for job_id in self._images.keys() - progress.keys():
            del self._images[job_id]
            self._outcomes.append((job_id, None))
        now = time.monotonic()
        for job_id, one in progress.items():
            image = self._images.get(job_id)
            if image is None:
                # the id may be from a machine whose clock is ahead
                age = max(0.0, time.time() - created_at(job_id))
                image = self._images[job_id] = _Image(due=now + max(0.0, FIRST_LOOK - age))
            self._advance(job_id, image, one, now)
        return set(progress)

    def take_outcomes(self) -> list[tuple[str, Exception | None]]:
        """The jobs on which a thread has worked since the last call, each with the error, or None if there was none."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _advance(self, job_id: str, image: _Image, progress: JobProgress, now: float) -> None:
        if self.waiting.anything or image.plan is not None:
            image.plan = image.plan or Plan(self.jobs.request(job_id))
            self.waiting.tell(image.plan)
        # one thread works on a job at a time; after an error there is a pause
        if image.work is not None:
            if not image.work.done():
                return
            error, image.work = image.work.exception(), None
            if isinstance(error, QueueUnavailable):
                raise error
            if error is None or isinstance(error, Exception):
                self._outcomes.append((job_id, error))
            # the progress was read before the thread was done: go on with what the next round reads
            image.resumes = now + PAUSE if error else 0.0
            return
        if now < image.resumes:
            return
        if progress.status in STOPPED:
            image.work = self._pool.submit(self._end, job_id, progress.status)
        elif progress.images:
            image.work = self._pool.submit(self._complete, job_id)
        elif image.due <= now:
            image.due = now + LOOK_SECONDS
            image.work = self._pool.submit(self._look, job_id)

    # in threads

    def _complete(self, job_id: str) -> None:
        """Complete a job whose only chunk was counted: the worker has counted the part that it wrote."""
        if self.jobs.set_status(job_id, JobStatus.FINALIZING) is not JobStatus.FINALIZING:
            return  # it was cancelled in this moment
        if not self.billing.known(self.jobs.request(job_id)):
            return
        finished_at = datetime.now(UTC).isoformat()
        if self.jobs.set_status(job_id, JobStatus.COMPLETED, finished_at=finished_at) is JobStatus.COMPLETED:
            self.jobs.write_end(job_id, JobStatus.COMPLETED, None)

    def _end(self, job_id: str, status: JobStatus) -> None:
        """End a job that was cancelled or has failed, or whose end was interrupted."""
        self.finalizer.end_at_once(self.jobs.request(job_id), status)

    def _look(self, job_id: str) -> None:
        """Queue the job's chunk, or count its part, if nothing of it is queued."""
        try:
            request = self.jobs.request(job_id)
        except UnknownJob:
            log.warning("job %s is not planned: neither Redis nor the store has its request", job_id)
            self.states.deactivate(job_id)
            return
        if not self._is_queued(request):
            request, missing = self.jobs.parts.missing(request, request.indexed[0])
            self.queue.broker.enqueue_all(missing, job_id, request.priority)

    def _is_queued(self, request: JobRequest) -> bool:
        chunks = [chunk for group in GROUPS[1:] for chunk in request.chunks(request.indexed[0], group)]
        return any(self.queue.broker.is_queued(chunk, request.id) for chunk in chunks)
