"""What the key of a request may do, without a look into the store for each request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from strata.core import DEFAULT_TENANT, NO_QUOTAS, Quotas
from strata.errors import StrataError
from strata.keys.key import ApiKey, Scope, digest_of
from strata.keys.stored_keys import StoredKeys

log = logging.getLogger(__name__)

FRESH_SECONDS = 5.0  # for which the list of keys is believed: a revoked key ends within this time
MISS_SECONDS = 1.0  # the same for a secret that is not in the list: a new key works within this time
STALE_SECONDS = 60.0  # for which it is believed while the store cannot be read

Reason = Literal["unauthorized", "key-expired", "key-revoked"]


@dataclass(frozen=True)
class Access:
    """Who sends a request, and what it may do. key_id: `operator` for STRATA_API_KEY, empty if no key is needed."""

    key_id: str
    tenant: str
    scopes: frozenset[Scope]
    quotas: Quotas = NO_QUOTAS

    @property
    def stored_key(self) -> str:
        """The id of a key that is in the store, and that may have quotas; empty for the operator's, or if none is."""
        return self.key_id if self.key_id != _OPERATOR.key_id else ""

    @property
    def is_operator(self) -> bool:
        """Whether it sees all tenants: an admin key of the tenant `default`."""
        return self.tenant == DEFAULT_TENANT and Scope.ADMIN in self.scopes

    def may(self, needed: Iterable[Scope]) -> bool:
        """Whether it has one of these scopes."""
        return any(scope in self.scopes for scope in needed)

    def sees(self, tenant: str) -> bool:
        """Whether what belongs to a tenant exists for it. What belongs to no tenant has an empty one."""
        return self.is_operator or self.tenant == tenant

    @property
    def only_tenant(self) -> str | None:
        """The tenant to which lists are confined; None: they are not."""
        return None if self.is_operator else self.tenant


OPEN = Access("", DEFAULT_TENANT, frozenset(Scope))
_OPERATOR = Access("operator", DEFAULT_TENANT, frozenset(Scope))


class KeyFacts(NamedTuple):
    """What sessions and links need of a key. digest: the SHA-256 of its secret."""

    digest: str
    name: str
    expires_at: datetime | None


class KeyRefused(StrataError):
    """A request has no key, or one that may not be used. reason: the name of its problem; key_id: of
    the key, if there is one.

    That a key is expired or revoked is told to nobody but those who have its secret.
    """

    def __init__(self, reason: Reason, message: str, key_id: str = "") -> None:
        super().__init__(message)
        self.reason, self.key_id = reason, key_id


class KeyRing:
    """Finds the key of a request by the hash of its secret. Thread-safe.

    A hash is looked up, and no secret is compared: the time that it takes tells nothing of a secret that is stored.
    operator: the key of the settings. closed: whether a key is needed even if there is none. Once there was a key, one
    is needed as long as the process lives: whoever removes all keys has not opened the service to everybody.
    """

    def __init__(
        self,
        keys: StoredKeys,
        operator: str | None,
        closed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys
        self._operator = digest_of(operator.encode()) if operator is not None else None
        self._closed = closed or operator is not None
        self._own = {_OPERATOR.key_id: KeyFacts(self._operator, "operator", None)} if self._operator else {}
        self._clock = clock
        self._reading = threading.Lock()
        self._found: dict[str, ApiKey] = {}  # by the hash of the secret
        self._by_id: dict[str, ApiKey] = {}
        # when the list was read, and when that was tried last, with the error
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._error: OSError | None = None
        self._told: set[str] = set()

    def known(self, secrets: Iterable[bytes], digests: Sequence[str] = ()) -> Access | None:
        """The access by the list as it is in memory; None if the store is to be asked. It does not wait.

        digests: the hashes of further secrets, as `facts` tells them of the key of a session. Raises KeyRefused, and
        OSError if the list could not be read lately.
        """
        digests = [*digests, *(digest_of(secret) for secret in secrets if secret)]
        if self._operator in digests:
            return _OPERATOR
        if not self._is_fresh:
            return None
        is_miss = bool(digests) and not any(digest in self._found for digest in digests)
        if is_miss and self._closed and self._is_older_than(MISS_SECONDS):
            return None
        return self._by_list(digests)

    def holds(self, access: Access) -> bool | None:
        """Whether an access may still be used that was given earlier; None if the store is to be asked (`renew`).

        It does not wait. A key may have been revoked or have expired since, or a service that needed none needs one.
        """
        if access == _OPERATOR:
            return True
        if not self._is_fresh:
            return None
        if not access.key_id:
            return not self._closed
        key = self._by_id.get(access.key_id)
        return key is not None and key.status() == "active"

    def renew(self) -> None:
        """Read the list if that was not done lately; if it cannot be read, the last one is believed for a while.

        Raises OSError when it is too old.
        """
        with self._reading:
            if not self._is_fresh:
                self._read()
        if self._is_stale and self._error is not None:
            raise self._error.with_traceback(None)

    def find(self, secrets: Iterable[bytes], digests: Sequence[str] = ()) -> Access:
        """The access of a request with these secrets. Raises KeyRefused, and OSError if the list cannot be read.

        While the store cannot be read, the list of the last minute is believed. Of the requests that come while the
        list is read, those with a key of the last list do not wait for it.
        """
        digests = [*digests, *(digest_of(secret) for secret in secrets if secret)]
        self.refresh(wait=self._read_at is None or not any(digest in self._found for digest in digests))
        return _OPERATOR if self._operator in digests else self._by_list(digests)

    def facts(self, key_id: str) -> KeyFacts | None:
        """What is known of a key by the list as it is in memory; None if it has no such key. It does not wait."""
        key = self._by_id.get(key_id)
        if key is None:
            return self._own.get(key_id)
        return KeyFacts(key.sha256, key.name, key.expires_at)

    def refresh(self, wait: bool = True) -> None:
        """Read the list, unless that was tried just now. wait: also for another thread that reads it."""
        if self._reading.acquire(blocking=wait):
            try:
                if self._is_older_than(MISS_SECONDS):
                    self._read()
            finally:
                self._reading.release()

    def _by_list(self, digests: Sequence[str]) -> Access:
        if self._error is not None and self._is_stale:
            raise self._error.with_traceback(None)
        if not self._closed:
            return OPEN
        key = next((self._found[digest] for digest in digests if digest in self._found), None)
        return _access(key, bool(digests))

    def _read(self) -> None:
        """Read the list, or remember why it cannot be read."""
        try:
            keys, faults = self.keys.all()
        except OSError as error:
            self._error = error
        else:
            for fault in faults:
                if str(fault) not in self._told:
                    self._told.add(str(fault))
                    log.error("a key cannot be used: %s", fault)
            # a damaged key is one, too: the service does not open because of it
            self._closed = self._closed or bool(keys or faults)
            self._found, self._by_id = {key.sha256: key for key in keys}, {key.id: key for key in keys}
            self._read_at, self._error = self._clock(), None
        self._tried_at = self._clock()

    @property
    def _is_fresh(self) -> bool:
        return not self._is_older_than(FRESH_SECONDS)

    def _is_older_than(self, seconds: float) -> bool:
        """Whether the last attempt to read the list was so many seconds ago."""
        return self._tried_at is None or self._clock() - self._tried_at >= seconds

    @property
    def _is_stale(self) -> bool:
        """Whether the list was read too long ago to be believed while the store is away."""
        return self._read_at is None or (self._closed and self._clock() - self._read_at >= STALE_SECONDS)


def _access(key: ApiKey | None, given: bool) -> Access:
    """What a key may do. given: whether the request has any. Raises KeyRefused."""
    if key is None:
        problem = "no key has this secret" if given else "the request has no API key"
        raise KeyRefused("unauthorized", f"{problem}: send one as `Authorization: Bearer KEY` or `X-API-Key: KEY`")
    status = key.status(datetime.now(UTC))
    if status == "revoked":
        raise KeyRefused("key-revoked", f"the key {key.id} was revoked; ask for a new one", key.id)
    if status == "expired":
        raise KeyRefused("key-expired", f"the key {key.id} has expired; ask for a new one", key.id)
    scopes = frozenset(one for scope in key.scopes for one in scope.includes)
    return Access(key.id, key.tenant, scopes, key.quotas)
