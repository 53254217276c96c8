"""What jobs wait for: a stage that does not work, the store, a shard, a quota; and the events that tell it.

A job that the scheduler could not advance waits for its next attempt (`Troubles`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from strata.core import JobRequest, Waiting, growing_pause
from strata.errors import StrataError
from strata.jobs.plans import Plan
from strata.queue import Heartbeat, Queue
from strata.store import reason_of

REFRESH_SECONDS = 1.0  # between two looks at everything that waits
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before the next attempt of the scheduler
STAGE = "scheduler"  # the stage of `JobView.waiting` for a job that waits for it


class Activity:
    """What the workers hold and what is waited for, read once, in four round trips, for the envelopes of many jobs."""

    def __init__(self, queue: Queue, heartbeats: Iterable[Heartbeat] | None = None) -> None:
        self.queue = queue
        self.heartbeats = list(queue.heartbeats.live() if heartbeats is None else heartbeats)
        self.fingerprints = queue.waits.fingerprints()
        self._stages: dict[frozenset[tuple[str, str]], Waiting | None] = {}
        chunks = [chunk for heartbeat in self.heartbeats for chunk in heartbeat.chunks]
        self._held_up = [held_up for heartbeat in self.heartbeats for held_up in heartbeat.held_up]
        found = queue.broker.all_waiting_jobs([*chunks, *(held_up.chunk for held_up in self._held_up)])
        self._chunks = list(zip(chunks, found, strict=False))
        self._waiting_for_held_up = found[len(chunks) :]

    def images_in_flight(self, job_id: str) -> int:
        """A job's images in chunks that workers hold, according to their heartbeats."""
        return sum(chunk.images for chunk, jobs in self._chunks if job_id in jobs)

    def waiting(self, request: JobRequest, trouble: str | None = None) -> Waiting | None:
        """What an unfinished job waits for, and has waited for the longest time; None if nothing is in its way.

        trouble: why the scheduler cannot advance the job, as JSON; it comes first. Raises QueueUnavailable.
        """
        if trouble:
            return Waiting.model_validate_json(trouble)
        # a stage that does not work holds up all jobs with the same fingerprint
        found = [stage for stage in [self._stage(request)] if stage is not None]
        # the store or a shard holds up single chunks, which workers report
        now = datetime.now(UTC)
        for held_up, jobs in zip(self._held_up, self._waiting_for_held_up, strict=True):
            if request.id in jobs:
                since = now - timedelta(seconds=round(held_up.seconds))
                reported = Waiting(stage=held_up.stage, reason=held_up.reason, since=since, attempts=held_up.attempts)
                found.append(reported)
        return min(found, key=lambda waiting: waiting.since, default=None)

    def _stage(self, request: JobRequest) -> Waiting | None:
        """The stage that a job waits for. It is read once for all jobs with the same fingerprints."""
        pairs = frozenset(request.fingerprints.items())
        if pairs.isdisjoint(self.fingerprints):
            return None
        if pairs not in self._stages:
            self._stages[pairs] = self.queue.waits.find(request.fingerprints)
        return self._stages[pairs]


class WaitingJobs:
    """What the scheduler knows of waiting jobs. Every method raises QueueUnavailable."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._refreshed = float("-inf")
        self._activity: Activity | None = None  # None: nothing is waited for

    def refresh(self) -> bool:
        """Look from time to time at everything that waits; whether this was done now. Mostly nothing waits."""
        if time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return False
        held_up = [heartbeat for heartbeat in self.queue.heartbeats.live() if heartbeat.held_up]
        activity = Activity(self.queue, held_up)
        self._activity = activity if held_up or activity.fingerprints else None
        self._refreshed = time.monotonic()
        return True

    @property
    def anything(self) -> bool:
        """Whether any stage or chunk is waited for."""
        return self._activity is not None

    def tell(self, plan: Plan) -> None:
        """Add an event when a job begins to wait, and one when it no longer does."""
        waiting = plan.held or (self._activity.waiting(plan.request) if self._activity else None)
        if (waiting is None) == (plan.waits_for is None):
            return
        if waiting is not None:
            self.queue.job_events.add(plan.request.id, "waiting", stage=waiting.stage, reason=waiting.reason)
        else:
            self.queue.job_events.add(plan.request.id, "resumed", stage=plan.waits_for or "")
        plan.waits_for = waiting.stage if waiting else None

    def show(self, job_id: str, waiting: Waiting | None) -> None:
        """Set what a job waits for in its hash, from which `JobView.waiting` is read; None: nothing is in its way."""
        with suppress(ValueError):  # a status that this version does not know stays
            status = self.queue.job_states.status(job_id)
            if status is not None:
                told = "" if waiting is None else waiting.model_dump_json()
                self.queue.job_states.set_fields(job_id, status, waiting=told)

    def parked(self, request: JobRequest) -> int:
        """How many chunks of a job's fingerprints have stepped aside, in the group that has the most."""
        pairs = self._activity.fingerprints & set(request.fingerprints.items()) if self._activity else set()
        return max((self.queue.waits.parked(*pair) for pair in pairs), default=0)


@dataclass
class _Trouble:
    waiting: Waiting
    due: float


class Troubles:
    """The scheduler's memory of jobs that raised errors. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._found: dict[str, _Trouble] = {}

    def is_due(self, job_id: str, now: float) -> bool:
        """Whether a job may be advanced: it has no trouble, or its pause is over."""
        return job_id not in self._found or now >= self._found[job_id].due

    def add(self, job_id: str, error: Exception, now: float) -> Waiting:
        """Note that a job could not be advanced. The pause grows with each attempt."""
        before = self._found.get(job_id)
        attempts = before.waiting.attempts + 1 if before else 1
        since = before.waiting.since if before else datetime.now(UTC)
        waiting = Waiting(stage=STAGE, reason=_line(error), since=since, attempts=attempts)
        self._found[job_id] = _Trouble(waiting, now + growing_pause(attempts - 1, FIRST_PAUSE, LONGEST_PAUSE))
        return waiting

    def reason(self, job_id: str) -> str | None:
        """Why a job could not be advanced; None if it has no trouble."""
        found = self._found.get(job_id)
        return found.waiting.reason if found else None

    def clear(self, job_id: str) -> bool:
        """Forget a job's trouble; whether it had any."""
        return self._found.pop(job_id, None) is not None


def _line(error: Exception) -> str:
    """The error in one line, without paths of the server."""
    return str(error)[:300] if isinstance(error, StrataError) else f"{type(error).__name__}: {reason_of(error)}"[:300]
