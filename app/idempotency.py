"""`Idempotency-Key`: a request that is sent twice is done once, and its second sending gets the first one's answer."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any, cast

import redis
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from app.dependencies import services
from app.problems import ProblemError
from app.security import check_key
from strata.queue import keys
from strata.queue.broker import Broker

log = logging.getLogger(__name__)

DAY = 86_400  # seconds for which an answer is kept
IN_FLIGHT = 300  # seconds after which a request whose process died frees its key; longer than the longest wait
MAX_KEY = 255
_REPLAYED = ("location", "content-location", "preference-applied")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Attempt:
    """One use of a key. name: the key in Redis; body: hash of what was asked."""

    broker: Broker
    name: str
    body: str

    def begin(self) -> Response | None:
        """The answer to replay, or None if the request is to be done. Raises ProblemError."""
        mine = json.dumps({"body": self.body, "answer": None})
        if self.broker.redis.set(self.name, mine, nx=True, ex=IN_FLIGHT):
            return None
        there = cast("str | None", self.broker.redis.get(self.name))
        if there is None:  # it ended this very moment
            return self.begin()
        kept = json.loads(there)
        if kept["body"] != self.body:
            raise ProblemError("idempotency-key-reused", "this Idempotency-Key was used for another body")
        if kept["answer"] is None:
            detail = "the first request with this Idempotency-Key is not answered yet"
            raise ProblemError("idempotency-key-in-flight", detail, headers={"Retry-After": "1"})
        answer = kept["answer"]
        headers = {**answer["headers"], "Idempotency-Replayed": "true"}
        return Response(answer["content"], answer["status"], headers, media_type=answer["media_type"])

    def keep(self, response: Response) -> None:
        """Remember an answer of success for a day; any other frees the key, since nothing was done."""
        if not 200 <= response.status_code < 300:
            self.free()
            return
        answer = {
            "status": response.status_code,
            "content": bytes(response.body).decode(),
            "media_type": response.headers["content-type"],
            "headers": {name: response.headers[name] for name in _REPLAYED if name in response.headers},
        }
        self.broker.redis.set(self.name, json.dumps({"body": self.body, "answer": answer}), ex=DAY)

    def free(self) -> None:
        """Let the key be used again."""
        self.broker.redis.delete(self.name)


class IdempotentRoute(APIRoute):
    """A route whose requests may carry an `Idempotency-Key`. Its answers must not be streamed."""

    def get_route_handler(self) -> Handler:
        """The route's handler, wrapped."""
        handle = super().get_route_handler()

        async def once(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if key is None or request.method != "POST":
                return await handle(request)
            return await _once(handle, request, key)

        return once


async def _once(handle: Handler, request: Request, key: str) -> Response:
    if not 0 < len(key) <= MAX_KEY:
        raise ProblemError("invalid-request", f"Idempotency-Key: 1 to {MAX_KEY} characters are taken", [])
    given = services(request)
    check_key(request)  # dependencies run later, and an answer must not be replayed to a stranger
    place = hashlib.sha256(f"{request.url.path}\0{key}".encode()).hexdigest()
    attempt = Attempt(given.broker, keys.idempotency(place), await _body_hash(request))
    replay = await run_in_threadpool(attempt.begin)
    if replay is not None:
        return replay
    try:
        response = await handle(request)
    except Exception:
        with suppress(redis.RedisError):
            await run_in_threadpool(attempt.free)
        raise
    try:
        await run_in_threadpool(attempt.keep, response)
    except redis.RedisError as error:  # what was done is done, and its answer is true
        log.warning("an answer could not be kept for its Idempotency-Key: %s", error)
    return response


async def _body_hash(request: Request) -> str:
    """Hash of the body; of a multipart body without its boundary, which every sending draws anew."""
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    boundary = str(message.get_param("boundary") or "").encode("utf-8", "replace")
    body = await request.body()
    if boundary and message.get_content_type() == "multipart/form-data":
        body = body.replace(boundary, b"")
    return hashlib.sha256(message.get_content_type().encode() + b"\0" + body).hexdigest()
