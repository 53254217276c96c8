"""The API key: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.problems import ProblemError

V1 = "/v1"  # the prefix of what needs the key

_bearer = HTTPBearer(auto_error=False)
_header = APIKeyHeader(name="X-API-Key", auto_error=False)


class KeyCheck:
    """ASGI middleware: without the key nothing below V1 is looked at, neither the body nor whether the path exists.

    key: None means that none is needed.
    """

    def __init__(self, app: ASGIApp, key: SecretStr | None) -> None:
        self.app, self.key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        needed = scope["type"] == "http" and f"{scope['path']}/".startswith(f"{scope.get('root_path', '')}{V1}/")
        if needed and not is_authorized(Headers(scope=scope), self.key):
            detail = "send the API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            response = ProblemError("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"}).response()
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_authorized(headers: Headers, key: SecretStr | None) -> bool:
    """Whether a request has the key, or none is needed."""
    if key is None:
        return True
    # the key may be in either header
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = (bearer.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
    # Starlette decodes headers as Latin-1. Both headers are always compared, and in constant time, so that the response
    # time reveals nothing about the key
    matches = [hmac.compare_digest(text.encode("latin-1"), key.get_secret_value().encode()) for text in given]
    return any(matches)


async def documented_key(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> None:
    """A dependency that only adds the two ways to send the key to the OpenAPI document; KeyCheck checks it."""
