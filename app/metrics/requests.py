"""What is seen of each request: its id, its line in the log, and its place in the metrics."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.prefix import V1
from app.http.security import key_id_of
from strata.logs import FIELDS, log_context
from strata.telemetry import current_trace, span
from strata.telemetry.traces import Note

log = logging.getLogger("app.access")

REQUEST_ID = "X-Request-ID"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})  # asked for every few seconds
_NO_ANSWER = 499  # as nginx logs it: the client went away before the answer began

# method, route, status class, seconds; and how many requests have begun (1) or ended (-1)
Observe = Callable[[str, str, str, float], None]
InFlight = Callable[[int], None]


class RequestLog:
    """ASGI middleware around all others. observe: is told of each request; in_flight: of its beginning and its end.

    Routes are told by their templates, as `/v1/jobs/{job_id}`: neither paths nor queries are logged or counted. A
    request may bring its id in X-Request-ID, from a proxy; the answer has it too.
    """

    def __init__(self, app: ASGIApp, observe: Observe, in_flight: InFlight) -> None:
        self.app, self.observe, self.in_flight = app, observe, in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        brought = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = brought if _ID.fullmatch(brought) else secrets.token_hex(8)
        began, status = time.monotonic(), _NO_ANSWER

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).setdefault(REQUEST_ID, request_id)
            await send(message)

        self.in_flight(1)
        brought_trace = [Headers(scope=scope).get("traceparent", "")]
        with span("request", brought_trace, server=True) as note, log_context(request=request_id, trace=_trace_id()):
            try:
                await self.app(scope, receive, send_observed)
            except Exception:
                status = 500 if status == _NO_ANSWER else status
                raise
            finally:
                self.in_flight(-1)
                self._tell(scope, status, time.monotonic() - began, note)

    def _tell(self, scope: Scope, status: int, seconds: float, note: Note) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = route_of(scope)
        self.observe(method, route, f"{status // 100}xx", seconds)
        # OpenTelemetry's names for them
        told = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        note(f"{method} {route}", **told)
        fields: dict[str, Any] = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 1)}
        fields |= {name: text for name, text in (("key", key_id_of(scope)), ("job", _job_of(scope))) if text}
        level = logging.DEBUG if route in _PROBES else logging.INFO
        who = "".join(f" {name}={fields[name]}" for name in ("key", "job") if name in fields)
        log.log(level, "%s %s %d %.0f ms%s", method, route, status, seconds * 1000, who, extra={FIELDS: fields})


def route_of(scope: Scope) -> str:
    """The template of the route that a request has reached; "other" if none."""
    template = str(getattr(scope.get("route"), "path", None) or "")
    # FastAPI tells the template without the prefix of the router that includes the route's router
    versioned = scope["path"].removeprefix(scope.get("root_path", "")).startswith(f"{V1}/")
    prefix = V1 if template and versioned and not template.startswith(f"{V1}/") else ""
    return prefix + template or "other"


def _job_of(scope: Scope) -> str:
    found = str(scope.get("path_params", {}).get("job_id", ""))
    return found if _ID.fullmatch(found) else ""


def _trace_id() -> str:
    """The id of the current trace, by which lines of the log are found; empty without traces."""
    return current_trace()[3:35]
