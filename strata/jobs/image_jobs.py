"""The scheduler's work on jobs of one image: threads end them, so that none waits for the storage calls of another.

Such a job has one chunk, which the API has queued. In the ordinary case nothing is to be done for it until it has its
result, and then its end is written. Only if nothing of it is queued, because the API died or Redis was emptied, its
parts are looked for in the store.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Collection, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from strata.core import GROUPS, STOPPED, JobRequest, JobStatus, created_at
from strata.errors import QueueUnavailable
from strata.jobs.billing import Billing
from strata.jobs.finalizer import Finalizer
from strata.jobs.jobs import Jobs, UnknownJob
from strata.jobs.plans import Plan
from strata.jobs.waiting import WaitingJobs
from strata.queue import JobProgress

log = logging.getLogger(__name__)

THREADS = 32  # jobs that are ended at a time: two calls to the store each
FIRST_LOOK = 5.0  # seconds after its creation, when a job's chunk must be queued
LOOK_SECONDS, LONGEST_LOOK = 30.0, 120.0  # between two looks whether the chunk is still queued; doubled each time
PAUSE = 5.0  # seconds after an error


@dataclass
class _Image:
    """An unfinished job: when it is looked at, when it resumes after an error, a thread's work, what it waits for.

    Times are those of the monotonic clock.
    """

    due: float
    pause: float = LOOK_SECONDS
    resumes: float = 0.0
    work: Future[None] | None = None
    plan: Plan | None = None


class ImageJobs:
    """Ends jobs of one image. `advance` looks at those that have changed or are due, in one round trip for all of them.

    It makes no call to the store.
    """

    def __init__(self, jobs: Jobs, billing: Billing, finalizer: Finalizer, waiting: WaitingJobs) -> None:
        self.jobs, self.queue, self.states = jobs, jobs.queue, jobs.queue.job_states
        self.billing, self.finalizer, self.waiting = billing, finalizer, waiting
        self._images: dict[str, _Image] = {}
        self._due: list[tuple[float, str]] = []  # a heap of the times at which jobs are looked at
        self._outcomes: list[tuple[str, Exception | None]] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="image jobs")

    def close(self) -> None:
        """Stop; jobs that have not ended yet are ended by the next scheduler."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def reset(self) -> None:
        """Forget all jobs: another process schedules, or Redis was emptied."""
        self._images.clear()
        self._due.clear()

    def advance(self, active: Set[str], changed: Collection[str], all_of_them: bool = False) -> None:
        """Start what can be done now for jobs of one image.

        active: all unfinished jobs; changed: those that may have changed; all_of_them: look at the others too. Raises
        QueueUnavailable.
        """
        now = time.monotonic()
        looked = {*changed, *self._take_due(now)} | (self._images.keys() if all_of_them else set())
        found = self.states.progress(looked & active)
        progress = {job_id: one for job_id, one in found.items() if one.kind == "image"}
        for job_id in looked & self._images.keys() - progress.keys():
            del self._images[job_id]
            self._outcomes.append((job_id, None))
        for job_id, one in progress.items():
            image = self._images.get(job_id)
            if image is None:
                # the id may be from a machine whose clock is ahead
                age = max(0.0, time.time() - created_at(job_id))
                image = self._images[job_id] = _Image(due=now + max(0.0, FIRST_LOOK - age))
                self._look_at(job_id, image.due)
            # an error of one job must not stop the others
            try:
                self._advance(job_id, image, one, now)
            except QueueUnavailable:
                raise
            except Exception as error:
                self._outcomes.append((job_id, error))
                image.resumes = now + PAUSE

    def _take_due(self, now: float) -> set[str]:
        """The jobs that are due; each is looked at again as `_look_at` was told."""
        found: set[str] = set()
        while self._due and self._due[0][0] <= now:
            found.add(heapq.heappop(self._due)[1])
        return found

    def _look_at(self, job_id: str, due: float) -> None:
        """Look at a job at a time, though it may not have changed."""
        heapq.heappush(self._due, (due, job_id))

    @property
    def known(self) -> Set[str]:
        """The ids of the unfinished jobs of one image."""
        return self._images.keys()

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
                self._look_at(job_id, now)  # in the next round
                return
            error, image.work = image.work.exception(), None
            if isinstance(error, QueueUnavailable):
                raise error
            if error is None or isinstance(error, Exception):
                self._outcomes.append((job_id, error))
            # the progress was read before the thread was done: go on with what the next round reads
            image.resumes = now + PAUSE if error else 0.0
            self._look_at(job_id, max(now, image.resumes))
            return
        if now < image.resumes:
            return
        if progress.status in STOPPED:
            self._start(job_id, image, self._end, progress.status)
        elif progress.images:
            self._start(job_id, image, self._complete)
        elif image.due <= now:
            # a chunk that is not queued is queued then; that it is lost later is found by whoever notices the loss
            image.due, image.pause = now + image.pause, min(2 * image.pause, LONGEST_LOOK)
            self._look_at(job_id, image.due)
            self._start(job_id, image, self._look)

    def _start(self, job_id: str, image: _Image, act: Callable[..., None], *args: JobStatus) -> None:
        image.work = self._pool.submit(act, job_id, *args)
        self._look_at(job_id, 0.0)

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
