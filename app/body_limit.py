"""The largest request body: refused by its Content-Length at once, and by its bytes while they come."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import ProblemError


class BodyLimit:
    """ASGI middleware. (Starlette's own answers in plain text where this service owes a problem.)"""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        detail = f"the body is larger than {self.limit} bytes"
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self.limit:
            response = ProblemError("body-too-large", detail, headers={"Connection": "close"}).response()
            await response(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                # an HTTPException, because FastAPI turns every other error while it reads a body into a 400
                raise HTTPException(413, detail, headers={"Connection": "close"})
            return message

        await self.app(scope, counted, send)
