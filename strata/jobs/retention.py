"""Retention: uploads that were sent longer ago than a number of days are removed. Their records stay."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from strata.errors import QueueUnavailable
from strata.jobs.jobs import Jobs
from strata.queue import image_of
from strata.store import READERS, uploads_of

log = logging.getLogger(__name__)

DAY = 86_400.0
SWEEP_SECONDS = 3600.0  # between two sweeps


class Retention:
    """Removes old uploads in a thread. days: for how long uploads are kept; None: for ever."""

    def __init__(self, jobs: Jobs, days: float | None) -> None:
        self.jobs, self.queue, self.store, self.days = jobs, jobs.queue, jobs.store, days
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="retention")
        self._sweep: Future[int] | None = None
        self._swept = -SWEEP_SECONDS

    def close(self) -> None:
        """Stop; uploads that were not removed yet are removed later."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def sweep_if_due(self) -> None:
        """Start to remove what is too old, from time to time."""
        running = self._sweep is not None and not self._sweep.done()
        if self.days is not None and not running and time.monotonic() - self._swept >= SWEEP_SECONDS:
            self._swept = time.monotonic()
            self._sweep = self._pool.submit(self._sweep_once, self.days)

    def _sweep_once(self, days: float) -> int:
        try:
            removed = self.sweep(days)
        except (OSError, QueueUnavailable) as error:
            log.warning("old uploads could not be removed, the next sweep tries again: %s", error)
            return 0
        if removed:
            log.info("%d uploads older than %g days were removed", removed, days)
        return removed

    def sweep(self, days: float) -> int:
        """Remove the uploads that were last sent more than so many days ago; returns their number.

        An image is written whenever it is sent, so that its time is that of the newest job. Uploads of jobs that have
        not ended stay. Raises QueueUnavailable and OSError.
        """
        states, listed = self.queue.job_states, self.queue.job_list
        # while Redis lacks jobs, it is not known which uploads are still needed
        if not listed.is_complete():
            return 0
        moment = time.time() - days * DAY
        old = self.store.uploads_before(moment)
        active = states.active()
        needed = states.images(active) | self._of_batches(active)
        # asked last: a job that is created in this moment has announced its upload, and writes it again
        gone = (path for path in old if _image(path) not in needed and not listed.is_announced(_image(path)))
        # what was received tells nothing any more when its image is gone
        self._remove(self.store.written_before(moment, "received"))
        removed = self._remove(gone)
        self.queue.windows.give_back_uploads(map(_image, removed))
        return len(removed)

    def _of_batches(self, job_ids: Iterable[str]) -> set[str]:
        """The uploads of batches of images that were sent before, as `_image` names them."""
        requests = (self.queue.job_states.request(job_id) for job_id in job_ids)
        batches = [one for one in requests if one is not None and one.kind == "batch"]
        return {image_of(uri) for request in batches for uri in uploads_of(self.store, request)}

    def _remove(self, paths: Iterable[str]) -> list[str]:
        """Remove files; returns their paths."""

        def remove(path: str) -> str:
            self.store.remove(self.store.path(path))
            return path

        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(remove, paths))


def _image(path: str) -> str:
    """An upload as the list of jobs names it."""
    return path.rpartition("/")[2][:16]
