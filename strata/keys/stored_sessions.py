"""The sessions of people who have signed in with a key: `sessions/END-ID.json` in the store, END in seconds of Unix.

A browser holds a token, as a program holds a key. The file has a hash of the token and of its key's own hash: reading
the store gives nobody a session, and another key of the same name (as when STRATA_API_KEY is changed) ends it. The
end of a token follows from the rest and a secret, so that the store is not asked for tokens that somebody made up.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from strata.errors import DamagedFile
from strata.keys.key import digest_of
from strata.keys.key_ring import FRESH_SECONDS, STALE_SECONDS
from strata.store import Store

log = logging.getLogger(__name__)

FOLDER = "sessions"
SESSION_TIME = timedelta(hours=12)
_SUFFIX = ".json"
_NAME = re.compile(r"[0-9]{10}-[0-9a-f]{16}")
_TOKEN = re.compile(rf"(({_NAME.pattern})\.[A-Za-z0-9_-]{{43}})\.([0-9a-f]{{32}})")


class Session(BaseModel):
    """A session as the store keeps it. key: the id of the key that has made it."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(pattern="^([0-9a-f]{12}|operator)$")
    created_at: AwareDatetime
    expires_at: AwareDatetime
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def fits(self, token: str, key_digest: str) -> bool:
        """Whether it was made for this token, by a key whose secret has this hash."""
        return hmac.compare_digest(self.sha256, _digest(token, key_digest))


@dataclass
class _Kept:
    """A session as it was read. tried_at: when that was tried last; both on the monotonic clock."""

    session: Session
    read_at: float
    tried_at: float


class StoredSessions:
    """The sessions of one store. Thread-safe. secret: that of `StoredKeys`, which all processes share.

    What the store has to be asked for raises OSError if it is away, and DamagedFile if the secret cannot be used.
    """

    def __init__(self, store: Store, secret: Callable[[], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        self.store, self._secret = store, secret
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def create(self, key: str, key_digest: str, key_expires_at: datetime | None) -> tuple[Session, str]:
        """Make and store a session of a key; returns it with its token. It ends with its key, or after SESSION_TIME."""
        now = datetime.now(UTC)
        end = min(now + SESSION_TIME, key_expires_at or datetime.max.replace(tzinfo=UTC)).replace(microsecond=0)
        name = f"{int(end.timestamp()):010d}-{secrets.token_hex(8)}"
        start = f"{name}.{secrets.token_urlsafe(32)}"
        token = f"{start}.{self._check(start)}"
        session = Session(key=key, created_at=now, expires_at=end, sha256=_digest(token, key_digest))
        self.store.put_new(self._path(name), session.model_dump_json().encode())
        self._keep(name, session)
        with suppress(OSError):  # the session is there, and the next one removes what has expired
            self._sweep(now)
        return session, token

    def known(self, token: str) -> Session | None:
        """The session with this name as it was read lately; None if the store is to be asked. It does not wait."""
        kept = self._kept.get(_name_of(token))
        if kept is None or self._clock() - kept.tried_at >= FRESH_SECONDS:
            return None
        return _unless_over(kept.session)

    def find(self, token: str) -> Session | None:
        """The session with the name that a token has; None if there is none. `Session.fits` says whether it is its own.

        While the store cannot be read, what was read in the last minute is believed.
        """
        found = _TOKEN.fullmatch(token)
        if found is None or int(token[:10]) <= time.time() or not hmac.compare_digest(self._check(found[1]), found[3]):
            return None
        name = found[2]
        try:
            session = self.store.parse(f"{FOLDER}/{name}{_SUFFIX}", Session)
        except (FileNotFoundError, DamagedFile) as error:
            if isinstance(error, DamagedFile):
                log.error("a session cannot be used: %s", error)
            self._forget(name)
            return None
        except OSError:
            kept = self._kept.get(name)
            if kept is None or self._clock() - kept.read_at >= STALE_SECONDS:
                raise
            kept.tried_at = self._clock()
            return _unless_over(kept.session)
        self._keep(name, session)
        return _unless_over(session)

    def end(self, token: str) -> None:
        """End a session. Other processes notice it within FRESH_SECONDS. Harmless if it has ended before."""
        name = _name_of(token)
        if name:
            self._forget(name)
            self.store.remove(self._path(name))

    def _check(self, start: str) -> str:
        """The end of a token that begins so: 128 bits as hexadecimal digits."""
        return hmac.digest(self._secret(), b"session " + start.encode(), "sha256").hex()[:32]

    def _keep(self, name: str, session: Session) -> None:
        now = self._clock()
        with self._lock:
            lasting = {one: kept for one, kept in self._kept.items() if _unless_over(kept.session)}
            self._kept = lasting | {name: _Kept(session, now, now)}

    def _forget(self, name: str) -> None:
        with self._lock:
            self._kept.pop(name, None)

    def _sweep(self, now: datetime) -> None:
        """Remove the sessions that have expired. It takes one listing."""
        for file in self.store.names(FOLDER):
            name = file.removesuffix(_SUFFIX)
            if _NAME.fullmatch(name) and int(name[:10]) <= now.timestamp():
                self.store.remove(self._path(name))

    def _path(self, name: str) -> str:
        return self.store.path(FOLDER, f"{name}{_SUFFIX}")


def _name_of(token: str) -> str:
    """The name of a token's session, which may become part of a path; empty if the text has not the form of a token."""
    found = _TOKEN.fullmatch(token)
    return found[2] if found else ""


def _digest(token: str, key_digest: str) -> str:
    return digest_of(f"{token} {key_digest}".encode())


def _unless_over(session: Session) -> Session | None:
    return session if session.expires_at > datetime.now(UTC) else None
