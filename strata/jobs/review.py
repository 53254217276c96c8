"""The review: what Redis has lost is found in the store and restored, and what nobody needs is removed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from strata.errors import DamagedFile, StrataError
from strata.jobs.jobs import Jobs, UnknownJob
from strata.jobs.listing import Listing
from strata.jobs.pairing import pair
from strata.jobs.retention import Retention
from strata.store import READERS, reason_of, sweep_progress

log = logging.getLogger(__name__)

SWEEP_SECONDS = 3600.0  # a temporary file that is older belongs to no running process
RESTORED_JOBS = 50  # jobs that are restored from the store in one call


class Review:
    """The scheduler calls `begin` from time to time, and `restore_next` in each tick. upload_days: see `Retention`.

    Both raise QueueUnavailable, and OSError if the store cannot be reached.
    """

    def __init__(self, jobs: Jobs, upload_days: float | None) -> None:
        self.jobs, self.queue, self.store = jobs, jobs.queue, jobs.store
        self.listing = Listing(jobs)
        self.retention = Retention(jobs, upload_days)
        self._open: deque[str] = deque()  # jobs that are open in the store, and that were not looked at yet
        self._told: dict[str, str] = {}  # what the log has told, by what cannot be done

    def close(self) -> None:
        """Stop the threads."""
        self.listing.close()
        self.retention.close()

    def reset(self) -> None:
        """Restore nothing more until the next `begin`: another process schedules, or Redis was emptied."""
        self._open.clear()

    def begin(self) -> None:
        """Find the jobs that are open in the store, and remove what processes have left behind.

        Raises OtherStore if Redis has the jobs of another store.
        """
        # Redis may have forgotten the store since the start, or the store was away then
        if self.store.has_mark:
            pair(self.queue, self.store)
        self._open = deque(self.store.open_jobs())
        self.listing.rebuild_if_lost()
        self.retention.sweep_if_due()
        self.queue.broker.restore_turns()
        # remove the temporary files of processes that were killed, and rows that were kept for nobody
        self._tidy("temporary files", lambda: self.store.sweep(SWEEP_SECONDS))
        self._tidy("rows of chunks", lambda: sweep_progress(self.store))

    def restore_next(self, active: Set[str]) -> None:
        """Restore the next of the open jobs that are not active: a bounded number, as each takes some reads."""
        lost: list[str] = []
        while self._open and len(lost) < RESTORED_JOBS:
            job_id = self._open.popleft()
            if job_id not in active:
                lost.append(job_id)
        if lost:
            with ThreadPoolExecutor(READERS) as pool:
                list(pool.map(self._restore_if_readable, lost))

    def _restore_if_readable(self, job_id: str) -> None:
        try:
            self._restore(job_id)
        except (OSError, ValueError, DamagedFile) as error:  # the next review tries again
            self._warn(f"job {job_id} cannot be restored", error)
        else:
            self._told.pop(f"job {job_id} cannot be restored", None)

    def _restore(self, job_id: str) -> None:
        # Redis was emptied before the mark of a job with an end was removed; else the job is being retried
        status = self.jobs.status(job_id)
        if (status is None or status.final) and self.store.read_job_file(job_id, "end") is not None:
            self.jobs.tell_end(self.jobs.request(job_id))
            self.store.close_job(job_id)
            return
        # a job is marked as open a moment before its request is written
        with suppress(UnknownJob):
            self.jobs.restore(job_id)

    def _tidy(self, what: str, act: Callable[[], object]) -> None:
        """Remove what nobody needs. No job waits for it, so that an error stops nothing."""
        try:
            act()
        except OSError as error:
            self._warn(f"old {what} cannot be removed", error)

    def _warn(self, what: str, error: Exception) -> None:
        """Tell of an error in the log, once as long as it is the same."""
        reason = str(error) if isinstance(error, StrataError) else reason_of(error)
        if self._told.get(what) != reason:
            self._told[what] = reason
            log.warning("%s: %s", what, reason)
