"""`Prefer: wait=N` (RFC 7240): parsing it, and waiting for a record without occupying a thread."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from starlette.concurrency import run_in_threadpool

from strata.core import FINAL_GROUP, JobRequest, JobStatus, Record
from strata.errors import QueueUnavailable
from strata.jobs import Jobs
from strata.queue import JobProgress
from strata.store import BrokenPart

MAX_WAIT = 120.0  # seconds
INTERVAL = 0.02  # seconds between two questions to Redis
STOP_CHECK = 0.5  # seconds


def wait_of(headers: Sequence[str]) -> float | None:
    """The seconds of a `wait` preference, at most MAX_WAIT; None if there is none.

    A preference that cannot be parsed is ignored, as RFC 7240 requires.
    """
    for preference in ",".join(headers).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            try:
                seconds = float(value.strip().strip('"'))
            except ValueError:
                return None
            return min(max(seconds, 0.0), MAX_WAIT) if math.isfinite(seconds) else None
    return None


class Waits:
    """The requests of one event loop that wait for the result of an image.

    Redis is asked for all of them together, in one round trip every INTERVAL.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._task: asyncio.Task[None] | None = None

    async def record(
        self, request: JobRequest, seconds: float, is_stopping: Callable[[], bool] = lambda: False
    ) -> Record | None:
        """Wait for the record of a job of one image.

        None after `seconds`, if the job was cancelled or has failed, if its part is broken, or if the server is
        stopping. Raises QueueUnavailable and OSError.
        """
        # the result exists already if the same image was described before
        found = (await run_in_threadpool(self.jobs.queue.job_states.progress, [request.id])).get(request.id)
        existed = found is not None and found.images > 0
        if not existed and not await self._is_done(request.id, seconds, is_stopping):
            return None
        return await run_in_threadpool(self._read, request, existed)

    def _read(self, request: JobRequest, existed: bool) -> Record | None:
        """The record of a job that has its result; None if its part is broken, which is computed again."""
        (chunk,) = request.chunks(request.indexed[0], FINAL_GROUP)
        store = self.jobs.store
        try:
            # a part that existed may be that of a newer attempt; one that was just written need not be looked for
            newest = store.newest(chunk) if existed else chunk
            return store.read_record(newest, 0) if newest else None
        except BrokenPart as error:
            self.jobs.repair(request.id, error)
            return None

    async def _is_done(self, job_id: str, seconds: float, is_stopping: Callable[[], bool]) -> bool:
        done = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        deadline = time.monotonic() + seconds
        try:
            # wake up from time to time, because the server may be stopping
            while not done.done() and not is_stopping() and time.monotonic() < deadline:
                await asyncio.wait([done], timeout=min(STOP_CHECK, max(0.0, deadline - time.monotonic())))
            return done.done() and done.result()
        finally:
            del self._waiting[job_id]
            done.cancel()

    async def _watch(self) -> None:
        """Tell the requests that wait how their jobs are, as long as there are any."""
        states = self.jobs.queue.job_states
        while self._waiting:
            try:
                found = await run_in_threadpool(states.progress, list(self._waiting))
            except QueueUnavailable as error:
                for future in self._waiting.values():
                    if not future.done():
                        future.set_exception(error)
                return
            for job_id, progress in found.items():
                waiting = self._waiting.get(job_id)
                if _has_ended(progress) and waiting is not None and not waiting.done():
                    waiting.set_result(progress.images > 0)
            await asyncio.sleep(INTERVAL)


def _has_ended(progress: JobProgress) -> bool:
    """Whether the image has its result, or never gets one."""
    return progress.images > 0 or progress.status in (JobStatus.CANCELLED, JobStatus.FAILED)
