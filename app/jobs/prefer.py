"""`Prefer: wait=N` (RFC 7240): parsing it, and waiting for a record without occupying a thread."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from strata.core import FINAL_GROUP, JobRequest, JobStatus, Record
from strata.jobs import Jobs, named
from strata.queue import JobProgress
from strata.store import BrokenPart

MAX_WAIT = 120.0  # seconds
NEWS_SECONDS = 0.5  # for which one question for news waits; between two looks whether the server is stopping
ASK_SECONDS = 2.0  # between two questions about all jobs that are waited for


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

    One thread waits for all of them, for the news of images that got a result. So a request that waits costs nothing.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._waiting: dict[str, _Waiter] = {}
        self._watch: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="waits")

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def record(
        self, request: JobRequest, seconds: float, is_stopping: Callable[[], bool] = lambda: False
    ) -> Record | None:
        """Wait for the record of a job of one image.

        None after `seconds`, if the job was cancelled or has failed, if its part is broken, or if the server is
        stopping. Raises QueueUnavailable and OSError.
        """
        waiter = self._waiting[request.id] = _Waiter(asyncio.get_running_loop().create_future(), is_stopping)
        try:
            # the news are read from here on: what happened before is found by asking once
            await self._begin()
            found = (await run_in_threadpool(self.jobs.queue.job_states.progress, [request.id])).get(request.id)
            # the result exists already if the same image was described before
            existed = found is not None and found.images > 0
            ended = found is not None and _has_ended(found)
            if not existed and (ended or not await waiter.wait(seconds)):
                return None
        finally:
            del self._waiting[request.id]
            waiter.done.cancel()
        return await run_in_threadpool(self._read, request, existed)

    def _read(self, request: JobRequest, existed: bool) -> Record | None:
        """The record of a job that has its result; None if its part is broken, which is computed again."""
        (chunk,) = request.chunks(request.indexed[0], FINAL_GROUP)
        store = self.jobs.store
        try:
            # a part that existed may be that of a newer attempt; one that was just written need not be looked for
            newest = store.newest(chunk) if existed else chunk
            return named(store.read_record(newest, 0), chunk) if newest else None
        except BrokenPart as error:
            self.jobs.repair(request.id, error)
            return None

    async def _begin(self) -> None:
        """Start to read the news, unless they are read already. Raises QueueUnavailable."""
        if self._begun is None or self._watch is None or self._watch.done():
            self._begun = asyncio.get_running_loop().create_future()
            self._watch = asyncio.create_task(self._read_news(self._begun))
        await asyncio.shield(self._begun)

    async def _read_news(self, begun: asyncio.Future[None]) -> None:
        """Tell the requests that wait how their jobs have ended, as long as there are any."""
        loop, events, states = asyncio.get_running_loop(), self.jobs.queue.job_events, self.jobs.queue.job_states
        try:
            newest = await loop.run_in_executor(self._thread, events.newest_settled)
            begun.set_result(None)
            asked = time.monotonic()
            while self._waiting:
                newest, settled = await loop.run_in_executor(self._thread, events.settled_after, newest, NEWS_SECONDS)
                # from time to time ask for all: news may have been lost with Redis, or were too many
                if time.monotonic() - asked >= ASK_SECONDS:
                    settled, asked = set(self._waiting), time.monotonic()
                ids = [job_id for job_id in settled if job_id in self._waiting]
                self._tell(await loop.run_in_executor(self._thread, states.progress, ids) if ids else {})
        except Exception as error:
            _fail(begun, error)
            for waiter in self._waiting.values():
                _fail(waiter.done, error)

    def _tell(self, found: Mapping[str, JobProgress]) -> None:
        """Let those requests go on whose jobs have ended; all of them if the server is stopping."""
        for job_id, waiter in self._waiting.items():
            progress = found.get(job_id)
            if not waiter.done.done() and (waiter.is_stopping() or (progress and _has_ended(progress))):
                waiter.done.set_result(progress is not None and progress.images > 0)


@dataclass
class _Waiter:
    """A request that waits. done: whether its image has a result, when that is known."""

    done: asyncio.Future[bool]
    is_stopping: Callable[[], bool]

    async def wait(self, seconds: float) -> bool:
        """Whether the image has a result within so many seconds."""
        await asyncio.wait([self.done], timeout=seconds)
        return self.done.done() and self.done.result()


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # it counts as seen, also if the request was given up


def _has_ended(progress: JobProgress) -> bool:
    """Whether the image has its result, or never gets one."""
    return progress.images > 0 or progress.status in (JobStatus.CANCELLED, JobStatus.FAILED)
