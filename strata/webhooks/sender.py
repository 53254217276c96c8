"""The sender: makes the attempts of deliveries that are due, in threads, for the process that schedules."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from strata.core import DeliveryAttempt, DeliveryState
from strata.egress import RefusedAddress
from strata.errors import DamagedFile, StrataError
from strata.webhooks.deliveries import Delivery, Message
from strata.webhooks.outbox import Outbox

log = logging.getLogger(__name__)

SENDERS = 16  # attempts at a time
LOOK_SECONDS = 30.0  # between two looks into the store, for what another process has made due
REST_SECONDS = 30.0  # in which no other delivery goes to a receiver that could not be reached


@dataclass(frozen=True)
class Answer:
    """What a receiver has answered. retry_after: the seconds that it asks to wait, if it says so."""

    status: int
    retry_after: float | None = None


@dataclass(frozen=True)
class Outgoing:
    """A message as it is sent: where, its id, the time of this attempt, what signs it, and its body (JSON)."""

    url: str = field(repr=False)
    message: str
    at: datetime
    secret: str = field(repr=False)
    body: str = field(repr=False)


# sends a message. Raises RefusedAddress for an address that is not allowed, and another StrataError with the reason if
# there is no answer
Post = Callable[[Outgoing], Answer]


class Sender:
    """Sends what is due. `advance` is called several times a second by one thread; it never waits.

    post: how a message is sent.
    """

    def __init__(self, outbox: Outbox, post: Post) -> None:
        self.outbox, self._post = outbox, post
        self._due: dict[str, float] = {}  # times of the monotonic clock, by job
        self._sending: dict[str, Future[float | None]] = {}
        self._resting: dict[str, float] = {}  # until when, by receiver
        self._looked = -LOOK_SECONDS
        self._pool = ThreadPoolExecutor(SENDERS, thread_name_prefix="webhooks")

    def close(self) -> None:
        """Stop; what was not sent is sent by the next process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def reset(self) -> None:
        """Send nothing more until `advance` is called again: another process schedules."""
        self._due.clear()
        self._looked = -LOOK_SECONDS

    def advance(self) -> None:
        """Begin the attempts that are due, and read what has come of others. Raises OSError."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            for job_id in self.outbox.marked(DeliveryState.PENDING):
                self._due.setdefault(job_id, now)
            for receiver, until in list(self._resting.items()):
                if until <= now:
                    self._resting.pop(receiver, None)
        while self.outbox.added:
            self._due[self.outbox.added.popleft()] = now
        for job_id in [job_id for job_id, sending in self._sending.items() if sending.done()]:
            rest = self._sending.pop(job_id).result()
            if rest is not None:
                self._due[job_id] = now + rest
        for job_id in [job_id for job_id, due in self._due.items() if due <= now and job_id not in self._sending]:
            if len(self._sending) >= SENDERS:
                break
            del self._due[job_id]
            self._sending[job_id] = self._pool.submit(self._attempt, job_id)

    def _attempt(self, job_id: str) -> float | None:
        """Make one attempt, if it is due; returns after how many seconds the next one is."""
        try:
            return self._send(job_id)
        except (OSError, DamagedFile) as error:
            log.warning("the webhook of job %s waits for the store: %s", job_id, type(error).__name__)
            return LOOK_SECONDS

    def _send(self, job_id: str) -> float | None:
        found = self.outbox.find(job_id)
        if found is None:  # the job was deleted
            self.outbox.unmark(job_id)
            return None
        if found.state is not DeliveryState.PENDING:  # another process has sent it, or has died before it was marked so
            self.outbox.keep_mark(job_id, found.state)
            return None
        # not yet: its time may have been written by another process, or its receiver could not be reached a moment ago
        wait = max(_seconds_until(found), self._resting.get(found.receiver, 0.0) - time.monotonic())
        if wait > 0:
            return wait
        view = self.outbox.envelope(job_id)
        if view is None:  # it is being retried: its next end is told
            self.outbox.change(job_id, lambda delivery: delivery.model_copy(update={"state": DeliveryState.WAITING}))
            return None
        attempt, retry_after, refused = self._try(found, job_id, Message.of(view).model_dump_json())
        changed = self.outbox.change(job_id, lambda delivery: delivery.after(attempt, retry_after, refused))
        if changed is not None and changed.state is DeliveryState.FAILED:
            log.warning("the webhook of job %s is given up: %s", job_id, attempt.error or f"status {attempt.status}")
        return _seconds_until(changed) if changed is not None and changed.next_attempt_at else None

    def _try(self, found: Delivery, job_id: str, body: str) -> tuple[DeliveryAttempt, float | None, bool]:
        """One attempt, the seconds that the receiver asks to wait, and whether the address is not allowed."""
        began, at = time.monotonic(), datetime.now(UTC)
        answer, error, refused = None, None, False
        try:
            answer = self._post(Outgoing(found.url, found.message(job_id), at, found.secret, body))
        except StrataError as reason:
            error, refused = str(reason), isinstance(reason, RefusedAddress)
            if not refused:
                self._resting[found.receiver] = time.monotonic() + REST_SECONDS
        seconds = round(time.monotonic() - began, 3)
        attempt = DeliveryAttempt(at=at, seconds=seconds, status=answer.status if answer else None, error=error)
        return attempt, answer.retry_after if answer else None, refused


def _seconds_until(delivery: Delivery) -> float:
    following = delivery.next_attempt_at
    return max((following - datetime.now(UTC)).total_seconds(), 0.0) if following else 0.0
