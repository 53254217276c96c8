"""API keys: who may do what. They lie in the store, so that nothing is lost with Redis.

Read `key.py` first, then `stored_keys.py` (the files) and `key_ring.py` (what a request's key is). No web framework.
"""

from __future__ import annotations

from strata.keys.key import ApiKey, Scope, digest_of, new_secret
from strata.keys.key_ring import OPEN, Access, KeyRefused, KeyRing
from strata.keys.stored_keys import StoredKeys, UnknownKey

__all__ = [
    "OPEN",
    "Access",
    "ApiKey",
    "KeyRefused",
    "KeyRing",
    "Scope",
    "StoredKeys",
    "UnknownKey",
    "digest_of",
    "new_secret",
]
