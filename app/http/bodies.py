"""The size limit of request bodies, applied to the Content-Length first, and to the bytes as they are received."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import ProblemError


class BodyLimit:
    """ASGI middleware. Starlette's own is not used because its response is plain text instead of a problem."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # a declared length over the limit: respond before any of the body is read
        detail = f"the body is larger than {self.limit} bytes"
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self.limit:
            response = ProblemError("body-too-large", detail, headers={"Connection": "close"}).response()
            await response(scope, receive, send)
            return
        # count the bytes of all other bodies: one with chunked encoding declares no length
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                # an HTTPException, because FastAPI responds with status 400 to any other error while it reads a body
                raise HTTPException(413, detail, headers={"Connection": "close"})
            return message

        await self.app(scope, receive_counted, send)
