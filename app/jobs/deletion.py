"""Deleting jobs for good: which other jobs may use the same files is asked of the list of jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from app.problems import ProblemError
from strata.core import FINAL_GROUP, JobRequest
from strata.errors import DamagedFile, QueueUnavailable
from strata.jobs import Jobs, UnknownJob
from strata.queue import JobFilter, image_of
from strata.search import SearchIndex
from strata.snapshots import Deletion
from strata.store import uploads_of

PAGE = 1000


class JobDeletion:
    """Deletes jobs that have ended. Its methods raise QueueUnavailable, OSError and ProblemError."""

    def __init__(self, jobs: Jobs, index: SearchIndex) -> None:
        self.index = index
        self.jobs, self.states, self.list = jobs, jobs.queue.job_states, jobs.queue.job_list
        self._deletion = Deletion(jobs.store)

    def delete(self, job_id: str) -> None:
        """Delete a job, and what it alone uses. While Redis rebuilds the list of jobs, this is refused.

        Raises UnknownJob.
        """
        if not self.list.is_complete():
            detail = "the list of jobs is being rebuilt, so that it is not known what other jobs use; try again later"
            raise ProblemError("not-ready", detail, headers={"Retry-After": "10"})
        try:
            request = self.jobs.request(job_id)
        except DamagedFile:
            # which parts it used is not known: `strata clean` finds those that nothing uses
            self._deletion.delete(job_id, [])
            self.index.forget([])
        else:
            others = [other for other in self._others(request) if other != job_id]
            shards = self.jobs.summaries(job_id).values()
            uploads = self._own_uploads(request, others)
            self._deletion.delete(job_id, others, uploads)
            self.jobs.queue.windows.give_back_uploads(map(image_of, uploads))
            # what the search keeps of its rows goes with them
            chunks = (request.chunks(shard, FINAL_GROUP, [0]) for shard in shards if shard.images)
            self.index.forget([chunk for first in chunks for chunk in first])
        # the working copy last: without the files it is not shown
        for forget in (self.states.delete, self.list.remove):
            with suppress(QueueUnavailable):
                forget(job_id)

    def _own_uploads(self, request: JobRequest, others: Sequence[str]) -> list[str]:
        """The URIs of a job's uploads that no other job uses. others: as `_others` gives them."""
        own = uploads_of(self.jobs.store, request)
        if not own:
            return []
        # other batches of images that were sent before
        batches = others if request.kind == "batch" else list(self._listed(JobFilter(kind="batch")))
        used: set[str] = set()
        for other in batches:
            with suppress(UnknownJob, DamagedFile):
                found = self.jobs.request(other)
                used |= uploads_of(self.jobs.store, found) if found.kind == "batch" else set()
        return [uri for uri in own - used if not self._is_of_an_image_job(uri, request)]

    def _is_of_an_image_job(self, uri: str, request: JobRequest) -> bool:
        """Whether another job of one image has this upload, or may have it in a moment."""
        listed = self._listed(JobFilter(kind="image", image=image_of(uri)))
        return any(job_id != request.id for job_id in listed) or self.list.is_announced(image_of(uri))

    def _others(self, request: JobRequest) -> Iterator[str]:
        """The jobs that may use the same parts: those of the same image, or all other jobs of shards."""
        image = request.kind == "image"
        return self._listed(JobFilter(kind=request.kind, image=image_of(request.shards[0]) if image else None))

    def _listed(self, chosen: JobFilter) -> Iterator[str]:
        cursor = None
        while True:
            ids, cursor = self.list.page(chosen, PAGE, cursor)
            yield from ids
            if cursor is None:
                return
