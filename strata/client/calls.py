"""The calls of the service that both clients have."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, SSEError

from strata.client.responses import ApiError, Model, parse_response, pause_of, problem_of, unexpected
from strata.client.steps import (
    Item,
    Items,
    NextEvent,
    Opened,
    OpenEvents,
    Request,
    Sleep,
    Steps,
    call,
    last_of,
    stream,
)
from strata.core import (
    Backlog,
    BatchInput,
    Budget,
    DeliveryPage,
    DeliveryView,
    FailureRow,
    ImageLinks,
    JobKind,
    JobPage,
    JobStatus,
    JobView,
    Priority,
    Problem,
    Record,
    SearchPage,
    TextSettings,
    UploadsView,
    UploadView,
    WebhookTarget,
    WorkerList,
)
from strata.errors import InvalidInput
from strata.profiles import ProfileList, ProfileView

RETRIES = 4  # after responses of 429 and 503 with a Retry-After
# the queue takes more when it has computed some, and the key may have more when time has passed
BUSY = ("/problems/share-used", "/problems/queue-full", "/problems/quota-exceeded")
LONGEST_RETRY = 61.0  # seconds, for a quota of a minute; a response with a longer Retry-After is raised as an error
LONGEST_PAUSE = 30.0  # seconds, between two looks at a job whose service is away
MAX_LOST = 5  # lost connections in a row while a job is watched


@dataclass(frozen=True)
class Captioned:
    """The response for one image: its record if it was finished in time, else its job; and the job's id, if known."""

    record: Record | None
    job: JobView | None
    job_id: str | None


class Calls:
    """The calls of the service. Every one raises ApiError for an error response, and httpx.TransportError if the
    service cannot be reached. A `Client` returns their results, an `AsyncClient` awaitables and asynchronous iterators.
    """

    _timeout: float
    _patience: float
    _on_wait: Callable[[float, Problem], None] | None

    @property
    def url(self) -> str:
        """The address of the service, at which its studio is too."""
        raise NotImplementedError

    @call
    def ready(self) -> Steps[bool]:
        """Whether the service responds and reports Redis, store and workers as reachable."""
        try:
            response: httpx.Response = yield Request("GET", "/readyz")
            return response.is_success
        except httpx.TransportError:
            return False

    # one image

    @call
    def caption(
        self,
        image: bytes | Path | str,
        alt_text: str | None = None,
        profile: str | None = None,
        wait: float = 10.0,
        texts: TextSettings | None = None,
    ) -> Steps[Record | JobView]:
        """Caption one image: its bytes, its file, or a URL, which the service fetches.

        Returns its record if it is finished within `wait` seconds, else the job.
        texts: what is written besides the description, in which language, and with which prompt.
        """
        captioned = yield from self._captioned(image, alt_text, profile, wait, texts)
        if captioned.record is not None:
            return captioned.record
        assert captioned.job is not None
        return captioned.job

    @call
    def captioned(
        self,
        image: bytes | Path | str,
        alt_text: str | None = None,
        profile: str | None = None,
        wait: float = 10.0,
        texts: TextSettings | None = None,
    ) -> Steps[Captioned]:
        """Caption one image like `caption`, and also return the job's id."""
        return (yield from self._captioned(image, alt_text, profile, wait, texts))

    def _captioned(
        self,
        image: bytes | Path | str,
        alt_text: str | None,
        profile: str | None,
        wait: float,
        texts: TextSettings | None,
    ) -> Steps[Captioned]:
        fields: dict[str, Any] = {"alt_text": alt_text, "profile": profile}
        if texts is not None:
            fields |= texts.model_dump()
        given = {field: value for field, value in fields.items() if value is not None}
        if isinstance(image, str):
            content: dict[str, Any] = {"json": {"image_url": image, **given}}
        else:
            name, data = ("image", image) if isinstance(image, bytes) else (image.name, image.read_bytes())
            if "variants" in given:
                given["variants"] = ",".join(given["variants"])
            content = {"files": {"file": (name, data)}, "data": {k: v for k, v in given.items() if v}}
        # the read timeout must be longer than the time that the service may wait before it responds
        response = yield from self._send(
            "POST",
            "/v1/captions",
            **content,
            headers={"Prefer": f"wait={wait:g}"},
            timeout=httpx.Timeout(self._timeout, read=self._timeout + wait),
        )
        # the body of a finished record has no job id; the header has it
        job_id = response.headers.get("Location", "").rpartition("/v1/jobs/")[2].split("/")[0] or None
        if response.status_code == 202:
            job = parse_response(JobView, response)
            return Captioned(None, job, job.id)
        return Captioned(parse_response(Record, response), None, job_id)

    @call
    def record(self, job: str, key: str) -> Steps[Record]:
        """Fetch one record of a job."""
        return (yield from self._fetch(Record, "GET", f"/v1/records/{_quote(job)}/{_quote(key)}"))

    @call
    def overlay(self, job: str, key: str) -> Steps[bytes]:
        """Fetch a PNG of a record's image with its layers drawn on it."""
        response = yield from self._send("GET", f"/v1/records/{_quote(job)}/{_quote(key)}/overlay.png")
        return response.content

    @call
    def image_links(
        self, job: str, key: str, expires_in: int = 3600, *, side: int = 1024, identity: str | None = None
    ) -> Steps[ImageLinks]:
        """Make links to a record's image, its preview and its overlay, which need no key and end by themselves.

        expires_in: seconds for which they are valid, at most a week; side: of the preview, in pixels; identity: of the
        shard, if several of the job have the key. The links are whole addresses.
        """
        params = {"expires_in": expires_in, "side": side} | ({"identity": identity} if identity is not None else {})
        place = f"/v1/records/{_quote(job)}/{_quote(key)}/"
        made = yield from self._fetch(ImageLinks, "POST", f"{place}links", params=params)
        # below the address by which this client calls the service, whether or not the service knows its prefix
        names = ("image", "preview", "overlay")
        whole = {name: self.url + place + getattr(made, name).rpartition("/")[2] for name in names}
        return made.model_copy(update=whole)

    # profiles

    @call
    def profiles(self) -> Steps[list[ProfileView]]:
        """Fetch what each profile of the service is, needs, computes and warns of, with its proof."""
        return (yield from self._fetch(ProfileList, "GET", "/v1/profiles")).profiles

    # search

    @call
    def search(
        self,
        /,
        words: str = "",
        order: str = "store",
        limit: int | None = None,
        cursor: str | None = None,
        **filters: str | float | bool | Sequence[str],
    ) -> Steps[SearchPage]:
        """Fetch a page of the rows that have these words, and all that the filters ask for.

        filters: parameters of `GET /v1/search`, such as job, snapshot, thing, status and score_min.
        """
        params = {"q": words, "order": order, "limit": limit, "cursor": cursor, **filters}
        if empty := [name for name, value in filters.items() if value == ""]:
            raise InvalidInput(f"the filter {empty[0]} is empty")
        given = {name: value for name, value in params.items() if value not in (None, "")}
        return (yield from self._fetch(SearchPage, "GET", "/v1/search", params=given))

    # jobs

    @call
    def submit(
        self,
        shards: Sequence[str],
        profile: str | None = None,
        priority: Priority = "lo",
        metadata: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        budget: Budget | None = None,
        texts: TextSettings | None = None,
        webhook: WebhookTarget | None = None,
    ) -> Steps[JobView]:
        """Submit shards as a job. Without an `idempotency_key`, every call makes a new job.

        texts: as in `caption`; webhook: whom the job's end is told.
        """
        given = BatchInput(shards=list(shards))
        return (yield from self._submit(given, profile, priority, metadata, idempotency_key, budget, texts, webhook))

    def _submit(
        self,
        given: BatchInput,
        profile: str | None,
        priority: Priority,
        metadata: dict[str, str] | None,
        idempotency_key: str | None,
        budget: Budget | None,
        texts: TextSettings | None,
        webhook: WebhookTarget | None,
    ) -> Steps[JobView]:
        body: dict[str, object] = {
            "input": given.model_dump(exclude_none=True),
            "priority": priority,
            "metadata": metadata or {},
        }
        if profile is not None:
            body["profile"] = profile
        if budget is not None:
            body["budget"] = budget.model_dump()
        if texts is not None:
            body |= texts.model_dump(exclude_none=True)
        if webhook is not None:
            body["webhook"] = {"url": webhook.url, "secret": webhook.secret.get_secret_value()}
        # a new key for each call: a request that is sent twice by a proxy makes one job
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return (yield from self._fetch(JobView, "POST", "/v1/batches", json=body, headers=headers))

    # images of this machine

    @call
    def missing_uploads(self, sizes: Mapping[str, int]) -> Steps[UploadsView]:
        """Which files the service has not got yet. sizes: their bytes, by the SHA-256 of each; at most MAX_UPLOADS."""
        body = {"sha256": list(sizes), "sizes": list(sizes.values())}
        return (yield from self._fetch(UploadsView, "POST", "/v1/uploads", json=body))

    @call
    def upload(self, data: bytes) -> Steps[UploadView]:
        """Send the bytes of an image's file, for `submit_uploads`. Sent twice it is stored once."""
        digest = hashlib.sha256(data).hexdigest()
        headers = {"Content-Type": "application/octet-stream"}
        return (yield from self._fetch(UploadView, "PUT", f"/v1/uploads/{digest}", content=data, headers=headers))

    @call
    def submit_uploads(
        self,
        images: Sequence[tuple[str, str]],
        alt_texts: Sequence[str | None] | None = None,
        profile: str | None = None,
        priority: Priority = "lo",
        metadata: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        budget: Budget | None = None,
        texts: TextSettings | None = None,
        webhook: WebhookTarget | None = None,
    ) -> Steps[JobView]:
        """Submit images that were sent before, as a job. images: of each the SHA-256 of its file, and a name.

        At most MAX_UPLOADS. The other arguments are those of `submit`.
        """
        lines = [f"{digest} {name[:1000]}" for digest, name in images]
        given = BatchInput(uploads=lines, alt_texts=None if alt_texts is None else list(alt_texts))
        return (yield from self._submit(given, profile, priority, metadata, idempotency_key, budget, texts, webhook))

    @call
    def job(self, job_id: str) -> Steps[JobView]:
        """Fetch a job."""
        return (yield from self._job(job_id))

    def _job(self, job_id: str) -> Steps[JobView]:
        return (yield from self._fetch(JobView, "GET", f"/v1/jobs/{_quote(job_id)}"))

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
    def backlog(self) -> Steps[Backlog]:
        """What each group has still to compute for all unfinished jobs, and its ready workers."""
        return (yield from self._fetch(Backlog, "GET", "/v1/backlog"))

    @call
    def workers(self) -> Steps[WorkerList]:
        """The workers that report now."""
        return (yield from self._fetch(WorkerList, "GET", "/v1/workers"))

    @call
    def cancel(self, job_id: str) -> Steps[JobView]:
        """Cancel a job. Chunks that are being computed are still finished."""
        return (yield from self._fetch(JobView, "POST", f"/v1/jobs/{_quote(job_id)}/cancel"))

    @call
    def delete(self, job_id: str) -> Steps[None]:
        """Delete a job that has ended, for good: its rows, its image and its files."""
        yield from self._send("DELETE", f"/v1/jobs/{_quote(job_id)}")

    @call
    def retry(self, job_id: str) -> Steps[JobView]:
        """Retry the failed images of a finished job."""
        return (yield from self._fetch(JobView, "POST", f"/v1/jobs/{_quote(job_id)}/retry"))

    # webhooks

    @call
    def webhooks(
        self, state: Literal["failed", "pending"] = "failed", limit: int | None = None, cursor: str | None = None
    ) -> Steps[DeliveryPage]:
        """Fetch a page of the webhooks that were given up, or that are sent again later."""
        params = {"state": state, "limit": limit, "cursor": cursor}
        given = {name: value for name, value in params.items() if value is not None}
        return (yield from self._fetch(DeliveryPage, "GET", "/v1/webhooks", params=given))

    @call
    def webhook(self, job_id: str) -> Steps[DeliveryView]:
        """Fetch the delivery of a job's webhook."""
        return (yield from self._fetch(DeliveryView, "GET", f"/v1/jobs/{_quote(job_id)}/webhook"))

    @call
    def redeliver(self, job_id: str) -> Steps[DeliveryView]:
        """Send the webhook of a job that has ended again."""
        return (yield from self._fetch(DeliveryView, "POST", f"/v1/jobs/{_quote(job_id)}/webhook/redeliver"))

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
        path, seen, lost = f"/v1/jobs/{_quote(job_id)}/events", last_event_id, 0
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

    # results

    @stream
    def results(self, job_id: str) -> Items[Record]:
        """Yield the job's records so far.

        While the job runs, reading ends at the first chunk without results. A job that has ended runs again if one of
        its parts is found broken: so ask for its status after reading, not before.
        """
        yield from self._lines(f"/v1/jobs/{_quote(job_id)}/results", Record)

    @stream
    def failures(self, job_id: str, status: Literal["failed", "filtered"] = "failed") -> Items[FailureRow]:
        """Yield the job's failed images and shards so far, or the images that a rule of its profile rejected."""
        yield from self._lines(f"/v1/jobs/{_quote(job_id)}/failures", FailureRow, {"status": status})

    # transport

    def _fetch(self, model: type[Model], method: str, path: str, **arguments: Any) -> Steps[Model]:
        """Send one request, and parse its response."""
        return parse_response(model, (yield from self._send(method, path, **arguments)))

    def _lines(self, path: str, model: type[Model], query: Mapping[str, str] | None = None) -> Items[Model]:
        """Yield the rows of JSON Lines pages.

        Only the query of a `next` link is used, so that the API key is never sent to another host.
        """
        params = httpx.QueryParams(dict(query or {}))
        while True:
            response = yield from self._send("GET", path, params=params)
            for line in response.text.split("\n"):
                if line.strip():
                    yield Item(parse_response(model, response, line))
            # a next page with the same query would repeat this one for ever
            link = response.links.get("next", {}).get("url")
            if link is None or httpx.URL(link).params == params:
                return
            params = httpx.URL(link).params

    def _open(self, path: str, last_event_id: str | None) -> Steps[Opened]:
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        opened: Opened = yield OpenEvents(path, headers)
        if opened.response.is_error:
            raise ApiError.of(problem_of(opened.response))
        return opened

    def _next(self, opened: Opened) -> Steps[ServerSentEvent | None]:
        """The next event of a stream; None at its end."""
        while True:
            try:
                event: ServerSentEvent | None = yield NextEvent(opened)
            except SSEError as error:  # a TransportError, but connecting again would not help
                raise unexpected(opened.response, "an event stream") from error
            # the library also yields an event for a comment that follows an id; it has no data
            if event is None or event.data:
                return event

    def _send(self, method: str, path: str, **arguments: Any) -> Steps[httpx.Response]:
        """Send one request; after a 429 or 503 with a Retry-After, wait and send it again.

        Up to RETRIES times; if the queue takes nothing more, until the client's patience is over.
        """
        attempts, waited = 0, 0.0
        while True:
            response: httpx.Response = yield Request(method, path, arguments)
            # a Retry-After invites a later attempt; without one the response is final
            pause = pause_of(response)
            if pause is None or pause > LONGEST_RETRY:
                break
            problem = problem_of(response)
            if problem.type in BUSY:
                waited += pause
                if waited > self._patience:
                    break
                if self._on_wait is not None:
                    self._on_wait(pause, problem)
            elif (attempts := attempts + 1) > RETRIES:
                break
            yield Sleep(pause)
        if response.status_code >= 300:
            raise ApiError.of(problem_of(response))
        return response


def _away(error: Exception) -> Problem | None:
    """The problem of a service that cannot be reached now, or says so itself; None for any other error."""
    if isinstance(error, ApiError):
        return error.problem if error.problem.status in (502, 503, 504) else None
    return Problem(type="about:blank", title="The service cannot be reached", status=503, detail=str(error))


def _quote(name: str) -> str:
    """A job's id or a key as a part of a path. Raises InvalidInput for one that would name another path."""
    if name in ("", ".", ".."):
        raise InvalidInput(
            f"{name!r} is not the id of a job and not a key" if name else "the id of a job or the key is empty"
        )
    return quote(name, safe="")
