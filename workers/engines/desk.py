"""The desk of a run: what the processes that compute one job without Redis share."""

from __future__ import annotations

import threading
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Protocol

from strata.core import Bill, Cost, Waiting
from strata.queue import Notes, Reservation
from workers.accounts import Budgets
from workers.engines.memory import MemoryBudget, MemoryNotes
from workers.isolation import KeptNotes


class Desk(KeptNotes, Budgets, Protocol):
    """Notes on deaths, the budget, what is waited for, and whether the run goes on."""

    def deliveries(self, chunk_id: str) -> int:
        """1 for a chunk that no process has begun, else 2."""

    def forget(self, chunk_id: str) -> None:
        """The chunk is finished."""

    def wait_for(self, who: str, stage: str, reason: str, attempts: int) -> None:
        """Somebody waits for a stage, the store or a shard."""

    def go_on(self, chunk_id: str) -> None: ...

    def works(self, who: str) -> None:
        """Somebody waits no longer."""

    def is_stopped(self) -> bool:
        """Whether the run ends: no chunk is wanted any more."""


class LocalDesk:
    """The desk in the process that runs the job."""

    def __init__(self, notes: MemoryNotes, budget: MemoryBudget) -> None:
        self.notes, self.budget = notes, budget
        self.stopped = threading.Event()
        self._waits: dict[str, Waiting] = {}

    def deliveries(self, chunk_id: str) -> int:
        return 2 if self.notes.is_known(chunk_id) else 1

    def wait_for(self, who: str, stage: str, reason: str, attempts: int) -> None:
        known = self._waits.get(who)
        since = known.since if known else datetime.now(UTC)
        self._waits[who] = Waiting(stage=stage, reason=reason[:300], since=since, attempts=attempts)

    def works(self, who: str) -> None:
        self._waits.pop(who, None)

    @property
    def waiting(self) -> Waiting | None:
        """What the run has waited for longest; None if nothing is in its way."""
        return min(list(self._waits.values()), key=lambda waiting: waiting.since, default=None)

    def is_stopped(self) -> bool:
        return self.stopped.is_set()

    # the notes and the budget

    def forget(self, chunk_id: str) -> None:
        self.notes.forget(chunk_id)

    def take_over(self, chunk_id: str) -> Notes:
        return self.notes.take_over(chunk_id)

    def mark(self, chunk_id: str, row: int | None = None) -> None:
        self.notes.mark(chunk_id, row)

    def clear(self, chunk_id: str) -> None:
        self.notes.clear(chunk_id)

    def computed(self, chunk_id: str, row: int | None = None) -> None:
        self.notes.computed(chunk_id, row)

    def ended(self, chunk_id: str, suspects: Collection[int], alone: int | None, reason: str, saved: bool) -> None:
        self.notes.ended(chunk_id, suspects, alone, reason, saved)

    def go_on(self, chunk_id: str) -> None:
        self.notes.go_on(chunk_id)

    def try_again(self, chunk_id: str, notes: Notes, in_a_row: int, chunk_deaths: int) -> None:
        self.notes.try_again(chunk_id, notes, in_a_row, chunk_deaths)

    def reserve(self, job_id: str, chunk_id: str, entry: str, cost: Cost) -> Reservation:
        return self.budget.reserve(job_id, chunk_id, entry, cost)

    def remaining(self, job_id: str) -> str:
        return self.budget.remaining(job_id)

    def settle(self, chunk_id: str, bill: Bill) -> None:
        self.budget.settle(chunk_id, bill)
