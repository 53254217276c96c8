"""Who sends a request: a key (`Authorization: Bearer KEY` or `X-API-Key: KEY`), a session, or a signed link."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.access import lookups
from app.http.access.links import Links
from app.http.access.sessions import Sessions, check_csrf
from app.http.audit import note_audit
from app.http.prefix import is_below_v1, is_link, is_session
from app.problems import ProblemError, tell_storage_fault
from strata.errors import DamagedFile
from strata.keys import Access, KeyRefused, KeyRing
from strata.store import reason_of

_ACCESS = "strata.access"  # where a connection's scope has what its key may do
_REFUSAL = "strata.refusal"  # and why its session has no access any more

_bearer = HTTPBearer(auto_error=False)
_header = APIKeyHeader(name="X-API-Key", auto_error=False)


class KeyCheck:
    """ASGI middleware: without a key nothing below V1 is looked at, neither the body nor whether the path exists.

    What the key may do is left in the connection's scope: `access_of`. The routes of the session are reached without.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, sessions: Sessions, links: Links) -> None:
        self.app, self.keys, self.sessions, self.links = app, keys, sessions, links

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if is_below_v1(scope):
            try:
                await self._find(scope)
            except ProblemError as refusal:
                cause = refusal.__cause__
                if isinstance(cause, OSError):
                    tell_storage_fault(Request(scope), cause, "unavailable")
                if isinstance(cause, KeyRefused) and cause.key_id:
                    note_audit(scope, key=cause.key_id)
                    scope[_REFUSAL] = str(cause)
                if not (isinstance(cause, KeyRefused) and is_session(scope)):
                    await refusal.response()(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _find(self, scope: Scope) -> None:
        """Find who sends the request: by a link, by a key in a header, by a session, in this order."""
        secrets = _secrets_of(Headers(scope=scope))
        with _as_problems():
            if is_link(scope):
                access, via = await self.links.access(scope), "link"
            else:
                found = None if any(secrets) else await self.sessions.access(Request(scope))
                via = "key" if found is None else "session"
                access = found or await access_by_secrets(self.keys, secrets)
        scope[_ACCESS] = access
        note_audit(scope, key=access.key_id, tenant=access.tenant, via=via if access.key_id else None)
        check_csrf(Request(scope))


async def access_by_headers(keys: KeyRing, headers: Headers) -> Access:
    """What a request with these headers may do. Raises ProblemError."""
    return await access_by_secrets(keys, _secrets_of(headers))


async def access_by_secrets(keys: KeyRing, secrets: Sequence[bytes]) -> Access:
    """What the key with one of these secrets may do; empty ones are none. Raises ProblemError."""
    with _as_problems():
        return await lookups.find_access(keys, secrets)


def _secrets_of(headers: Headers) -> list[bytes]:
    """The key of a request, which may be in either header; Starlette decodes headers as Latin-1."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    texts = (bearer.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
    return [text.encode("latin-1") for text in texts]


@contextmanager
def _as_problems() -> Iterator[None]:
    """Convert what the list of keys raises, and what the store does."""
    try:
        yield
    except KeyRefused as error:
        raise ProblemError(error.reason, str(error), headers={"WWW-Authenticate": "Bearer"}) from error
    except OSError as error:
        raise ProblemError("storage-unavailable", f"the list of keys cannot be read now: {reason_of(error)}") from error
    except DamagedFile as error:
        raise ProblemError("damaged-file", str(error)) from error


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


def refusal_of(scope: Scope) -> str | None:
    """Why the session of a request has no access any more; None if it has never had any."""
    return cast("str | None", scope.get(_REFUSAL))


async def documented_key(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> None:
    """A dependency that only adds the two ways to send the key to the OpenAPI document; KeyCheck checks it."""
