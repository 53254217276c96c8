"""Draws: the samples of the service's jobs, each drawn in a thread when the job's shards are indexed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from strata.core import JobRequest, JobStatus
from strata.jobs.jobs import Jobs
from strata.jobs.sampling.population import Drawn, draw


class Draws:
    """Draws samples. A thread does, because hundreds of shards are looked at, and the scheduler must not wait."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._drawing: dict[str, Future[Drawn]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="draws")

    def close(self) -> None:
        """Stop; a job whose sample is not drawn yet goes on later."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def reset(self) -> None:
        """Forget what is being drawn: another process schedules, or Redis was emptied."""
        self._drawing.clear()

    def forget(self, job_id: str) -> None:
        """Forget what is being drawn for a job that has ended."""
        if (drawing := self._drawing.pop(job_id, None)) is not None:
            drawing.cancel()

    def advance(self, request: JobRequest) -> JobRequest | None:
        """The request of a job, whose shards are indexed, as soon as it is one of the drawn images; None until then.

        Raises QueueUnavailable, and OSError of the drawing; the next call draws again.
        """
        drawing = self._drawing.get(request.id)
        if drawing is None:
            summaries = self.jobs.summaries(request.id)
            ordered = [summaries[shard] for shard in request.shards]
            self._drawing[request.id] = self._pool.submit(draw, self.jobs.store, request, ordered)
            return None
        if not drawing.done():
            return None
        found = self._drawing.pop(request.id).result()
        # not in the thread: meanwhile the job may have been cancelled, and deleted
        found.write(self.jobs.store)
        drawn = found.request
        # from here on the job counts the drawn images only, unless it was cancelled in this moment
        stands = self.jobs.queue.job_states.run_again(drawn, JobStatus.IN_PROGRESS)
        if stands is not JobStatus.IN_PROGRESS:
            return None
        self.jobs.activate(drawn, drawn.indexed)
        return drawn
