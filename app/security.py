"""The API key: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.dependencies import services
from app.problems import ProblemError

_bearer = HTTPBearer(auto_error=False)
_header = APIKeyHeader(name="X-API-Key", auto_error=False)


def check_key(request: Request) -> None:
    """Check that a request carries the configured key, if there is one. Raises ProblemError if it does not."""
    wanted = services(request).settings.api_key
    if wanted is None:
        return
    # the key may be in either header
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = (bearer.strip() if scheme.lower() == "bearer" else "", request.headers.get("x-api-key", ""))
    # Starlette decodes headers as Latin-1. Both headers are always compared, and in constant time, so that the response
    # time reveals nothing about the key
    matches = [hmac.compare_digest(text.encode("latin-1"), wanted.get_secret_value().encode()) for text in given]
    if not any(matches):
        detail = "send the API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
        raise ProblemError("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


async def require_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> None:
    """`check_key` as a dependency. The other parameters only add the two ways to send a key to the OpenAPI document."""
    check_key(request)
