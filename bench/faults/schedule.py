"""The schedule of faults: a seed decides the order and the times of the faults of all kinds."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import redis

from bench.faults.chat import RESPONSES
from bench.faults.orders import Orders
from bench.faults.stages import (
    BUILD_ERROR,
    HANG,
    HANG_IMAGE,
    HANG_LOCKED,
    MEMORY_STUCK,
    OUT_OF_MEMORY,
    STAGE_EXITS,
    STICKY_CUDA,
)
from bench.faults.store import DISK_FULL, STORE_FLAKY
from bench.processes import Fleet
from strata.core import GROUPS

STATE_SECONDS = 10.0  # for which the store fails, the disk is full, or the chat server answers wrongly, from the first
# call on that fails for it; a state for which no call fails in PATIENCE seconds is given up
PATIENCE = 180.0
REDIS_SECONDS = 5.0  # for which Redis is read-only, or loads its file
STOP_SECONDS = 5.0  # longer than a lease, for which a worker is stopped
ALL_THE_TIME = 86_400.0
KINDS = {
    STICKY_CUDA: 3,
    OUT_OF_MEMORY: 2,
    MEMORY_STUCK: 1,
    STAGE_EXITS: 1,
    BUILD_ERROR: 1,
    HANG: 1,
    HANG_LOCKED: 1,
    HANG_IMAGE: 1,
    **dict.fromkeys(RESPONSES, 1),
    STORE_FLAKY: 1,
    DISK_FULL: 1,
    "redis_readonly": 1,
    "redis_loading": 1,
    "part_truncated": 1,
    "part_flipped": 1,
    "worker_killed": 3,
    "worker_stopped": 1,
    "redis_killed": 1,
    "all_killed": 1,
}
ORDERED = (
    STICKY_CUDA,
    OUT_OF_MEMORY,
    MEMORY_STUCK,
    STAGE_EXITS,
    BUILD_ERROR,
    HANG,
    HANG_LOCKED,
)  # caused by who takes the order
STATES = (STORE_FLAKY, DISK_FULL, *RESPONSES)  # what holds for a time, and counts when a call has failed for it
EARLY = 0.6  # in which first part of the schedule they come
CLOCK_OFF = "clock_off"  # a kind of its own: one worker's clock is an hour off all the time


class Schedule:
    """Causes faults while a fleet works. kinds: of each fault to cause; pauses: least and most seconds between two."""

    def __init__(
        self, fleet: Fleet, orders: Orders, store: Path, seed: int, kinds: Sequence[str], pauses: tuple[float, float]
    ) -> None:
        self.fleet, self.orders, self.store = fleet, orders, store
        self.random, self.pauses = random.Random(seed), pauses
        self.done: Counter[str] = Counter()
        self.held: dict[str, float] = {}  # states that no call has failed for yet: when they are given up
        # one image hangs all the time
        if HANG_IMAGE in kinds:
            self._begin(HANG_IMAGE, ALL_THE_TIME)
        # in a random order; those that need an image in flight come before the work is done
        scheduled = [kind for kind in kinds if kind != HANG_IMAGE]
        self.left = sorted(
            scheduled, key=lambda kind: -self.random.random() * (EARLY if kind in (*ORDERED, *RESPONSES) else 1)
        )
        self.next = time.monotonic()

    def beat(self) -> None:
        """Cause the next fault if it is due, and restart the processes that have ended."""
        self.fleet.look_after()
        now = time.monotonic()
        self._count_states(now)
        if now < self.next or not self.left:
            return
        kind = self.left.pop()
        if self._cause(kind):
            self.done[kind] += kind not in STATES
            self.next = now + self.random.uniform(*self.pauses)
        else:  # not possible yet, for example no part is written: another kind first
            self.left.insert(0, kind)
            self.next = now + 1

    def is_over(self) -> bool:
        """Whether every fault was caused, ordered, or tried in vain."""
        return not self.left and not self.held

    def caused(self) -> Counter[str]:
        """How many faults of each kind were caused, without those that came too late: no image was left."""
        return +(self.done - Counter({kind: self.orders.open(kind) for kind in ORDERED}))

    def _begin(self, state: str, seconds: float) -> None:
        self.orders.hold(state, seconds)
        self.held[state] = time.monotonic() + seconds

    def _count_states(self, now: float) -> None:
        """Count the states that a call has failed for, and let them end; forget those that are given up."""
        for state, until in list(self.held.items()):
            met = self.orders.met(state)
            if met and state in STATES:
                self.orders.hold(state, STATE_SECONDS)
            if met or now >= until:
                del self.held[state]
                self.done[state] += met

    def _cause(self, kind: str) -> bool:
        """Cause one fault; False if that is not possible now."""
        if kind in STATES:
            self._begin(kind, PATIENCE)
        elif kind in ORDERED:
            self.orders.give(kind)
            # pipelines are built when a worker starts
            if kind == BUILD_ERROR:
                self.random.choice(self.fleet.workers).send(signal.SIGKILL)
        else:
            cause: Callable[[], bool | None] = getattr(self, f"_{kind}")
            return cause() is not False
        return True

    # processes

    def _worker_killed(self) -> None:
        self.random.choice(self.fleet.workers).send(signal.SIGKILL)

    def _worker_stopped(self) -> None:
        pid = self.random.choice(self.fleet.workers).pid
        os.kill(pid, signal.SIGSTOP)

        def wake() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        threading.Timer(STOP_SECONDS, wake).start()

    def _redis_killed(self) -> None:
        if self.fleet.server.pid:
            os.kill(self.fleet.server.pid, signal.SIGKILL)

    def _all_killed(self) -> None:
        for process in (self.fleet.api, *self.fleet.workers):
            process.send(signal.SIGKILL)
        self._redis_killed()

    # Redis

    def _redis_readonly(self) -> None:
        # a replica of a server that does not exist keeps its data and refuses writes: READONLY
        with self._client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
        url = self.fleet.server.url

        def release() -> None:
            with suppress(redis.RedisError), redis.Redis.from_url(url) as client:
                client.execute_command("REPLICAOF", "NO", "ONE")

        threading.Timer(REDIS_SECONDS, release).start()

    def _redis_loading(self) -> None:
        # rewrite the file as a snapshot, which the server loads with a delay for each key: LOADING until it has ended
        with self._client() as client:
            client.bgrewriteaof()
            until = time.monotonic() + 10
            while client.info("persistence")["aof_rewrite_in_progress"] and time.monotonic() < until:
                time.sleep(0.05)
            delay = REDIS_SECONDS / max(1, client.dbsize())
        self.fleet.server.options["key-load-delay"] = str(round(delay * 1e6))
        self._redis_killed()

        def reset() -> None:
            self.fleet.server.options.pop("key-load-delay", None)

        threading.Timer(3 * REDIS_SECONDS, reset).start()

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self.fleet.server.url)

    # parts

    def _part_truncated(self) -> bool:
        return self._damage(lambda data: data[: len(data) // 2])

    def _part_flipped(self) -> bool:
        def flip(data: bytes) -> bytes:
            changed = bytearray(data)
            position = self.random.randrange(4, len(data) // 2)  # in the columns, not in the footer
            changed[position] ^= 1 << self.random.randrange(8)
            return bytes(changed)

        return self._damage(flip)

    def _damage(self, change: Callable[[bytes], bytes]) -> bool:
        """Change the content of a part; False if there is none yet."""
        parts = sorted(path for group in GROUPS[1:] for path in (self.store / "parts" / group).rglob("*.parquet"))
        if not parts:
            return False
        path = self.random.choice(parts)
        with suppress(FileNotFoundError):  # it may be superseded in this moment
            path.write_bytes(change(path.read_bytes()))
            return True
        return False
