"""Leases: a thread that renews the leases of this worker's chunks and publishes its heartbeat.

It is a thread of its own, so that a long computation of a model does not stop the renewals. A chunk whose lease is not
renewed for about four intervals is reclaimed by another worker; on the same machine at once if the process has ended.
The previous holder notices when it renews or finishes the chunk, and its result is not counted; the part that it wrote
has the same content.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from strata.core import Chunk
from strata.errors import QueueUnavailable
from strata.processes import process_identity
from strata.queue import Claim, Gpu, Heartbeat, HeldUp, LoadedProfile, Queue
from strata.store import reason_of
from strata.telemetry import COUNTERS

log = logging.getLogger(__name__)

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
FORGET_SECONDS = 300.0  # after which a chunk that waited is no longer reported; the longest pause is 30 s


class _Wait(NamedTuple):
    """A chunk that waits: since when, and when it was told last, in seconds of the monotonic clock."""

    held_up: HeldUp
    since: float
    told: float


class Leases:
    """The leases that one worker process holds. Use as a context manager around its work.

    name: the worker's name, which is its consumer name in Redis too; lease_seconds: a lease lapses after this time
    without a renewal. loaded: tells which profiles are loaded; gpus: as they were seen last. The thread also adds what
    the process has counted to the sums in Redis.
    """

    def __init__(self, queue: Queue, name: str, groups: Iterable[str], lease_seconds: float) -> None:
        self.broker, self.name, self.groups, self.seconds = queue.broker, name, list(groups), lease_seconds
        self._heartbeats, self._sums, self._process = queue.heartbeats, queue.sums, process_identity()
        self.loaded: list[Callable[[], list[LoadedProfile]]] = []
        self.gpus: Sequence[Gpu] = ()
        self._ready = False
        self._in_flight: dict[str, Claim] = {}
        self._held_up: dict[str, _Wait] = {}  # by chunk id
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="leases", daemon=True)

    def __enter__(self) -> Leases:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Stop the renewals, then withdraw the heartbeat: a service that starts now must not count this worker."""
        self._stop.set()
        self._thread.join()
        with suppress(QueueUnavailable):  # then it expires
            self._heartbeats.withdraw(self.name)
            self._tell_counts()

    def announce_ready(self) -> None:
        """Publish at once that the models are loaded."""
        self._ready = True
        self._renew()

    def add(self, claims: Iterable[Claim]) -> None:
        """Renew the leases of these claims from now on."""
        with self._guard:
            self._in_flight.update({claim.stream + claim.message: claim for claim in claims})

    def remove(self, claim: Claim) -> None:
        """Stop renewing a claim's lease. Harmless if it is not renewed."""
        with self._guard:
            self._in_flight.pop(claim.stream + claim.message, None)

    def in_flight(self) -> list[Claim]:
        """The claims whose leases are renewed."""
        with self._guard:
            return list(self._in_flight.values())

    # chunks that wait for the store or a shard

    def hold_up(self, chunk: Chunk, stage: Literal["store", "shard"], error: Exception, attempts: int) -> None:
        """Tell in the heartbeat, at once, that a chunk waits, until `go_on` is called or it is told no more."""
        now = time.monotonic()
        held_up = HeldUp(chunk=chunk, stage=stage, reason=reason_of(error), seconds=0.0, attempts=attempts)
        with self._guard:
            known = self._held_up.get(chunk.id)
            self._held_up[chunk.id] = _Wait(held_up, known.since if known else now, now)
        with suppress(QueueUnavailable):
            self._publish()

    def go_on(self, chunk: Chunk) -> None:
        """Tell in the heartbeat, at once, that a chunk waits no longer. Harmless if it does not wait."""
        with self._guard:
            held_up = self._held_up.pop(chunk.id, None)
        if held_up is not None:
            with suppress(QueueUnavailable):
                self._publish()

    def _renew_until_stopped(self) -> None:
        # four renewals within a lease: about three of them may fail before it lapses
        while True:
            try:
                self._renew()
            except QueueUnavailable as error:
                log.warning("the leases wait for Redis: %s", error)
            if self._stop.wait(self.seconds / 4):
                return

    def _renew(self) -> None:
        # a lease that is lost is not renewed again; the runner notices it when it finishes the chunk
        claims = self.in_flight()
        for claim in claims:
            if not self.broker.renew(claim, self.name):
                log.warning("chunk %s was reclaimed by another worker", claim.chunk.id)
                self.remove(claim)
        self._publish()
        self._tell_counts()

    def _tell_counts(self) -> None:
        """Add what was counted since the last time to the sums; without Redis later."""
        with suppress(QueueUnavailable):
            COUNTERS.tell(self._sums.add)

    def _publish(self) -> None:
        """Publish the heartbeat; it expires when the leases lapse."""
        now = time.monotonic()
        with self._guard:
            chunks = [claim.chunk for claim in self._in_flight.values()]
            # another worker may have finished a shard that this one has put back
            waits = {name: wait for name, wait in self._held_up.items() if now - wait.told < FORGET_SECONDS}
            self._held_up = waits
        held_up = [wait.held_up.model_copy(update={"seconds": now - wait.since}) for wait in waits.values()]
        heartbeat = Heartbeat(
            name=self.name,
            pid=os.getpid(),
            process=self._process,
            groups=self.groups,
            ready=self._ready,
            chunks=chunks,
            held_up=held_up,
            loaded=[one for tell in self.loaded for one in tell()],
            host=socket.gethostname(),
            resident_bytes=_resident_bytes(),
            gpus=list(self.gpus),
        )
        self._heartbeats.publish(heartbeat, self.seconds)


def _resident_bytes() -> int:
    """The memory of this process that is in RAM; 0 where the system does not tell it."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    return 0
