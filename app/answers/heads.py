"""`HEAD` is answered as `GET`, without the body (RFC 9110, section 9.3.2): FastAPI's routes have no answer to it."""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class Heads:
    """ASGI middleware: what it contains sees a GET without a range."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        # in the scope itself: what lies around reads from it afterwards which route was reached
        scope["method"], headers = "GET", scope["headers"]
        scope["headers"] = [pair for pair in headers if pair[0] != b"range"]  # which only GET has
        try:
            with anyio.CancelScope() as asked:
                await self.app(scope, receive, _without_body(send, asked))
        finally:
            scope["method"], scope["headers"] = "HEAD", headers


def _without_body(send: Send, asked: anyio.CancelScope) -> Send:
    """Send the head of an answer, and end one whose body is made piece by piece, as that of events."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
        elif message["type"] == "http.response.body" and not asked.cancel_called:
            await send(_END)
            if message.get("more_body", False):
                asked.cancel()

    return send_head
