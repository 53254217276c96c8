"""The HTTP client of the REST service: what the CLI uses, and what a program would."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from strata.client.proxies import proxied
from strata.client.sse import ServerSentEvent, parse_events
from strata.core.records import Record
from strata.core.schemas import Budget, FailureRow, JobPage, JobView, Priority, Problem

Model = TypeVar("Model", bound=BaseModel)


class ApiError(Exception):
    """The service's refusal, as one line. `problem` holds it whole."""

    def __init__(self, problem: Problem) -> None:
        detail = " ".join(problem.detail.split())
        super().__init__(f"{problem.title}: {detail}" if detail else f"{problem.title} ({problem.status})")
        self.problem = problem


def parse_answer(model: type[Model], response: httpx.Response, text: str | None = None) -> Model:
    """The answer (or one line of it) as a model. Raises ApiError where it is something else."""
    try:
        return model.model_validate_json(response.content if text is None else text)
    except ValidationError as error:
        detail = f"{response.url} did not give a {model.__name__}; is this Strata's address, and its version?"
        title, status = "Unexpected answer", response.status_code
        raise ApiError(Problem(type="about:blank", title=title, status=status, detail=detail)) from error


def pause_of(response: httpx.Response) -> float | None:
    """Seconds the service asks to wait before another try, or None."""
    value = response.headers.get("Retry-After")
    if response.status_code not in (429, 503) or value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else _until(parsedate_to_datetime(value))
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds)


def _until(moment: datetime) -> float:
    return (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()


def problem_of(response: httpx.Response) -> Problem:
    """The problem of an answer, or one made for an answer that carries none, such as a proxy's page."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        text = " ".join(response.text.split())[:200]
        title = f"HTTP {response.status_code} {response.reason_phrase}".strip()
        return Problem(type="about:blank", title=title, status=response.status_code, detail=text)


RETRIES = 4  # answers of 429 and 503 that name a time are asked again this often
LONGEST_PAUSE = 30.0  # seconds; a longer Retry-After is for the caller to wait out
PATIENCE = 5  # lost connections in a row while a job is watched


@dataclass(frozen=True)
class Captioned:
    """An answer to one image: its record if done in time, else its job; the job's id if it was told."""

    record: Record | None
    job: JobView | None
    job_id: str | None


class Client:
    """Calls the service at `base_url`. timeout: seconds without an answer. Use it in `with`, or close it.

    Every method raises ApiError when the service refuses, and httpx.TransportError when it cannot be reached.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        timeout: float = 30.0,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(
            base_url=base_url, headers=headers, timeout=timeout, transport=transport, trust_env=proxied(base_url)
        )
        self._timeout = timeout
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the service answers, and Redis, store and workers are there."""
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
    ) -> Record | JobView:
        """Caption one image: its record if done within `wait` seconds, else the job to watch."""
        answer = self.captioned(image, alt_text, profile, wait)
        if answer.record is not None:
            return answer.record
        assert answer.job is not None
        return answer.job

    def captioned(
        self,
        image: bytes | Path,
        alt_text: str | None = None,
        profile: str | None = None,
        wait: float = 10.0,
    ) -> Captioned:
        """As `caption`, with the job's id beside the record."""
        name, data = ("image", image) if isinstance(image, bytes) else (image.name, image.read_bytes())
        fields = {"alt_text": alt_text, "profile": profile}
        response = self._send(
            "POST",
            "/v1/captions",
            files={"file": (name, data)},
            data={field: value for field, value in fields.items() if value is not None},
            headers={"Prefer": f"wait={wait:g}"},
            timeout=httpx.Timeout(self._timeout, read=self._timeout + wait),
        )
        job_id = response.headers.get("Location", "").rpartition("/v1/jobs/")[2].split("/")[0] or None
        if response.status_code == 202:
            job = parse_answer(JobView, response)
            return Captioned(None, job, job.id)
        return Captioned(parse_answer(Record, response), None, job_id)

    def record(self, job: str, key: str) -> Record:
        """One record of a job."""
        return parse_answer(Record, self._send("GET", f"/v1/records/{_quote(job)}/{_quote(key)}"))

    def overlay(self, job: str, key: str) -> bytes:
        """A picture (PNG) of a record's image with its layers drawn on it."""
        return self._send("GET", f"/v1/records/{_quote(job)}/{_quote(key)}/overlay.png").content

    # jobs

    def submit(
        self,
        shards: Sequence[str],
        profile: str | None = None,
        priority: Priority = "lo",
        metadata: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        budget: Budget | None = None,
    ) -> JobView:
        """Ask for shards to be described. Without an idempotency key of yours, each call is a new job."""
        body: dict[str, object] = {
            "input": {"shards": list(shards)},
            "priority": priority,
            "metadata": metadata or {},
        }
        if profile is not None:
            body["profile"] = profile
        if budget is not None:
            body["budget"] = budget.model_dump()
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return parse_answer(JobView, self._send("POST", "/v1/batches", json=body, headers=headers))

    def job(self, job_id: str) -> JobView:
        """Where a job stands."""
        return parse_answer(JobView, self._send("GET", f"/v1/jobs/{_quote(job_id)}"))

    def jobs(self, limit: int | None = None, cursor: str | None = None) -> JobPage:
        """A page of jobs, newest first."""
        params = {"limit": limit, "cursor": cursor}
        given = {name: value for name, value in params.items() if value is not None}
        return parse_answer(JobPage, self._send("GET", "/v1/jobs", params=given))

    def cancel(self, job_id: str) -> JobView:
        """Cancel a job; work in hand still ends."""
        return parse_answer(JobView, self._send("POST", f"/v1/jobs/{_quote(job_id)}/cancel"))

    def retry(self, job_id: str) -> JobView:
        """Try a finished job's failed images again."""
        return parse_answer(JobView, self._send("POST", f"/v1/jobs/{_quote(job_id)}/retry"))

    def watch(self, job_id: str, poll: float = 1.0) -> Iterator[JobView]:
        """The job every `poll` seconds until its status is final. Rides out a few lost connections."""
        lost = 0
        seen = False
        while True:
            try:
                view = self.job(job_id)
            except httpx.TransportError:
                lost += 1
                if not seen or lost > PATIENCE:
                    raise
            else:
                lost, seen = 0, True
                yield view
                if view.status.final:
                    return
            self._sleep(poll * (lost + 1))

    def wait(self, job_id: str, poll: float = 1.0) -> JobView:
        """The job once its status is final."""
        return list(self.watch(job_id, poll))[-1]

    def events(self, job_id: str, last_event_id: str | None = None) -> Iterator[ServerSentEvent]:
        """The job's events after `last_event_id`, until the job's end; reconnects where a stream breaks."""
        seen, lost = last_event_id, 0
        while lost <= PATIENCE:
            try:
                for event in self._stream(f"/v1/jobs/{_quote(job_id)}/events", seen):
                    seen, lost = event.id or seen, 0
                    yield event
            except httpx.TransportError:
                if lost == PATIENCE:
                    raise
            if self.job(job_id).status.final:
                # what came between the break and the end is still to be told
                yield from self._stream(f"/v1/jobs/{_quote(job_id)}/events", seen)
                return
            lost += 1
            self._sleep(lost)

    # results

    def results(self, job_id: str) -> Iterator[Record]:
        """The job's records so far."""
        return self._lines(f"/v1/jobs/{_quote(job_id)}/results", Record)

    def failures(self, job_id: str, status: Literal["failed", "filtered"] = "failed") -> Iterator[FailureRow]:
        """The job's failed images and shards so far, or the images that a rule of its profile rejected."""
        return self._lines(f"/v1/jobs/{_quote(job_id)}/failures", FailureRow, {"status": status})

    # transport

    def _lines(self, path: str, model: type[Model], query: Mapping[str, str] | None = None) -> Iterator[Model]:
        """Rows of JSON Lines pages. Of a next link only the query is used, so the key stays with its host."""
        params = httpx.QueryParams(dict(query or {}))
        while True:
            response = self._send("GET", path, params=params)
            for line in response.text.split("\n"):
                if line.strip():
                    yield parse_answer(model, response, line)
            link = response.links.get("next", {}).get("url")
            if link is None or httpx.URL(link).params == params:
                return
            params = httpx.URL(link).params

    def _stream(self, path: str, last_event_id: str | None) -> Iterator[ServerSentEvent]:
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        with self._http.stream("GET", path, headers=headers) as response:
            if response.is_error:
                response.read()
                raise ApiError(problem_of(response))
            yield from parse_events(response.iter_bytes())

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request; 429 and 503 that say when to come back are asked again, a bounded number of times."""
        for attempt in range(RETRIES + 1):
            response = self._http.request(method, path, **arguments)
            pause = pause_of(response)
            if pause is None or pause > LONGEST_PAUSE or attempt == RETRIES:
                break
            self._sleep(pause)
        if response.status_code >= 300:
            raise ApiError(problem_of(response))
        return response


def _quote(name: str) -> str:
    return quote(name, safe="")
