"""`/v1/jobs/{id}/events`: a job's progress as server-sent events, and the layers of a single image so far."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from app.dependencies import AccessDep, Caller, KnownJob, ServicesDep
from app.http.document import PROGRESS, events_of
from app.http.prefix import PrefixDep, linked
from app.http.scopes import ScopedRoute
from app.http.security import still_holds
from app.problems import PROBLEM_RESPONSES
from strata.core import GROUPS, JobRequest, JobView
from strata.errors import QueueUnavailable
from strata.jobs import UnknownJob
from strata.queue import Queue

router = APIRouter(route_class=ScopedRoute, prefix="/jobs", responses=PROBLEM_RESPONSES)

POLL_SECONDS = 0.25  # all changes within this time are sent as one event
LastEventId = Annotated[str | None, Header()]
_ID = re.compile(r"\d{1,18}-\d{1,18}")
_EVENTS = events_of(job="JobView", progress="JobProgress", status="JobView", layer="LayersSoFar")


async def _place(given: ServicesDep, caller: Caller) -> AsyncIterator[None]:
    """A place among the streams, until the response has ended."""
    with given.streams.place(caller):
        yield


@router.get("/{job_id}/events", response_class=EventSourceResponse, dependencies=[Depends(_place)], responses=_EVENTS)
async def watch_job(
    job: KnownJob, given: ServicesDep, access: AccessDep, prefix: PrefixDep, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """First `job` with the whole job, then `progress` with its counts and `status` with the whole job, to its end.

    The stream ends earlier when its key is revoked or expires.

    For a job of one image also `layer`: `image` with its key and size, and the layers that have changed, as in a
    record. They come while stages run, so they are not final: the record is, at the end.

    `Last-Event-ID` continues after an event. Events are best effort: several changes may come as one.
    """
    resumed = last_event_id if last_event_id and _ID.fullmatch(last_event_id) else None
    events = given.queue.job_events
    try:
        # read the newest event's id before the job, so that no change between the two is missed
        seen = resumed if resumed else await run_in_threadpool(events.newest, job.id)
        view = (await given.views.find(job.id)).view
        yield _event("job", linked(view, prefix), seen)
        request = await run_in_threadpool(given.jobs.request, job.id) if job.kind == "image" else None
        layers = _LayersSeen(given.queue, request) if request and not view.status.final else None
        while not view.status.final and not given.stopping.is_set():
            # poll: one blocking read per client would need one connection to Redis per client
            await asyncio.sleep(POLL_SECONDS)
            if not await still_holds(given.keys, access):
                return  # whoever connects again is told why
            if layers and (text := await run_in_threadpool(layers.news)):
                yield ServerSentEvent(raw_data=text, event="layer")
            entries = await run_in_threadpool(events.after, job.id, seen)
            if entries:
                seen = entries[-1][0]
                view = (await given.views.find(job.id)).view
                changed = any(fields.get("event") == "status" for _, fields in entries)
                name = "status" if changed or view.status.final else "progress"
                yield _event(name, linked(view, prefix), seen)
    except (QueueUnavailable, UnknownJob, OSError):
        # the response has begun, so no error can be sent: the client reconnects with Last-Event-ID and gets one then
        return


class _LayersSeen:
    """What one watcher has seen of the layers of a job of one image."""

    def __init__(self, queue: Queue, request: JobRequest) -> None:
        self.layers = queue.image_layers
        self.chunks = [chunk.id for group in GROUPS[1:] for chunk in request.chunks(request.indexed[0], group)]
        self.versions = [""] * len(self.chunks)
        self.seen: dict[str, str] = {}

    def news(self) -> str | None:
        """The data of an event: the layers that have changed; None if none has. Raises QueueUnavailable."""
        versions = self.layers.versions(self.chunks)
        changed: dict[str, str] = {}
        for chunk, before, now in zip(self.chunks, self.versions, versions, strict=True):
            if now and now != before:
                found = self.layers.of(chunk).items()
                changed |= {name: text for name, text in found if self.seen.get(name) != text}
        self.versions = versions
        self.seen |= changed
        if not changed:
            return None
        image = changed.pop("image", self.seen["image"])
        return json.dumps({"image": json.loads(image), "layers": {name: json.loads(changed[name]) for name in changed}})


def _event(name: str, view: JobView, event_id: str) -> ServerSentEvent:
    text = view.model_dump_json(include=set(PROGRESS) if name == "progress" else None)
    return ServerSentEvent(raw_data=text, event=name, id=event_id)
