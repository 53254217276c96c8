"""Webhooks: whom the end of a job is told, and what became of the message."""

from __future__ import annotations

import base64
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from strata.core.schemas.fields import Text


def _signing_secret(secret: SecretStr) -> SecretStr:
    encoded = secret.get_secret_value().removeprefix("whsec_")
    try:
        size = len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except ValueError:  # also of characters that are not ASCII
        size = 0
    if not secret.get_secret_value().startswith("whsec_") or not 24 <= size <= 64:
        raise ValueError("right is whsec_ and the base64 of 24 to 64 random bytes")
    return secret


class WebhookTarget(BaseModel):
    """Whom a job's end is told, as https://www.standardwebhooks.com has it.

    secret: `whsec_` and the base64 of 24 to 64 random bytes, which the receiver knows; it signs each message.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    url: Text = Field(min_length=1, max_length=2048)
    secret: Annotated[SecretStr, AfterValidator(_signing_secret)]


class DeliveryState(StrEnum):
    """The state of a webhook's delivery.

    waiting: the job has not ended; failed: no attempt is made any more, unless somebody asks for it.
    """

    WAITING = "waiting"
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DeliveryAttempt(BaseModel):
    """One attempt to deliver a webhook, and the seconds that it took.

    status: the HTTP status of the receiver; error: why there is none.
    """

    at: datetime
    seconds: float
    status: int | None = None
    error: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the receiver has taken the message."""
        return self.status is not None and 200 <= self.status < 300


class DeliveryView(BaseModel):
    """The delivery of a job's webhook: neither the secret nor the path and query of the address, which may hold one.

    message: the id in the header `webhook-id`, the same for all attempts; null until the job has ended.
    """

    job: str
    receiver: str
    state: DeliveryState
    message: str | None
    next_attempt_at: datetime | None
    attempts: list[DeliveryAttempt]


class DeliveryPage(BaseModel):
    """`GET /v1/webhooks`: deliveries, the oldest job first. next: where the next page begins; null on the last one."""

    webhooks: list[DeliveryView]
    next: str | None = None
