"""The queue: all that Strata keeps in Redis, by what it is for, over one connection."""

from __future__ import annotations

from typing import Any, cast

from strata.queue import keys
from strata.queue.accounts import Ledger, Windows
from strata.queue.broker import Broker
from strata.queue.connection import connect, translate_errors
from strata.queue.heartbeats import Heartbeats, Sums
from strata.queue.idempotency_keys import IdempotencyKeys
from strata.queue.isolation_notes import IsolationNotes
from strata.queue.job_events import ImageLayers, JobEvents
from strata.queue.job_list import JobList
from strata.queue.job_states import JobStates
from strata.queue.scheduler_lock import SchedulerLock
from strata.queue.waits import Waits


@translate_errors
class Queue:
    """Built once in each process from the server's URL. All methods, also those of its parts, raise QueueUnavailable.

    Nothing in Redis has to survive: the parts and job files in the store are the truth, and the scheduler rebuilds
    everything else from them. Works on Redis 7.0 or later and Valkey 8 or later.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis = connection = connect(url)
        # chunks and jobs
        self.broker = Broker(connection)
        self.waits = Waits(connection)
        self.job_states = JobStates(connection)
        self.job_events = JobEvents(connection)
        self.image_layers = ImageLayers(connection)
        self.job_list = JobList(connection)
        self.ledger = Ledger(connection)
        self.windows = Windows(connection)
        # workers and the scheduler
        self.heartbeats = Heartbeats(connection)
        self.sums = Sums(connection)
        self.isolation_notes = IsolationNotes(connection)
        self.scheduler_lock = SchedulerLock(connection)
        # the REST service
        self.idempotency_keys = IdempotencyKeys(connection)

    def ping(self) -> None:
        """Check that the server answers. Raises QueueUnavailable."""
        self._redis.ping()

    def release_ended(self) -> None:
        """Release the chunks of the workers of this machine that have ended without that, as after SIGKILL.

        Nobody waits for the ends of their leases then. What was in flight counts as a death, see `IsolationNotes`.
        """
        for name in self.heartbeats.ended():
            self.broker.release_all(name)
            self.heartbeats.withdraw(name)

    def store_id(self) -> str | None:
        """The id of the store whose jobs are in this database; None if none was remembered."""
        return cast("str | None", self._redis.get(keys.STORE))

    def remember_store(self, store_id: str) -> str:
        """Remember the id of the store if none is remembered; returns the one that is remembered then."""
        before: Any = self._redis.set(keys.STORE, store_id, nx=True, get=True)
        return str(before or store_id)

    def peak_memory(self) -> int:
        """The most memory that the server has used since its start, in bytes."""
        info: Any = self._redis.info("memory")
        return int(info["used_memory_peak"])

    def close(self) -> None:
        """Close the connections to the server."""
        self._redis.close()
