"""The limit of a request body: checked against its Content-Length at once, and against its bytes while they arrive."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import ProblemError


class BodyLimit:
    """ASGI middleware. Starlette's own is not used because it answers in plain text instead of with a problem."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # refuse a body that declares to be too large before anything of it is read
        detail = f"the body is larger than {self.limit} bytes"
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self.limit:
            response = ProblemError("body-too-large", detail, headers={"Connection": "close"}).response()
            await response(scope, receive, send)
            return
        # count the bytes of the others: a body in chunks declares no length
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                # an HTTPException, because FastAPI answers any other error while it reads a body with status 400
                raise HTTPException(413, detail, headers={"Connection": "close"})
            return message

        await self.app(scope, receive_counted, send)
