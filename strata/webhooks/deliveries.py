"""A delivery: the message that tells a job's end, and the attempts to send it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from strata.core import DeliveryAttempt, DeliveryState, DeliveryView, JobView, WebhookTarget

# seconds between two attempts; together with the time of the attempts a day, as the specification proposes
PAUSES = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 28_800)
SPREAD = 0.1  # of a pause: receivers that come back are not asked by all jobs at once
GONE = 410  # the status by which a receiver says that it wants no more messages
KEPT_ATTEMPTS = 20  # more than PAUSES: those of a delivery that was sent again are kept for a while


class Delivery(BaseModel):
    """The file `webhook` of a job. run: which end of the job is told; 0: it has not ended yet."""

    url: str = Field(repr=False)
    secret: str = Field(repr=False)
    run: int = 0
    state: DeliveryState = DeliveryState.WAITING
    next_attempt_at: datetime | None = None
    tries: int = 0  # since the job's end, or since somebody asked to send it again
    attempts: list[DeliveryAttempt] = []

    @classmethod
    def to(cls, target: WebhookTarget) -> Delivery:
        """A delivery for a new job."""
        return cls(url=target.url, secret=target.secret.get_secret_value())

    @property
    def receiver(self) -> str:
        """Scheme, host and port of the address."""
        found = urlsplit(self.url)
        return f"{found.scheme}://{found.netloc}"

    def message(self, job_id: str) -> str:
        """The id of the message: the same whenever this end of the job is told."""
        return f"msg_{job_id}_{self.run}"

    def view(self, job_id: str) -> DeliveryView:
        """What the API shows."""
        return DeliveryView(
            job=job_id,
            receiver=self.receiver,
            state=self.state,
            message=self.message(job_id) if self.run else None,
            next_attempt_at=self.next_attempt_at,
            attempts=self.attempts,
        )

    def due(self, run: int | None = None) -> Delivery:
        """The delivery, to be sent now. run: of the end that it tells; None: the same as before."""
        changes = {"state": DeliveryState.PENDING, "next_attempt_at": datetime.now(UTC), "tries": 0}
        new_end = {} if run is None else {"run": run, "attempts": []}
        return self.model_copy(update=changes | new_end)

    def after(self, attempt: DeliveryAttempt, retry_after: float | None = None, refused: bool = False) -> Delivery:
        """The delivery after an attempt.

        retry_after: seconds that the receiver asks to wait; refused: no further attempt is of use.
        """
        kept, tries = [*self.attempts, attempt][-KEPT_ATTEMPTS:], self.tries + 1
        state, following = DeliveryState.DELIVERED, None
        if not attempt.accepted:
            state = DeliveryState.FAILED
            if not refused and attempt.status != GONE and tries <= len(PAUSES):
                state = DeliveryState.PENDING
                pause = PAUSES[tries - 1] * random.uniform(1 - SPREAD, 1 + SPREAD)
                longest = max(PAUSES)
                following = attempt.at + timedelta(seconds=min(max(pause, retry_after or 0.0), longest))
        changes = {"attempts": kept, "tries": tries, "state": state, "next_attempt_at": following}
        return self.model_copy(update=changes)


class Message(BaseModel):
    """The body of a webhook: type, timestamp and data as the specification names them.

    type: `job.STATUS`; timestamp: of the job's end; data: the job's envelope.
    """

    type: str
    timestamp: datetime
    data: JobView

    @classmethod
    def of(cls, view: JobView) -> Message:
        """The message of an end. Of the end in the store, so that each attempt has the same bytes."""
        return cls(type=f"job.{view.status.value}", timestamp=view.finished_at or view.created_at, data=view)
