"""The API key: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.audit import note_audit
from app.http.prefix import is_below_v1
from app.problems import ProblemError, tell_storage_fault
from strata.keys import Access, KeyRefused, KeyRing
from strata.store import reason_of

_ACCESS = "strata.access"  # where a connection's scope has what its key may do

_bearer = HTTPBearer(auto_error=False)
_header = APIKeyHeader(name="X-API-Key", auto_error=False)


class KeyCheck:
    """ASGI middleware: without a key nothing below V1 is looked at, neither the body nor whether the path exists.

    What the key may do is left in the connection's scope: `access_of`.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if is_below_v1(scope):
            try:
                access = scope[_ACCESS] = await find_access(self.keys, Headers(scope=scope))
            except ProblemError as refusal:
                cause = refusal.__cause__
                if isinstance(cause, OSError):
                    tell_storage_fault(Request(scope), cause, "unavailable")
                note_audit(scope, key=cause.key_id if isinstance(cause, KeyRefused) and cause.key_id else None)
                await refusal.response()(scope, receive, send)
                return
            note_audit(scope, key=access.key_id, tenant=access.tenant)
        await self.app(scope, receive, send)


async def find_access(keys: KeyRing, headers: Headers) -> Access:
    """What a request with these headers may do. Raises ProblemError."""
    # the key may be in either header; Starlette decodes headers as Latin-1
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    texts = (bearer.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
    secrets = [text.encode("latin-1") for text in texts]
    try:
        # mostly the list of keys was read lately; a thread waits for the store
        access = keys.known(secrets)
        return access if access is not None else await run_in_threadpool(keys.find, secrets)
    except KeyRefused as error:
        raise ProblemError(error.reason, str(error), headers={"WWW-Authenticate": "Bearer"}) from error
    except OSError as error:
        raise ProblemError("storage-unavailable", f"the list of keys cannot be read now: {reason_of(error)}") from error


def found_access(scope: Scope) -> Access | None:
    """What the key of a request may do; None if it was not asked for one, or refused."""
    access = scope.get(_ACCESS)
    return access if isinstance(access, Access) else None


def key_id_of(scope: Scope) -> str:
    """The id of the key of a request; empty if it has none, or needs none."""
    access = found_access(scope)
    return access.key_id if access is not None else ""


async def still_holds(keys: KeyRing, access: Access) -> bool:
    """Whether an access may still be used: its key may have been revoked, or have expired. Raises OSError."""
    held = keys.holds(access)
    if held is None:
        await run_in_threadpool(keys.renew)
        held = keys.holds(access)
    return bool(held)


def access_of(request: Request) -> Access:
    """What the key of a request below V1 may do."""
    return cast(Access, request.scope[_ACCESS])


async def documented_key(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> None:
    """A dependency that only adds the two ways to send the key to the OpenAPI document; KeyCheck checks it."""
