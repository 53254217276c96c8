"""`/v1/jobs/{id}/events`: a job's progress as server-sent events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import redis
from fastapi import APIRouter, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from app.dependencies import KnownJob, ServicesDep
from app.problems import PROBLEM_RESPONSES
from strata.core.schemas import JobView
from strata.jobs.jobs import Jobs, UnknownJob
from strata.queue import keys

router = APIRouter(prefix="/jobs", responses=PROBLEM_RESPONSES)

PAUSE = 0.25  # seconds between two looks; what came meanwhile is told in one event
_ID = re.compile(r"\d{1,18}-\d{1,18}")
_PROGRESS = {"id", "status", "request_counts", "shards", "groups", "images_per_second", "eta_seconds"}


@router.get("/{job_id}/events", response_class=EventSourceResponse)
async def watch_job(
    job: KnownJob, given: ServicesDep, last_event_id: Annotated[str | None, Header()] = None
) -> AsyncIterator[ServerSentEvent]:
    """First `job` with the whole job, then `progress` with its counts and `status` with the whole job, to its end.

    `Last-Event-ID` goes on after an event. Events are told, not owed: several changes may come as one.
    """
    resumed = last_event_id if last_event_id and _ID.fullmatch(last_event_id) else None
    try:
        seen = resumed if resumed else await run_in_threadpool(_newest, given.jobs, job.id)
        view = await run_in_threadpool(given.jobs.view, job.id)
        yield _event("job", view, seen)
        while not view.status.final:
            await asyncio.sleep(PAUSE)
            entries = await run_in_threadpool(_after, given.jobs, job.id, seen)
            if entries:
                seen = entries[-1][0]
                view = await run_in_threadpool(given.jobs.view, job.id)
                changed = any(fields.get("event") == "status" for _, fields in entries)
                yield _event("status" if changed or view.status.final else "progress", view, seen)
    except (redis.RedisError, UnknownJob):
        return  # the answer has begun; the listener comes back with its Last-Event-ID and is told then


def _event(name: str, view: JobView, seen: str) -> ServerSentEvent:
    text = view.model_dump_json(include=_PROGRESS if name == "progress" else None)
    return ServerSentEvent(raw_data=text, event=name, id=seen)


def _newest(jobs: Jobs, job_id: str) -> str:
    entries: Any = jobs.broker.redis.xrevrange(keys.events(job_id), count=1)
    return str(entries[0][0]) if entries else "0-0"


def _after(jobs: Jobs, job_id: str, seen: str) -> list[tuple[str, dict[str, str]]]:
    answer: Any = jobs.broker.redis.xread({keys.events(job_id): seen}, count=1000)
    return list(answer[0][1]) if answer else []
