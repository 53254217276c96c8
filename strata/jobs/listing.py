"""The list of jobs with filters, page by page: read from Redis, or from the store while Redis has lost the list."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

from strata.core import JobEnd, JobRequest, JobStatus, JobView, is_job_id
from strata.errors import DamagedFile, QueueUnavailable
from strata.jobs.jobs import Jobs, UnknownJob
from strata.jobs.results import BadCursor
from strata.queue import JobFilter, ListedJob, entry_of
from strata.store import READERS

log = logging.getLogger(__name__)

STORE_SCANNED = 200  # jobs that are read from the store for one page, while Redis has no complete list
BATCH = 1000  # jobs that are read from the store and added to the list at a time


def id_of(time: datetime) -> str:
    """The beginning of the ids of jobs that are created at a time; ids sort by it. A time without a zone is in UTC."""
    moment = time if time.tzinfo else time.replace(tzinfo=UTC)
    return f"{max(0, int(moment.timestamp() * 1000)):012x}"


class Listing:
    """Lists jobs. Its methods raise QueueUnavailable and OSError."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.store, self.list = jobs, jobs.store, jobs.queue.job_list
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="listing")
        self._rebuilding: Future[None] | None = None
        self._marked: set[str] = set()  # the jobs that were marked as unfinished when the rebuilding began

    def close(self) -> None:
        """Stop; a list that is not complete yet is rebuilt by the next scheduler."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def page(self, chosen: JobFilter, limit: int, cursor: str | None = None) -> tuple[list[JobView], str | None]:
        """At most limit jobs, the newest first, and the cursor of the next page, None on the last one.

        A page can have fewer jobs, or none, and yet a cursor: so many jobs are looked at that it takes a bounded time.
        Raises BadCursor.
        """
        # a cursor is the id of the last job of the page before
        if cursor is not None and not is_job_id(cursor):
            raise BadCursor
        complete = self.list.is_complete()
        if not complete:
            return self._page_of_store(chosen, limit, cursor)
        ids, following = self.list.page(chosen, limit, cursor)
        views = self._views(ids)
        # the files of such a job were removed without this service
        for job_id in (job_id for job_id, view in zip(ids, views, strict=True) if view is None):
            self.list.remove(job_id)
        # a status may have changed since the list was read
        return [view for view in views if view and chosen.status in (None, view.status)], following

    def _page_of_store(self, chosen: JobFilter, limit: int, cursor: str | None) -> tuple[list[JobView], str | None]:
        tops = [bound for bound in (cursor, chosen.before) if bound is not None]
        ids = [
            job_id
            for job_id in reversed(self.store.job_ids())
            if (not tops or job_id < min(tops)) and (chosen.after is None or job_id >= chosen.after)
        ]
        # look at more jobs than the page has if some of them may not pass
        narrow = chosen.status or chosen.kind or chosen.profile or chosen.tenant
        looked = ids[: STORE_SCANNED if narrow else limit]
        passing = [view for view in self._views(looked) if view and _passes(chosen, view)]
        if len(passing) > limit:
            return passing[:limit], passing[limit - 1].id
        return passing, looked[-1] if len(looked) < len(ids) else None

    def _views(self, ids: Sequence[str]) -> list[JobView | None]:
        """The envelopes of jobs, in order; None for a job that does not exist."""
        found = self.jobs.views(ids)
        # the envelopes of jobs that have ended are read from the store: in a bucket several at a time
        if self.store.local:
            return list(map(self._view, ids, found))
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self._view, ids, found))

    def _view(self, job_id: str, view: JobView | None) -> JobView | None:
        try:
            return view or self.jobs.stored_view(job_id)
        except UnknownJob:
            return None

    # rebuilding

    def rebuild_if_lost(self) -> None:
        """Start to rebuild the list from the store, in a thread, if Redis does not have all of it."""
        if self._rebuilding is not None and not self._rebuilding.done():
            return
        if not self.list.is_complete():
            self._rebuilding = self._pool.submit(self._rebuild)

    def _rebuild(self) -> None:
        token, ids = secrets.token_hex(8), self.store.job_ids()
        self._marked = set(self.store.open_jobs())
        try:
            self.list.begin(token)
            with ThreadPoolExecutor(READERS) as pool:
                for batch in _batches(ids):
                    self.list.add_missing(job for job in pool.map(self._listed, batch) if job is not None)
            if self.list.finish(token):
                log.info("the list of jobs was rebuilt from the store: %d jobs", len(ids))
        except (QueueUnavailable, OSError) as error:
            # the next review begins again
            log.warning("the list of jobs could not be rebuilt from the store: %s", error)

    def _listed(self, job_id: str) -> ListedJob | None:
        """A job as its files have it; None if it has no request: another process may be creating it."""
        try:
            request = self.store.parse_job_file(job_id, "request", JobRequest)
            end = self.store.parse_job_file(job_id, "end", JobEnd)
        except DamagedFile as error:
            # it is listed as its envelope shows it
            log.warning("%s", error)
            return ListedJob(job_id, "batch", JobStatus.FAILED, ":")
        if request is None:
            return None
        if end is None and job_id not in self._marked:
            # a copy of the store that was made while the job ended, or began, may lack the mark
            log.info("job %s has no end and is not marked as unfinished: it goes on", job_id)
            self.store.open_job(job_id)
        # a job without an end is listed anew when it is activated
        status = JobStatus.VALIDATING if end is None else end.status
        return ListedJob(job_id, request.kind, status, entry_of(request).partition(":")[2])


def _batches(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]


def _passes(chosen: JobFilter, view: JobView) -> bool:
    pairs = [(chosen.status, view.status), (chosen.kind, view.kind), (chosen.profile, view.profile)]
    pairs.append((chosen.tenant, view.tenant))
    return all(wanted in (None, actual) for wanted, actual in pairs)
