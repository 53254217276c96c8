"""Calls on jobs: they are listed, watched until their end, cancelled, deleted and retried; their records."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import httpx
from httpx_sse import ServerSentEvent

from strata.client.responses import ApiError
from strata.client.steps import Item, Items, Sleep, Steps, call, last_of, stream
from strata.client.transport import Transport, quoted
from strata.core import (
    FailureRow,
    JobKind,
    JobPage,
    JobStatus,
    JobView,
    Problem,
    Record,
)

LONGEST_PAUSE = 30.0  # seconds, between two looks at a job whose service is away
MAX_LOST = 5  # lost connections in a row while a job is watched


class JobCalls(Transport):
    """The calls on jobs that were submitted."""

    @call
    def job(self, job_id: str) -> Steps[JobView]:
        """Fetch a job."""
        return (yield from self._job(job_id))

    def _job(self, job_id: str) -> Steps[JobView]:
        return (yield from self._fetch(JobView, "GET", f"/v1/jobs/{quoted(job_id)}"))

    @call
    def jobs(
        self,
        limit: int | None = None,
        cursor: str | None = None,
        *,
        status: JobStatus | None = None,
        kind: JobKind | None = None,
        profile: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Steps[JobPage]:
        """Fetch a page of jobs, newest first. A page with a `next` may have fewer jobs than limit, or none."""
        params: dict[str, Any] = {"limit": limit, "cursor": cursor, "status": status, "kind": kind, "profile": profile}
        times = {"created_after": created_after, "created_before": created_before}
        params |= {name: time.isoformat() for name, time in times.items() if time is not None}
        given = {name: value for name, value in params.items() if value is not None}
        return (yield from self._fetch(JobPage, "GET", "/v1/jobs", params=given))

    @call
    def cancel(self, job_id: str) -> Steps[JobView]:
        """Cancel a job. Chunks that are being computed are still finished."""
        return (yield from self._fetch(JobView, "POST", f"/v1/jobs/{quoted(job_id)}/cancel"))

    @call
    def delete(self, job_id: str) -> Steps[None]:
        """Delete a job that has ended, for good: its rows, its image and its files."""
        yield from self._send("DELETE", f"/v1/jobs/{quoted(job_id)}")

    @call
    def retry(self, job_id: str) -> Steps[JobView]:
        """Retry the failed images of a finished job."""
        return (yield from self._fetch(JobView, "POST", f"/v1/jobs/{quoted(job_id)}/retry"))

    @stream
    def watch(self, job_id: str, poll: float = 1.0) -> Items[JobView]:
        """Yield the job every `poll` seconds until its status is final.

        Once the job has been seen, a lost connection and a service that is away (502, 503, 504) are retried with
        growing pauses: MAX_LOST times in a row, and after that until the client's patience is over.
        """
        yield from self._watch(job_id, poll)

    def _watch(self, job_id: str, poll: float) -> Items[JobView]:
        lost, waited, seen = 0, 0.0, False
        while True:
            pause = poll
            try:
                # before the first response an error is raised at once: the address may be wrong
                view = yield from self._job(job_id)
            except (httpx.TransportError, ApiError) as error:
                problem = _away(error)
                if problem is None or not seen:
                    raise
                lost, pause = lost + 1, min(poll * 2 ** min(lost + 1, 20), LONGEST_PAUSE)
                waited += pause
                if lost > MAX_LOST and waited > self._patience:
                    raise
                if self._on_wait is not None:
                    self._on_wait(pause, problem)
            else:
                lost, waited, seen = 0, 0.0, True
                yield Item(view)
                if view.status.final:
                    return
            yield Sleep(pause)

    @call
    def wait(self, job_id: str, poll: float = 1.0) -> Steps[JobView]:
        """Wait until a job's status is final, and return the job."""
        # the views before the last one are not kept: a job may take days
        return (yield from last_of(self._watch(job_id, poll)))

    @stream
    def events(self, job_id: str, last_event_id: str | None = None) -> Items[ServerSentEvent]:
        """Yield the job's events after `last_event_id`, until the job's end. A broken stream is opened again."""
        path, seen, lost = f"/v1/jobs/{quoted(job_id)}/events", last_event_id, 0
        while lost <= MAX_LOST:
            try:
                # read until the stream ends or breaks; an event shows that the connection works
                opened = yield from self._open(path, seen)
                while (event := (yield from self._next(opened))) is not None:
                    seen, lost = event.id or seen, 0
                    yield Item(event)
            except httpx.TransportError:
                if lost == MAX_LOST:
                    raise
            if (yield from self._job(job_id)).status.final:
                # fetch the events between the break and the job's end
                opened = yield from self._open(path, seen)
                while (event := (yield from self._next(opened))) is not None:
                    yield Item(event)
                return
            lost += 1
            yield Sleep(lost)

    @stream
    def results(self, job_id: str) -> Items[Record]:
        """Yield the job's records so far.

        While the job runs, reading ends at the first chunk without results. A job that has ended runs again if one of
        its parts is found broken: so ask for its status after reading, not before.
        """
        yield from self._lines(f"/v1/jobs/{quoted(job_id)}/results", Record)

    @stream
    def failures(self, job_id: str, status: Literal["failed", "filtered"] = "failed") -> Items[FailureRow]:
        """Yield the job's failed images and shards so far, or the images that a rule of its profile rejected."""
        yield from self._lines(f"/v1/jobs/{quoted(job_id)}/failures", FailureRow, {"status": status})


def _away(error: Exception) -> Problem | None:
    """The problem of a service that cannot be reached now, or says so itself; None for any other error."""
    if isinstance(error, ApiError):
        return error.problem if error.problem.status in (502, 503, 504) else None
    return Problem(type="about:blank", title="The service cannot be reached", status=503, detail=str(error))
