"""The limits of one request, and of the bodies of all requests in memory; applied before anything is parsed."""

from __future__ import annotations

import re

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.limits import (
    BODY_BYTES_IN_FLIGHT,
    MAX_HEADERS,
    MAX_JSON_DEPTH,
    MAX_JSON_KEYS,
    MAX_JSON_VALUES,
    MAX_QUERY_PARAMETERS,
)
from app.problems import ProblemError

_LARGE = 2**16  # bytes of JSON that are looked at in a thread
_HELD = "strata.body"  # where a request's scope has its Body
# a string of JSON, or one of its other marks; an unfinished string reaches to the end
_JSON_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},:]', re.DOTALL)


class BodyBudget:
    """The bytes of all bodies that are in memory. Use it in one event loop."""

    def __init__(self, most: int = BODY_BYTES_IN_FLIGHT) -> None:
        self.most, self.used = most, 0


class Body:
    """What one request has taken of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self.budget, self.size = budget, 0

    def take(self, size: int) -> None:
        """Take more of the budget. Raises HTTPException (503) if it is used up; the only body may have more."""
        others = self.budget.used - self.size
        if others and self.budget.used + size > self.budget.most:
            self.release()  # at once, else all others would fail too before this request has ended
            raise HTTPException(503, "the service has the bodies of too many requests in memory; send it again later")
        self.size += size
        self.budget.used += size

    def release(self) -> None:
        """Give all back."""
        self.budget.used -= self.size
        self.size = 0


async def forget_body(request: Request) -> None:
    """Free the memory of a request's body, whose content is not needed any more, and its part of the budget."""
    await request.close()  # the files of a form
    request._body = b""
    request.scope[_HELD].release()


class RequestLimits:
    """ASGI middleware. Starlette's own is not used because its response is plain text instead of a problem.

    most: the largest body, in bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most, self.budget = app, most, BodyBudget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # what the head tells: respond before any of the body is read
        refusal = _refuse_head(scope) or self._refuse_length(scope)
        if refusal:
            await refusal.response()(scope, receive, send)
            return
        # count the bytes as they come: a body with chunked encoding declares no length
        body = scope[_HELD] = Body(self.budget)
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            if received > self.most:
                # an HTTPException, because FastAPI responds with status 400 to any other error while it reads a body
                raise HTTPException(413, self._too_large(), headers={"Connection": "close"})
            body.take(size)
            return message

        async def receive_json() -> Message:
            return await _checked_json(receive_counted)

        try:
            await self.app(scope, receive_json if _is_json(scope) else receive_counted, send)
        finally:
            body.release()

    def _refuse_length(self, scope: Scope) -> ProblemError | None:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) <= self.most:
            return None
        return ProblemError("body-too-large", self._too_large(), headers={"Connection": "close"})

    def _too_large(self) -> str:
        return f"the body is larger than {self.most} bytes"


def _refuse_head(scope: Scope) -> ProblemError | None:
    if len(scope["headers"]) > MAX_HEADERS:
        return ProblemError("headers-too-large", f"the request has more than {MAX_HEADERS} headers")
    if scope["query_string"].count(b"&") >= MAX_QUERY_PARAMETERS:
        return ProblemError("invalid-request", f"the URL has more than {MAX_QUERY_PARAMETERS} parameters", [])
    return None


def _is_json(scope: Scope) -> bool:
    media_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return b"json" in media_type.partition(b";")[0].lower()


async def _checked_json(receive: Receive) -> Message:
    """The whole body as one message, if it can be parsed within bounds. Raises HTTPException (422) if it cannot."""
    read = bytearray()  # not a list of pieces, which would need more memory than the body if each has one byte
    message = await receive()
    while message["type"] == "http.request":
        read += message.get("body", b"")
        if not message.get("more_body", False):
            break
        message = await receive()
    # a client that went away
    if message["type"] != "http.request":
        return message
    body = bytes(read)
    fault = json_fault(body) if len(body) < _LARGE else await run_in_threadpool(json_fault, body)
    if fault:
        raise HTTPException(422, fault)
    return {"type": "http.request", "body": body, "more_body": False}


def json_fault(body: bytes) -> str:
    """Why a JSON text is not parsed; empty if it may be. It is read once and nothing is built of it.

    A parser needs up to 30 bytes of memory for a byte of `[[],[],…`, and its stack for the depth; pydantic makes an
    error for each unknown key.
    """
    # RFC 8259 requires UTF-8; a text of another encoding has zeros, and could hide its brackets from what follows
    if b"\0" in body:
        return "JSON must be UTF-8"
    # at least as many as there are: most texts need no closer look
    opened, commas = body.count(b"[") + body.count(b"{"), body.count(b",")
    if opened <= MAX_JSON_DEPTH and opened + commas <= MAX_JSON_VALUES and body.count(b":") <= MAX_JSON_KEYS:
        return ""
    # without those within strings
    depth = values = keys = 0
    for tokens, match in enumerate(_JSON_TOKEN.finditer(body)):
        mark = match[0][:1]
        depth += (mark in b"[{") - (mark in b"]}")
        values += mark in b"[{,"
        keys += mark == b":"
        if depth > MAX_JSON_DEPTH:
            return f"the JSON is nested deeper than {MAX_JSON_DEPTH} levels"
        if keys > MAX_JSON_KEYS:
            return f"the JSON has more than {MAX_JSON_KEYS} keys"
        # what is no JSON can have strings without commas between them
        if values > MAX_JSON_VALUES or tokens > 4 * MAX_JSON_VALUES:
            return f"the JSON has more than {MAX_JSON_VALUES} values"
    return ""
