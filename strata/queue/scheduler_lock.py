"""The scheduler's lock: one process schedules at a time."""

from __future__ import annotations

from enum import Enum

from strata.queue import keys
from strata.queue.connection import Connection, translate_errors

LOCK_SECONDS = 10


class LockState(Enum):
    """The outcome of an attempt to acquire the lock."""

    ACQUIRED = "acquired"  # the lock was free
    RENEWED = "renewed"  # the caller held it already
    HELD_BY_ANOTHER = "held by another"


@translate_errors
class SchedulerLock:
    """A lock with an expiry: if its owner dies, it is free after LOCK_SECONDS. Every method raises QueueUnavailable.

    It saves work, it does not guard correctness: two schedulers at once would queue the same chunks once each.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def acquire(self, owner: str) -> LockState:
        """Acquire the lock, or renew it for another LOCK_SECONDS if the owner has it. Does not wait."""
        if self._redis.set(keys.SCHEDULER, owner, nx=True, ex=LOCK_SECONDS):
            return LockState.ACQUIRED
        # the lock may expire between the two commands: then nothing is renewed, and the next attempt acquires it
        if self._redis.get(keys.SCHEDULER) == owner and self._redis.expire(keys.SCHEDULER, LOCK_SECONDS):
            return LockState.RENEWED
        return LockState.HELD_BY_ANOTHER

    def release(self, owner: str) -> None:
        """Release the lock if the owner has it, so that another process need not wait for its expiry."""
        if self._redis.get(keys.SCHEDULER) == owner:
            self._redis.delete(keys.SCHEDULER)
