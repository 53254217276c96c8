"""The quotas of API keys: 429 when one is used up, and the headers that tell how they stand.

`RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.security import found_access
from app.problems import quota_problem
from strata.errors import QueueUnavailable, QuotaExceeded
from strata.queue import FOR_EVER, Quota, Windows
from strata.quotas import KeyUse, State

_USE = "strata.use"  # where a connection's scope has its KeyUse
_UNITS = {"bytes": "content-bytes"}  # by the quota; others count requests, each of which is one image at most


class QuotaCheck:
    """ASGI middleware: counts the requests of keys that may send so many a minute only.

    A key without quotas costs nothing. upload_days: for how long uploads are kept; None: for ever.
    """

    def __init__(self, app: ASGIApp, windows: Windows, upload_days: float | None) -> None:
        self.app, self.windows, self.upload_days = app, windows, upload_days

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        access = found_access(scope)
        if access is None or not access.stored_key:
            await self.app(scope, receive, send)
            return
        use = scope[_USE] = KeyUse(self.windows, access.stored_key, access.quotas, self.upload_days)
        if not access.quotas.exist:
            await self.app(scope, receive, send)
            return

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start" and use.states:
                told = [(name.encode(), text.encode()) for name, text in headers_of(use.states.items())]
                message = {**message, "headers": [*message["headers"], *told]}
            await send(message)

        if access.quotas.requests_a_minute is not None:
            try:
                # while Redis is away, the routes that need it say so
                with suppress(QueueUnavailable):
                    await run_in_threadpool(use.request)
            except QuotaExceeded as error:
                await quota_problem(error).response()(scope, receive, send_told)
                return
        await self.app(scope, receive, send_told)


def headers_of(states: Iterable[tuple[Quota, State]]) -> list[tuple[str, str]]:
    """The headers of an answer that tell how quotas stand."""
    policies, limits = [], []
    for quota, (most, use) in states:
        unit = f';qu="{_UNITS[quota.name]}"' if quota.name in _UNITS else ""
        window = f";w={quota.seconds}" if quota.seconds != FOR_EVER else ""
        policies.append(f'"{quota.name}";q={most}{unit}{window}')
        limits.append(f'"{quota.name}";r={use.left}' + (f";t={use.after}" if use.after is not None else ""))
    return [("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(limits))]


async def _use_of(request: Request) -> KeyUse | None:
    use = request.scope.get(_USE)
    return use if isinstance(use, KeyUse) else None


# what the request uses of the quotas of its key; None: its key has none and can have none
UseDep = Annotated[KeyUse | None, Depends(_use_of)]
