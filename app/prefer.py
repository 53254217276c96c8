"""`Prefer: wait=N` (RFC 7240): parsing it, and waiting for a record without occupying a thread."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from starlette.concurrency import run_in_threadpool

from strata.core import FINAL_GROUP, Chunk, JobRequest, JobStatus, Record
from strata.jobs import Jobs
from strata.store import BrokenPart

MAX_WAIT = 120.0  # seconds
_FIRST_INTERVAL, _LAST_INTERVAL = 0.02, 0.05  # seconds between two polls


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


async def record_of(
    jobs: Jobs, request: JobRequest, seconds: float, is_stopping: Callable[[], bool] = lambda: False
) -> Record | None:
    """Wait for the record of a job of one image.

    None after `seconds`, if the job was cancelled or has failed, or if the server is stopping.
    """
    (chunk,) = request.chunks(request.indexed[0], FINAL_GROUP)
    deadline = time.monotonic() + seconds
    interval = _FIRST_INTERVAL
    # the part exists already if another job has computed the same image with the same profile; but a failure that may
    # pass is computed again for this job
    record = await run_in_threadpool(_record, jobs, request, chunk)
    if record is not None and not (record.failure and record.failure.transient):
        return record
    done = False
    # poll Redis until the chunk is recorded as done, with slowly growing intervals
    while not done:
        if is_stopping() or time.monotonic() + interval > deadline:
            return None
        await asyncio.sleep(interval)
        interval = min(interval * 1.1, _LAST_INTERVAL)
        done, status = await run_in_threadpool(_poll, jobs, request.id, chunk.field)
        # such a job never gets its record
        if not done and status in (JobStatus.CANCELLED, JobStatus.FAILED):
            return None
    return await run_in_threadpool(_record, jobs, request, chunk)


def _record(jobs: Jobs, request: JobRequest, chunk: Chunk) -> Record | None:
    """The record of the newest attempt; None if its part is broken, which is computed again."""
    try:
        newest = jobs.store.newest(chunk)
        return jobs.store.read_record(newest, 0) if newest else None
    except BrokenPart as error:
        jobs.repair(request.id, error)
        return None


def _poll(jobs: Jobs, job_id: str, field: str) -> tuple[bool, JobStatus | None]:
    """Whether the final group has finished the chunk, and the job's status if not.

    It reads Redis instead of the store, because requests to a bucket are slow and cost money.
    """
    done = bool(jobs.queue.job_states.recorded(job_id, FINAL_GROUP, [field]))
    return done, None if done else jobs.status(job_id)
