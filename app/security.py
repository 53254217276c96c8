"""The API key: `Authorization: Bearer KEY` or `X-API-Key: KEY`; and who has sent a request."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
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


async def caller_of(request: Request) -> str:
    """Whose turns a request takes in the queue: an opaque text for its API key and its client's address.

    An IPv6 network of 64 bits counts as one address, because one host has all of it.
    """
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        network = host
    else:
        network = str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
    # the key is one that was checked: any other text would let a client be as many callers as it likes
    key = services(request).settings.api_key
    return hashlib.sha256(f"{key.get_secret_value() if key else ''}\0{network}".encode()).hexdigest()[:16]


Caller = Annotated[str, Depends(caller_of)]
