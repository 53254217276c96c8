"""`Prefer: wait=N` (RFC 7240), and the waiting itself, which holds no thread."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool

from strata.core.profiles import FINAL_GROUP
from strata.core.records import Record
from strata.core.requests import JobRequest
from strata.core.schemas import JobStatus
from strata.jobs.jobs import Jobs
from strata.queue import keys

LONGEST = 120.0  # seconds
_FIRST_PAUSE, _LAST_PAUSE = 0.02, 0.05  # seconds


def wait_of(headers: Sequence[str]) -> float | None:
    """The seconds of a `wait` preference, capped; None if there is none or it cannot be read (RFC: then ignore it)."""
    for preference in ",".join(headers).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            try:
                seconds = float(value.strip().strip('"'))
            except ValueError:
                return None
            return min(max(seconds, 0.0), LONGEST) if math.isfinite(seconds) else None
    return None


async def record_of(jobs: Jobs, request: JobRequest, seconds: float) -> Record | None:
    """The record of a job of one image once it is there, or None after so many seconds or when the job has ended."""
    (chunk,) = request.chunks(request.indexed[0], FINAL_GROUP)
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    done = await run_in_threadpool(jobs.store.has_part, chunk)  # computed before, whoever asked for it
    while not done:
        if time.monotonic() + pause > deadline:
            return None
        await asyncio.sleep(pause)
        pause = min(pause * 1.1, _LAST_PAUSE)
        done, status = await run_in_threadpool(_ask, jobs, request.id, chunk.field)
        if not done and status in (JobStatus.CANCELLED, JobStatus.FAILED):
            return None
    records = await run_in_threadpool(jobs.store.read_records, chunk)
    return records[0]


def _ask(jobs: Jobs, job_id: str, field: str) -> tuple[bool, JobStatus | None]:
    """Whether the last group has done the chunk, and the job's status. Asks Redis: a bucket is slow and costs money."""
    done = bool(jobs.broker.redis.hexists(keys.done(job_id, FINAL_GROUP), field))
    return done, None if done else jobs.status(job_id)
