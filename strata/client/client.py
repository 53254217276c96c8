"""The HTTP client of the REST service, for the command line and for programs."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, SSEError, connect_sse

from strata.addresses import clean_key
from strata.client.responses import ApiError, Model, parse_response, pause_of, problem_of, unexpected
from strata.core import (
    Budget,
    FailureRow,
    JobKind,
    JobPage,
    JobStatus,
    JobView,
    Priority,
    Problem,
    Record,
    SearchPage,
    TextSettings,
)
from strata.profiles import ProfileList, ProfileView

RETRIES = 4  # after responses of 429 and 503 with a Retry-After
BUSY = ("/problems/share-used", "/problems/queue-full")  # the queue takes more when it has computed some
LONGEST_PAUSE = 30.0  # seconds; a response with a longer Retry-After is raised as an error
MAX_LOST = 5  # lost connections in a row while a job is watched


@dataclass(frozen=True)
class Captioned:
    """The response for one image: its record if it was finished in time, else its job; and the job's id, if known."""

    record: Record | None
    job: JobView | None
    job_id: str | None


class Client:
    """Calls the service at `base_url`. timeout: seconds to wait for a response. Use it in `with`, or call `close`.

    patience: seconds to wait in all while the service's queue takes nothing more; on_wait: called before each of these
    pauses, with its seconds and the problem.
    White space around api_key is removed; AddressError is raised if it cannot be sent in a header.
    Every method raises ApiError for an error response, and httpx.TransportError if the service cannot be reached.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        timeout: float = 30.0,
        patience: float = 60.0,
        *,
        on_wait: Callable[[float, Problem], None] | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        # as bytes, because httpx would encode a text as ASCII
        headers = {b"Authorization": b"Bearer " + clean_key(api_key, "the API key").encode()} if api_key else {}
        self._http = httpx.Client(
            base_url=base_url, headers=headers, timeout=timeout, transport=transport, trust_env=proxied(base_url)
        )
        self._timeout, self._patience, self._on_wait = timeout, patience, on_wait
        self._sleep = sleep

    @property
    def url(self) -> str:
        """The address of the service, at which its studio is too."""
        return str(self._http.base_url).rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the service responds and reports Redis, store and workers as reachable."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    # one image

    def caption(
        self,
        image: bytes | Path,
        alt_text: str | None = None,
        profile: str | None = None,
        wait: float = 10.0,
        texts: TextSettings | None = None,
    ) -> Record | JobView:
        """Caption one image. Returns its record if it is finished within `wait` seconds, else the job.

        texts: what is written besides the description, in which language, and with which prompt.
        """
        captioned = self.captioned(image, alt_text, profile, wait, texts)
        if captioned.record is not None:
            return captioned.record
        assert captioned.job is not None
        return captioned.job

    def captioned(
        self,
        image: bytes | Path,
        alt_text: str | None = None,
        profile: str | None = None,
        wait: float = 10.0,
        texts: TextSettings | None = None,
    ) -> Captioned:
        """Caption one image like `caption`, and also return the job's id."""
        name, data = ("image", image) if isinstance(image, bytes) else (image.name, image.read_bytes())
        fields = {"alt_text": alt_text, "profile": profile}
        if texts is not None:
            variants = ",".join(texts.variants or ()) or None
            fields |= {"variants": variants, "language": texts.language, "prompt": texts.prompt}
        # the read timeout must be longer than the time that the service may wait before it responds
        response = self._send(
            "POST",
            "/v1/captions",
            files={"file": (name, data)},
            data={field: value for field, value in fields.items() if value is not None},
            headers={"Prefer": f"wait={wait:g}"},
            timeout=httpx.Timeout(self._timeout, read=self._timeout + wait),
        )
        # the body of a finished record has no job id; the header has it
        job_id = response.headers.get("Location", "").rpartition("/v1/jobs/")[2].split("/")[0] or None
        if response.status_code == 202:
            job = parse_response(JobView, response)
            return Captioned(None, job, job.id)
        return Captioned(parse_response(Record, response), None, job_id)

    def record(self, job: str, key: str) -> Record:
        """Fetch one record of a job."""
        return parse_response(Record, self._send("GET", f"/v1/records/{_quote(job)}/{_quote(key)}"))

    def overlay(self, job: str, key: str) -> bytes:
        """Fetch a PNG of a record's image with its layers drawn on it."""
        return self._send("GET", f"/v1/records/{_quote(job)}/{_quote(key)}/overlay.png").content

    # profiles

    def profiles(self) -> list[ProfileView]:
        """Fetch what each profile of the service is, needs, computes and warns of, with its proof."""
        return parse_response(ProfileList, self._send("GET", "/v1/profiles")).profiles

    # search

    def search(
        self,
        words: str = "",
        order: str = "store",
        limit: int | None = None,
        cursor: str | None = None,
        **filters: str | float | bool | Sequence[str],
    ) -> SearchPage:
        """Fetch a page of the rows that have these words, and all that the filters ask for.

        filters: parameters of `GET /v1/search`, such as job, snapshot, thing, status and score_min.
        """
        params = {"q": words, "order": order, "limit": limit, "cursor": cursor, **filters}
        given = {name: value for name, value in params.items() if value not in (None, "")}
        return parse_response(SearchPage, self._send("GET", "/v1/search", params=given))

    # jobs

    def submit(
        self,
        shards: Sequence[str],
        profile: str | None = None,
        priority: Priority = "lo",
        metadata: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        budget: Budget | None = None,
        texts: TextSettings | None = None,
    ) -> JobView:
        """Submit shards as a job. Without an `idempotency_key`, every call makes a new job. texts: as in `caption`."""
        body: dict[str, object] = {
            "input": {"shards": list(shards)},
            "priority": priority,
            "metadata": metadata or {},
        }
        if profile is not None:
            body["profile"] = profile
        if budget is not None:
            body["budget"] = budget.model_dump()
        if texts is not None:
            body |= texts.model_dump(exclude_none=True)
        # a new key for each call: a request that is sent twice by a proxy makes one job
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return parse_response(JobView, self._send("POST", "/v1/batches", json=body, headers=headers))

    def job(self, job_id: str) -> JobView:
        """Fetch a job."""
        return parse_response(JobView, self._send("GET", f"/v1/jobs/{_quote(job_id)}"))

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
    ) -> JobPage:
        """Fetch a page of jobs, newest first. A page with a `next` may have fewer jobs than limit, or none."""
        params: dict[str, Any] = {"limit": limit, "cursor": cursor, "status": status, "kind": kind, "profile": profile}
        times = {"created_after": created_after, "created_before": created_before}
        params |= {name: time.isoformat() for name, time in times.items() if time is not None}
        given = {name: value for name, value in params.items() if value is not None}
        return parse_response(JobPage, self._send("GET", "/v1/jobs", params=given))

    def cancel(self, job_id: str) -> JobView:
        """Cancel a job. Chunks that are being computed are still finished."""
        return parse_response(JobView, self._send("POST", f"/v1/jobs/{_quote(job_id)}/cancel"))

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended, for good: its rows, its image and its files."""
        self._send("DELETE", f"/v1/jobs/{_quote(job_id)}")

    def retry(self, job_id: str) -> JobView:
        """Retry the failed images of a finished job."""
        return parse_response(JobView, self._send("POST", f"/v1/jobs/{_quote(job_id)}/retry"))

    def watch(self, job_id: str, poll: float = 1.0) -> Iterator[JobView]:
        """Yield the job every `poll` seconds until its status is final.

        Up to MAX_LOST lost connections in a row are retried once the job has been seen.
        """
        lost = 0
        seen = False
        while True:
            try:
                # before the first response an error is raised at once: the address may be wrong
                view = self.job(job_id)
            except httpx.TransportError:
                lost += 1
                if not seen or lost > MAX_LOST:
                    raise
            else:
                lost, seen = 0, True
                yield view
                if view.status.final:
                    return
            self._sleep(poll * (lost + 1))

    def wait(self, job_id: str, poll: float = 1.0) -> JobView:
        """Wait until a job's status is final, and return the job."""
        # the views before the last one are not kept: a job may take days
        (view,) = deque(self.watch(job_id, poll), maxlen=1)
        return view

    def events(self, job_id: str, last_event_id: str | None = None) -> Iterator[ServerSentEvent]:
        """Yield the job's events after `last_event_id`, until the job's end. A broken stream is opened again."""
        seen, lost = last_event_id, 0
        while lost <= MAX_LOST:
            try:
                # read until the stream ends or breaks; an event shows that the connection works
                for event in self._stream(f"/v1/jobs/{_quote(job_id)}/events", seen):
                    seen, lost = event.id or seen, 0
                    yield event
            except httpx.TransportError:
                if lost == MAX_LOST:
                    raise
            if self.job(job_id).status.final:
                # fetch the events between the break and the job's end
                yield from self._stream(f"/v1/jobs/{_quote(job_id)}/events", seen)
                return
            lost += 1
            self._sleep(lost)

    # results

    def results(self, job_id: str) -> Iterator[Record]:
        """Yield the job's records so far.

        While the job runs, reading ends at the first chunk without results. A job that has ended runs again if one of
        its parts is found broken: so ask for its status after reading, not before.
        """
        return self._lines(f"/v1/jobs/{_quote(job_id)}/results", Record)

    def failures(self, job_id: str, status: Literal["failed", "filtered"] = "failed") -> Iterator[FailureRow]:
        """Yield the job's failed images and shards so far, or the images that a rule of its profile rejected."""
        return self._lines(f"/v1/jobs/{_quote(job_id)}/failures", FailureRow, {"status": status})

    # transport

    def _lines(self, path: str, model: type[Model], query: Mapping[str, str] | None = None) -> Iterator[Model]:
        """Yield the rows of JSON Lines pages.

        Only the query of a `next` link is used, so that the API key is never sent to another host.
        """
        params = httpx.QueryParams(dict(query or {}))
        while True:
            response = self._send("GET", path, params=params)
            for line in response.text.split("\n"):
                if line.strip():
                    yield parse_response(model, response, line)
            # a next page with the same query would repeat this one for ever
            link = response.links.get("next", {}).get("url")
            if link is None or httpx.URL(link).params == params:
                return
            params = httpx.URL(link).params

    def _stream(self, path: str, last_event_id: str | None) -> Iterator[ServerSentEvent]:
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        with connect_sse(self._http, "GET", path, headers=headers) as source:
            if source.response.is_error:
                source.response.read()
                raise ApiError.of(problem_of(source.response))
            try:
                # the library also yields an event for a comment that follows an id; it has no data
                yield from (event for event in source.iter_sse() if event.data)
            except SSEError as error:  # a TransportError, but connecting again would not help
                raise unexpected(source.response, "an event stream") from error

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send one request; after a 429 or 503 with a Retry-After, wait and send it again.

        Up to RETRIES times; if the queue takes nothing more, until the client's patience is over.
        """
        attempts, waited = 0, 0.0
        while True:
            response = self._http.request(method, path, **arguments)
            # a Retry-After invites a later attempt; without one the response is final
            pause = pause_of(response)
            if pause is None or pause > LONGEST_PAUSE:
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
            self._sleep(pause)
        if response.status_code >= 300:
            raise ApiError.of(problem_of(response))
        return response


def proxied(url: str) -> bool:
    """Whether requests to the address may use the environment's proxy (httpx's `trust_env`).

    False for this machine's loopback addresses, which no proxy can reach.
    """
    # httpx does not exempt loopback addresses from HTTP_PROXY unless NO_PROXY lists them
    return httpx.URL(url).host not in ("127.0.0.1", "localhost", "::1")


def _quote(name: str) -> str:
    return quote(name, safe="")
