"""API keys: who may do what. They lie in the store, so that nothing is lost with Redis.

Read `key.py` first, then `stored_keys.py` (the files) and `key_ring.py` (what a request's key is). `stored_sessions.py`
has the sessions of people who have signed in with a key. No web framework.
"""

from __future__ import annotations

from strata.keys.key import ApiKey, Scope, digest_of, new_secret
from strata.keys.key_ring import OPEN, Access, KeyFacts, KeyRefused, KeyRing
from strata.keys.stored_keys import StoredKeys, UnknownKey
from strata.keys.stored_sessions import Session, StoredSessions

__all__ = [
    "OPEN",
    "Access",
    "ApiKey",
    "KeyFacts",
    "KeyRefused",
    "KeyRing",
    "Scope",
    "Session",
    "StoredKeys",
    "StoredSessions",
    "UnknownKey",
    "digest_of",
    "new_secret",
]
