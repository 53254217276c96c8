"""Sessions in the store: what a token finds, how they end, and that reading the store gives nobody one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strata.errors import DamagedFile
from strata.keys import Session, StoredKeys, StoredSessions
from strata.keys.key_ring import FRESH_SECONDS, STALE_SECONDS
from strata.keys.stored_sessions import SESSION_TIME
from strata.store.store import Store
from tests.keys.test_stored_keys import Clock

KEY, DIGEST = "0" * 12, "1" * 64


def sessions_of(store: Store, clock: Callable[[], float] = time.monotonic) -> StoredSessions:
    """The sessions as a process has them."""
    return StoredSessions(store, StoredKeys(store).signing_secret, clock)


def files(store: Store) -> list[str]:
    return store.names("sessions")


def test_a_token_finds_its_session_and_the_store_tells_no_token(store: Store) -> None:
    mine, other = sessions_of(store), sessions_of(store)
    session, token = mine.create(KEY, DIGEST, None)
    assert session.expires_at - session.created_at <= SESSION_TIME and session.key == KEY
    assert mine.known(token) == session and other.known(token) is None and other.find(token) == session
    assert other.known(token) == session and session.fits(token, DIGEST)
    # another key of the same id, or another token of the same name
    assert not session.fits(token, "2" * 64) and not session.fits(token[:-1] + "!", DIGEST)
    content = "".join(path.read_text(encoding="utf-8") for path in Path(store.path("sessions")).iterdir())
    secret = token.split(".")[1]
    assert len(secret) == 43 and secret not in content and DIGEST not in content
    mine.end(token)
    mine.end(token)
    assert files(store) == [] and mine.find(token) is None and mine.known(token) is None


def test_a_session_ends_with_its_key_and_leaves_no_file(store: Store) -> None:
    sessions = sessions_of(store)
    soon = datetime.now(UTC) + timedelta(minutes=5)
    assert soon - timedelta(seconds=1) < sessions.create(KEY, DIGEST, soon)[0].expires_at <= soon
    over, token = sessions.create(KEY, DIGEST, datetime.now(UTC) - timedelta(seconds=2))
    assert over.expires_at < datetime.now(UTC)
    assert sessions.known(token) is None and sessions.find(token) is None and sessions_of(store).find(token) is None
    # what has expired was removed when it, or the next one, was made; a foreign file stays
    Path(store.path("sessions", "note.txt")).write_text("x", encoding="utf-8")
    sessions.create(KEY, DIGEST, None)
    assert len(files(store)) == 3 and "note.txt" in files(store)


def test_the_end_of_a_session_reaches_other_processes(store: Store) -> None:
    clock = Clock()
    mine, other = sessions_of(store), sessions_of(store, clock)
    _, token = mine.create(KEY, DIGEST, None)
    assert other.find(token) is not None
    mine.end(token)
    assert other.known(token) is not None
    clock.now += FRESH_SECONDS
    assert other.known(token) is None and other.find(token) is None


def test_a_store_that_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    sessions, unread = sessions_of(store, clock), sessions_of(store, clock)
    session, token = sessions.create(KEY, DIGEST, None)

    def away(*_: object) -> None:
        raise OSError(5, "away")

    monkeypatch.setattr(store, "parse", away)
    clock.now += FRESH_SECONDS
    assert sessions.known(token) is None and sessions.find(token) == session == sessions.known(token)
    with pytest.raises(OSError, match="away"):
        unread.find(token)
    clock.now += STALE_SECONDS
    with pytest.raises(OSError, match="away"):
        sessions.find(token)


def test_a_damaged_session_is_none(store: Store) -> None:
    _, token = sessions_of(store).create(KEY, DIGEST, None)
    (path,) = Path(store.path("sessions")).iterdir()
    path.write_text('{"key": "../../x"}', encoding="utf-8")
    assert sessions_of(store).find(token) is None
    for wrong in ("", "x", "../../keys/a.json", f"{token}x", token.replace("-", "/"), token[:-1]):
        assert sessions_of(store).find(wrong) is None


def test_the_store_is_not_asked_for_a_token_that_was_made_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = sessions_of(store)
    _, token = sessions.create(KEY, DIGEST, None)
    asked: list[str] = []
    real = store.parse

    def counted(path: str, model: type[Session]) -> Session:
        asked.append(path)
        return real(path, model)

    monkeypatch.setattr(store, "parse", counted)
    assert sessions.find(token) is not None and len(asked) == 1
    for place, letter in enumerate(token):
        other = "1" if letter == "0" else "0"
        assert sessions.find(token[:place] + other + token[place + 1 :]) is None
    assert len(asked) == 1


def test_all_processes_sign_links_by_one_secret(store: Store) -> None:
    keys = StoredKeys(store)
    secret = keys.signing_secret()
    assert (
        re.fullmatch(rb"[0-9a-f]{64}", secret) and StoredKeys(store).signing_secret() == secret == keys.signing_secret()
    )
    assert not keys.exist() and keys.all() == ([], [])
    Path(store.path("keys", "signing-secret")).write_bytes(b"")
    with pytest.raises(DamagedFile, match="signing-secret"):
        StoredKeys(store).signing_secret()
