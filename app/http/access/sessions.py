"""The session of a person who has signed in to the studio: a cookie that no script can read.

A browser sends the cookie with each request, also with one that a page of somebody else has caused. `SameSite=Strict`
and `BrowserGuard` keep those away; what changes something also needs a token that only the studio's own page can read.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from app.http.access.lookups import find_access, find_facts
from app.problems import ProblemError
from strata.keys import Access, KeyRing, Session, StoredSessions

COOKIE = "strata_session"
CSRF_HEADER = "X-CSRF-Token"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
_FOUND = "strata.session"  # where a connection's scope has its SignedIn
_PORT = re.compile(r":([0-9]{1,5})$")


@dataclass(frozen=True)
class SignedIn:
    """A session with the token that its browser holds."""

    session: Session
    token: str

    @property
    def csrf_token(self) -> str:
        """What a request that changes something has to repeat in CSRF_HEADER; the token does not follow from it."""
        return hmac.digest(self.token.encode(), b"csrf", "sha256").hex()


class Sessions:
    """Finds the session of a request, and what its key may do."""

    def __init__(self, keys: KeyRing, stored: StoredSessions) -> None:
        self.keys, self.stored = keys, stored

    async def access(self, request: Request) -> Access | None:
        """What the key of the request's session may do now; None without a session.

        Raises KeyRefused if its key was revoked or has expired since, and OSError if the store is away.
        """
        token = request.cookies.get(_cookie_name(request), "")
        if not token:
            return None
        session = self.stored.known(token) or await run_in_threadpool(self.stored.find, token)
        if session is None:
            return None
        facts = await find_facts(self.keys, session.key)
        if facts is None or not session.fits(token, facts.digest):
            return None
        access = await find_access(self.keys, digests=[facts.digest])
        request.scope[_FOUND] = SignedIn(session, token)
        return access

    async def begin(self, request: Request, response: Response, access: Access) -> SignedIn:
        """Make a session of a key, and let the response set its cookie."""
        facts = self.keys.facts(access.key_id)
        assert facts is not None  # the key was found just now
        session, token = await run_in_threadpool(self.stored.create, access.key_id, facts.digest, facts.expires_at)
        seconds = int((session.expires_at - session.created_at).total_seconds())
        _set_cookie(request, response, token, seconds)
        return SignedIn(session, token)

    async def end(self, request: Request, response: Response) -> None:
        """End the request's session, if it has one, and let the response remove the cookie."""
        found = session_of(request.scope)
        if found is not None:
            await run_in_threadpool(self.stored.end, found.token)
        _set_cookie(request, response, "", 0)


def session_of(scope: Scope) -> SignedIn | None:
    """The session by which a request has its access; None if it has another way, or none."""
    found = scope.get(_FOUND)
    return found if isinstance(found, SignedIn) else None


def check_csrf(request: Request) -> None:
    """Raise ProblemError if a request with the cookie of a session changes something, and has not its other token."""
    found = session_of(request.scope)
    if found is None or request.method in READING:
        return
    sent = request.headers.get(CSRF_HEADER, "")
    # as bytes, because a header may have characters that compare_digest refuses in texts
    if not hmac.compare_digest(found.csrf_token.encode(), sent.encode()):
        detail = f"the header {CSRF_HEADER} is {'wrong' if sent else 'missing'}: `GET /v1/session` tells the right one"
        raise ProblemError("wrong-csrf-token", detail)


def _cookie_name(request: Request) -> str:
    """COOKIE with the port that the browser has called, because all ports of a host share their cookies."""
    port = _PORT.search(request.headers.get("host", ""))
    return f"{COOKIE}_{port[1]}" if port else COOKIE


def _set_cookie(request: Request, response: Response, value: str, seconds: int) -> None:
    """Set the cookie, without a path: then it has that of the request up to the last slash, as the browser sees it.

    So it is sent to what lies below `/v1/` alone, also behind a proxy that strips a prefix. A page that came over TLS
    has an origin with https, also if the proxy that ends TLS does not tell.
    """
    secure = "https" in (request.url.scheme, request.headers.get("origin", "").partition("://")[0])
    name = _cookie_name(request)
    response.set_cookie(name, value, seconds, path=None, secure=secure, httponly=True, samesite="strict")
