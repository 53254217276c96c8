"""`Idempotency-Key`: a request that is sent twice is executed once; the second one gets the first response again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from app.dependencies import services
from app.http.scopes import ScopedRoute
from app.http.security import access_of
from app.problems import ProblemError
from strata.core import DEFAULT_TENANT
from strata.errors import QueueUnavailable
from strata.queue import IdempotencyKeys

log = logging.getLogger(__name__)

MAX_KEY = 255  # characters
_REPLAYED = ("location", "content-location", "preference-applied")  # the headers that are stored with a response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Attempt:
    """One request with a key. key: a hash of path and header; body: a hash of the request's body."""

    keys: IdempotencyKeys
    key: str
    body: str

    def begin(self) -> Response | None:
        """The response to replay, or None if the request is to be executed. Raises ProblemError."""
        existing = self.keys.begin(self.key, json.dumps({"body": self.body, "answer": None}))
        if existing is None:
            return None
        # the key is in use: compare the bodies, then check whether the first response is stored
        kept = json.loads(existing)
        if kept["body"] != self.body:
            raise ProblemError("idempotency-key-reused", "this Idempotency-Key was used for another body")
        if kept["answer"] is None:
            detail = "the first request with this Idempotency-Key is still being processed"
            raise ProblemError("idempotency-key-in-flight", detail, headers={"Retry-After": "1"})
        stored = kept["answer"]
        headers = {**stored["headers"], "Idempotency-Replayed": "true"}
        return Response(stored["content"], stored["status"], headers, media_type=stored["media_type"])

    def keep(self, response: Response) -> None:
        """Store a successful response. Any other frees the key, because the request had no effect."""
        if not 200 <= response.status_code < 300:
            self.free()
            return
        stored = {
            "status": response.status_code,
            "content": bytes(response.body).decode(),
            "media_type": response.headers["content-type"],
            "headers": {name: response.headers[name] for name in _REPLAYED if name in response.headers},
        }
        self.keys.keep(self.key, json.dumps({"body": self.body, "answer": stored}))

    def free(self) -> None:
        """Release the key, so that another request can use it."""
        self.keys.free(self.key)


class IdempotentRoute(ScopedRoute):
    """A route whose requests may have an `Idempotency-Key`. Its responses must not be streamed."""

    def get_route_handler(self) -> Handler:
        """The route's handler, wrapped so that a request with a key is executed once."""
        handle = super().get_route_handler()

        async def handle_once(request: Request) -> Response:
            self.check(request)  # before the body is read
            key = request.headers.get("idempotency-key")
            if key is None or request.method != "POST":
                return await handle(request)
            return await _handle_once(handle, request, key)

        return handle_once


async def _handle_once(handle: Handler, request: Request, key: str) -> Response:
    if not 0 < len(key) <= MAX_KEY:
        raise ProblemError("invalid-request", f"Idempotency-Key: it must have 1 to {MAX_KEY} characters", [])
    # reserve the key, or replay the response to the first request with it
    # tenants have keys of their own, as the answers are theirs
    tenant = access_of(request).tenant
    own = "" if tenant == DEFAULT_TENANT else f"{tenant}\0"
    hashed = hashlib.sha256(f"{own}{request.url.path}\0{key}".encode()).hexdigest()
    attempt = Attempt(services(request).queue.idempotency_keys, hashed, await _body_hash(request))
    replay = await run_in_threadpool(attempt.begin)
    if replay is not None:
        return replay
    # execute the request; if it fails, release the key, so that the caller can use it again
    try:
        response = await handle(request)
    except Exception:
        with suppress(QueueUnavailable):
            await run_in_threadpool(attempt.free)
        raise
    # store the response; if that fails, the request was executed nevertheless, and its response is valid
    try:
        await run_in_threadpool(attempt.keep, response)
    except QueueUnavailable as error:
        log.warning("a response could not be stored for its Idempotency-Key: %s", error)
    return response


async def _body_hash(request: Request) -> str:
    """A hash of the body. A multipart boundary is not hashed, because clients generate a new one for each request."""
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    boundary = str(message.get_param("boundary") or "").encode("utf-8", "replace")
    body = await request.body()
    if boundary and message.get_content_type() == "multipart/form-data":
        body = body.replace(boundary, b"")
    return hashlib.sha256(message.get_content_type().encode() + b"\0" + body).hexdigest()
