"""The keys in the store: `keys/ID.json`, which never changes, and `keys/ID.revoked` once a key was revoked.

Each change of a key's quotas is a file of its own, `keys/ID.NUMBER.quotas`, of which the last one holds.

So no file is read, changed and written again: two processes cannot undo each other's work, and one listing tells
everything that is new. Removing its files removes a key from the list. `keys/signing-secret` has the secret by which
links and sessions are signed.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel

from strata.core import DEFAULT_TENANT, NO_QUOTAS, Quotas
from strata.errors import DamagedFile, NotFound
from strata.keys.key import ApiKey, Scope, digest_of, is_key_id, new_key_id, new_secret
from strata.store import Store

FOLDER = "keys"
_KEY, _REVOKED = ".json", ".revoked"
_SECRET = "signing-secret"
_QUOTAS = re.compile(r"([0-9a-f]{12})\.([0-9]{6})\.quotas")


class UnknownKey(NotFound):
    """No key has this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key has the id {key_id[:80]!r}; `strata keys list` lists all")


class _Revocation(BaseModel):
    """The content of `keys/ID.revoked`."""

    revoked_at: AwareDatetime


class StoredKeys:
    """The keys of one store. Thread-safe. Every method raises OSError if the store cannot be reached."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._read: dict[str, ApiKey] = {}  # by the id: the files never change
        self._signing_secret: bytes | None = None
        self._quotas: dict[str, Quotas] = {}  # by the name of the file

    def create(
        self,
        name: str,
        scopes: Sequence[Scope],
        tenant: str = DEFAULT_TENANT,
        expires_at: datetime | None = None,
        quotas: Quotas = NO_QUOTAS,
    ) -> tuple[ApiKey, str]:
        """Make and store a key; returns it with its secret, which nothing keeps. Raises ValueError."""
        secret = new_secret()
        key = ApiKey(
            id=new_key_id(),
            tenant=tenant,
            name=name,
            scopes=tuple(dict.fromkeys(scopes)),
            created_at=datetime.now(UTC),
            expires_at=expires_at,
            sha256=digest_of(secret.encode()),
            quotas=quotas,
        )
        self.store.put_new(self._path(key.id, _KEY), key.model_dump_json(exclude={"revoked_at"}).encode())
        return key, secret

    def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key for good; one that was revoked before is left as it is. Raises UnknownKey and DamagedFile."""
        names = self._names_of(key_id)
        content = _Revocation(revoked_at=datetime.now(UTC)).model_dump_json()
        with suppress(FileExistsError):
            self.store.put_new(self._path(key_id, _REVOKED), content.encode())
        return self._key(key_id, True, _changed(names).get(key_id))

    def limit(self, key_id: str, change: Callable[[Quotas], Quotas]) -> ApiKey:
        """Change the quotas of a key; services hold the new ones within FRESH_SECONDS of the key ring.

        change: gives the new quotas for the present ones; called again if another process was faster. Raises UnknownKey
        and DamagedFile.
        """
        while True:
            names = self._names_of(key_id)
            last = _changed(names).get(key_id)
            key = self._key(key_id, f"{key_id}{_REVOKED}" in names, last)
            quotas = change(key.quotas)
            number = int(last.split(".")[1]) + 1 if last else 1
            with suppress(FileExistsError):
                self.store.put_new(self._path(key_id, f".{number:06}.quotas"), quotas.model_dump_json().encode())
                return key.model_copy(update={"quotas": quotas})

    def all(self) -> tuple[list[ApiKey], list[DamagedFile]]:
        """All keys by the time of their creation, and the files that cannot be read; those keys are worth nothing.

        It takes one listing, and reads what was not read before.
        """
        names = self.store.names(FOLDER)
        revoked = {name.removesuffix(_REVOKED) for name in names if name.endswith(_REVOKED)}
        changed = _changed(names)
        keys: list[ApiKey] = []
        faults: list[DamagedFile] = []
        for key_id in (name.removesuffix(_KEY) for name in names if name.endswith(_KEY)):
            if not is_key_id(key_id):
                continue
            try:
                keys.append(self._key(key_id, key_id in revoked, changed.get(key_id)))
            except FileNotFoundError:  # it was removed in this moment
                continue
            except DamagedFile as error:
                faults.append(error)
        with self._lock:
            for gone in self._read.keys() - {key.id for key in keys}:
                del self._read[gone]
            for name in self._quotas.keys() - set(changed.values()):
                del self._quotas[name]
        return sorted(keys, key=lambda key: (key.created_at, key.id)), faults

    def exist(self) -> bool:
        """Whether there is a key, of whatever kind. It takes one listing."""
        return any(name.endswith(_KEY) for name in self.store.names(FOLDER))

    def signing_secret(self) -> bytes:
        """The secret by which links and sessions are signed: 32 random bytes in hexadecimal digits.

        It is made when it is first asked for; all processes of a store have the same one. Raises DamagedFile.
        """
        if self._signing_secret is None:
            path = self._path(_SECRET, "")
            try:
                found = self.store.get(path)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    self.store.put_new(path, secrets.token_hex(32).encode(), private=True)
                found = self.store.get(path)
            if len(found) != 64:  # with an empty one anybody could sign
                raise DamagedFile(f"{FOLDER}/{_SECRET}", "it has not 64 characters; without it a new one is made")
            self.store.make_private(path)  # an earlier version has made it readable for all
            self._signing_secret = found
        return self._signing_secret

    def _names_of(self, key_id: str) -> list[str]:
        """The names of all files of keys. Raises UnknownKey if none is this key's."""
        names = self.store.names(FOLDER) if is_key_id(key_id) else []
        if f"{key_id}{_KEY}" not in names:
            raise UnknownKey(key_id)
        return names

    def _key(self, key_id: str, revoked: bool, changed: str | None) -> ApiKey:
        """A key. changed: the name of the file with its present quotas, if they are not those that it was made with."""
        key = self._read.get(key_id)
        if key is None or (revoked and key.revoked_at is None):
            key = self.store.parse(f"{FOLDER}/{key_id}{_KEY}", ApiKey)
            if key.id != key_id:
                raise DamagedFile(f"{FOLDER}/{key_id}{_KEY}", f"it is the key {key.id}")
            if revoked:
                key = key.model_copy(update={"revoked_at": self._revoked_at(key_id)})
            with self._lock:
                self._read[key_id] = key
        return key if changed is None else key.model_copy(update={"quotas": self._quotas_in(changed)})

    def _quotas_in(self, name: str) -> Quotas:
        quotas = self._quotas.get(name)
        if quotas is None:
            quotas = self.store.parse(f"{FOLDER}/{name}", Quotas)
            with self._lock:
                self._quotas[name] = quotas
        return quotas

    def _revoked_at(self, key_id: str) -> datetime:
        """When a key was revoked. A damaged mark is one too: who wrote it did not want the key to be used."""
        try:
            return self.store.parse(f"{FOLDER}/{key_id}{_REVOKED}", _Revocation).revoked_at
        except (FileNotFoundError, DamagedFile):
            return datetime.now(UTC)

    def _path(self, key_id: str, suffix: str) -> str:
        return self.store.path(FOLDER, f"{key_id}{suffix}")


def _changed(names: Iterable[str]) -> dict[str, str]:
    """The last file with quotas of each key that has one, by the key's id."""
    return {found[1]: name for name in sorted(names) if (found := _QUOTAS.fullmatch(name))}
