"""One API key: its tenant, scopes and expiry. Only a hash of its secret is kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from strata.core import DEFAULT_TENANT, NO_QUOTAS, Quotas, is_tenant

PREFIX = "strata_"  # of every secret: scanners of repositories and logs find it by this
SECRET_BYTES = 32
_ID = re.compile(r"[0-9a-f]{12}")


class Scope(StrEnum):
    """What a key may do."""

    SUBMIT = "submit"
    READ = "read"
    REVIEW = "review"
    ADMIN = "admin"

    @property
    def includes(self) -> frozenset[Scope]:
        """The scopes that this one implies, itself too: reviewers read what they judge, and admin may everything."""
        if self is Scope.ADMIN:
            return frozenset(Scope)
        return frozenset({self, Scope.READ} if self is Scope.REVIEW else {self})


class ApiKey(BaseModel):
    """A key as the store keeps it. sha256: of the secret, in hexadecimal digits; quotas: those that hold now.

    A secret has 256 random bits, so that its hash cannot be inverted by trying: a slow hash, as for passwords, would
    add nothing but time to each request.
    """

    model_config = ConfigDict(frozen=True)

    id: str = Field(pattern="^[0-9a-f]{12}$")
    tenant: str = DEFAULT_TENANT
    name: str = Field(min_length=1, max_length=100)
    scopes: tuple[Scope, ...] = Field(min_length=1)
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    quotas: Quotas = NO_QUOTAS

    @field_validator("tenant")
    @classmethod
    def _is_tenant(cls, value: str) -> str:
        if not is_tenant(value):
            raise ValueError(
                f"{value[:80]!r} is not the name of a tenant: lower-case letters, digits and -, at most 63 characters"
            )
        return value

    @field_validator("name")
    @classmethod
    def _is_printable(cls, value: str) -> str:
        if not value.isprintable() or not value.strip():
            raise ValueError("a key's name has printable characters only, and one that is no space")
        return value

    def status(self, now: datetime | None = None) -> str:
        """`active`, `expired` or `revoked`, at a time (None: now)."""
        moment = now or datetime.now(UTC)
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= moment else "active"


def new_secret() -> str:
    """A new secret, which is shown once: PREFIX and 32 random bytes as URL-safe base64."""
    return f"{PREFIX}{secrets.token_urlsafe(SECRET_BYTES)}"


def digest_of(secret: bytes) -> str:
    """The SHA-256 of a secret, by which its key is found."""
    return hashlib.sha256(secret).hexdigest()


def new_key_id() -> str:
    """A new id. It is no secret: logs and lists show it."""
    return secrets.token_hex(6)


def is_key_id(text: str) -> bool:
    """Whether a text has the form of a key's id, so that it may become part of a path."""
    return _ID.fullmatch(text) is not None
