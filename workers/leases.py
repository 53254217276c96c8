"""Leases: a thread that tells, on a beat, which chunks this worker holds; model work cannot block it.

A chunk whose holder misses about three beats is taken over by another worker; the holder finds out when it
finishes, and its result counts for nothing (the part it wrote is the same).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable

import redis

from strata.queue.broker import Broker, Claim
from strata.queue.heartbeats import Heartbeat, Heartbeats

log = logging.getLogger(__name__)


class Leases:
    """The chunks that one worker process holds. Use as a context manager around its work."""

    def __init__(self, broker: Broker, name: str, groups: Iterable[str], lease_seconds: float) -> None:
        self.broker, self.name, self.groups, self.seconds = broker, name, list(groups), lease_seconds
        self._heartbeats = Heartbeats(broker.redis)
        self._ready = False
        self._held: dict[str, Claim] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, name="leases", daemon=True)

    def __enter__(self) -> Leases:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def announce(self) -> None:
        """Tell at once that the models are loaded."""
        self._ready = True
        self._beat()

    def hold(self, claims: Iterable[Claim]) -> None:
        """Renew these claims from now on."""
        with self._lock:
            self._held.update({claim.stream + claim.message: claim for claim in claims})

    def release(self, claim: Claim) -> None:
        """Renew a claim no longer."""
        with self._lock:
            self._held.pop(claim.stream + claim.message, None)

    def held(self) -> list[Claim]:
        """The claims in hand."""
        with self._lock:
            return list(self._held.values())

    def _beat_until_stopped(self) -> None:
        # about three beats may be missed before the lease lapses
        while True:
            try:
                self._beat()
            except redis.RedisError as error:
                log.warning("leases wait for Redis: %s", error)
            if self._stop.wait(self.seconds / 4):
                return

    def _beat(self) -> None:
        claims = self.held()
        for claim in claims:
            if not self.broker.renew(claim, self.name):
                log.warning("chunk %s was taken over by another worker", claim.chunk.id)
                self.release(claim)
        chunks = [claim.chunk for claim in claims]
        beat = Heartbeat(name=self.name, pid=os.getpid(), groups=self.groups, ready=self._ready, chunks=chunks)
        self._heartbeats.tell(beat, self.seconds)
