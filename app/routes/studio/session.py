"""`/v1/session`: people sign in to the studio with a key, see as whom they are signed in, and sign out."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from app.dependencies import Services, ServicesDep
from app.http.access.sessions import SignedIn, session_of
from app.http.audit import note_audit
from app.http.networks import network_of
from app.http.prefix import SESSION
from app.http.scopes import ScopedRoute
from app.http.security import access_by_secrets, found_access, refusal_of
from app.problems import PROBLEM_RESPONSES, ProblemError
from strata.keys import OPEN, Access, KeyRefused, Scope

router = APIRouter(route_class=ScopedRoute, prefix=SESSION, responses=PROBLEM_RESPONSES)

_UNKNOWN = "the service knows no such key; check that you have the whole key, and no other"


class SignIn(BaseModel):
    """What a person signs in with."""

    model_config = ConfigDict(extra="forbid")

    key: SecretStr = Field(min_length=1, max_length=1000)


class SessionView(BaseModel):
    """As whom a request comes.

    state: `open`, no key is needed; `signed_in`, by the cookie; `key`, by a key in a header; `signed_out`, a key is
    needed and there is none; reason says why, if there was one. name: of the key. csrf_token: to be sent in the header
    `X-CSRF-Token` with each request that changes something.
    """

    state: Literal["open", "signed_in", "key", "signed_out"]
    key: str | None = None
    name: str | None = None
    tenant: str | None = None
    scopes: list[Scope] = []
    expires_at: datetime | None = None
    csrf_token: str | None = None
    reason: str | None = None


@router.get("")
async def show_session(request: Request, given: ServicesDep) -> SessionView:
    """As whom the request comes: by a session, by a key in a header, or by none."""
    access = found_access(request.scope)
    if access is None:
        return SessionView(state="signed_out", reason=refusal_of(request.scope))
    return _view(given, access, session_of(request.scope))


@router.post("")
async def sign_in(body: SignIn, request: Request, response: Response, given: ServicesDep) -> SessionView:
    """Begin a session with a key: a cookie for the browser, which ends after twelve hours or with the key.

    After five wrong keys a network has to wait longer and longer. Programs send their key in a header instead.
    """
    network = network_of(request.client.host if request.client else "")
    given.attempts.begin(network)
    try:
        access = await access_by_secrets(given.keys, [body.key.get_secret_value().strip().encode()])
    except ProblemError as error:
        refused = error.__cause__
        if not isinstance(refused, KeyRefused):
            given.attempts.withdraw(network)
            raise
        note_audit(request.scope, key=refused.key_id or None)
        raise ProblemError(error.name, str(refused) if refused.key_id else _UNKNOWN) from error
    given.attempts.succeeded(network)
    if access is OPEN:
        return _view(given, access, None)
    note_audit(request.scope, key=access.key_id, tenant=access.tenant, via="session")
    return _view(given, access, await given.sessions.begin(request, response, access))


@router.delete("", status_code=204)
async def sign_out(request: Request, response: Response, given: ServicesDep) -> None:
    """End the session. Harmless without one."""
    await given.sessions.end(request, response)


def _view(given: Services, access: Access, found: SignedIn | None) -> SessionView:
    facts = given.keys.facts(access.key_id)
    return SessionView(
        state="signed_in" if found else "open" if access is OPEN else "key",
        key=access.key_id or None,
        name=facts.name if facts else None,
        tenant=access.tenant,
        scopes=sorted(access.scopes),
        expires_at=found.session.expires_at if found else facts.expires_at if facts else None,
        csrf_token=found.csrf_token if found else None,
    )
