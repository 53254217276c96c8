"""Troubles: jobs that the scheduler could not advance, each with the reason and the time of its next attempt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from strata.core import Waiting, growing_pause
from strata.errors import StrataError
from strata.store import reason_of

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before the next attempt
STAGE = "scheduler"  # the stage of `JobView.waiting` for such a job


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
