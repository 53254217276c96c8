"""A process that dies between two steps: the n-th call of a method of its queue or its store raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from strata.jobs.scheduler import Scheduler
from strata.queue.queue import Queue
from strata.store.store import Store

PARTS_OF_QUEUE = ("broker", "job_states", "job_events", "ledger", "job_list", "waits", "heartbeats", "scheduler_lock")


class Died(BaseException):
    """The process ended here. No handler of errors catches it."""


class _Interrupted:
    """An object whose methods count their calls, and raise from a certain call on."""

    def __init__(self, target: object, countdown: Countdown) -> None:
        self._target, self._countdown = target, countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in PARTS_OF_QUEUE:
            return _Interrupted(found, self._countdown)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._countdown.step()
            return found(*args, **kwargs)

        return call


class Countdown:
    """Counts the steps of a process. left: the steps before its death; None: it does not die."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.steps = 0

    def step(self) -> None:
        """Count a step. Raises Died."""
        self.steps += 1
        if self.left is not None:
            if self.left <= 0:
                raise Died
            self.left -= 1

    @contextmanager
    def dying(self, left: int | None) -> Iterator[None]:
        """Let the process die after so many steps from now."""
        self.left, self.steps = left, 0
        try:
            yield
        finally:
            self.left = None


def fragile(target: object, countdown: Countdown) -> Any:
    """A queue or a store whose calls are the steps of a countdown."""
    return _Interrupted(target, countdown)


def mortal_scheduler(queue: Queue, store: Store, high_water: int = 100) -> tuple[Scheduler, Countdown]:
    """A scheduler that can die before any call of its queue or its store."""
    countdown = Countdown()
    return Scheduler(fragile(queue, countdown), fragile(store, countdown), high_water), countdown
