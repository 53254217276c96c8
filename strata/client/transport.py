"""How a call sends its requests: what is tried again, and how pages of lines and streams of events are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, SSEError

from strata.client.responses import ApiError, Model, parse_response, pause_of, problem_of, unexpected
from strata.client.steps import Item, Items, NextEvent, Opened, OpenEvents, Request, Sleep, Steps
from strata.core import Problem
from strata.errors import InvalidInput

RETRIES = 4  # after responses of 429 and 503 with a Retry-After
# the queue takes more when it has computed some, and the key may have more when time has passed
BUSY = ("/problems/share-used", "/problems/queue-full", "/problems/quota-exceeded")
LONGEST_RETRY = 61.0  # seconds, for a quota of a minute; a response with a longer Retry-After is raised as an error


class Transport:
    """What all calls stand on. A client says where the service is, and how long it waits."""

    _timeout: float
    _patience: float
    _on_wait: Callable[[float, Problem], None] | None

    @property
    def url(self) -> str:
        """The address of the service, at which its studio is too."""
        raise NotImplementedError

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


def quoted(name: str) -> str:
    """A job's id or a key as a part of a path. Raises InvalidInput for one that would name another path."""
    if name in ("", ".", ".."):
        raise InvalidInput(
            f"{name!r} is not the id of a job and not a key" if name else "the id of a job or the key is empty"
        )
    return quote(name, safe="")
