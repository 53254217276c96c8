"""Heartbeats: what each worker reports every few seconds, and which workers have reported lately; what all counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from strata.core import Chunk
from strata.processes import has_ended
from strata.queue import keys
from strata.queue.connection import Connection, translate_errors


class HeldUp(BaseModel):
    """A chunk that a worker cannot go on with, because the store or a shard is away.

    seconds: how long it has waited, by the worker's monotonic clock; attempts: how often it has tried.
    """

    chunk: Chunk
    stage: Literal["store", "shard"]
    reason: str
    seconds: float
    attempts: int


class Gpu(BaseModel):
    """A GPU as a worker sees it: bytes used by all processes, bytes in all, and bytes that the worker has reserved.

    utilization: the share of the last second in which a kernel ran; None if it is not known.
    """

    device: int
    used_bytes: int
    total_bytes: int
    reserved_bytes: int
    utilization: float | None = None


class LoadedProfile(BaseModel):
    """A profile whose models for a group are loaded. fingerprint: of the group's stages, without a job's texts."""

    group: str
    profile: str
    fingerprint: str


class Heartbeat(BaseModel):
    """The state of one worker.

    process: its `process_identity`. ready: its models are loaded; chunks: the chunks whose leases it holds; held_up:
    the chunks that it waits with. loaded: the profiles whose models it has in memory. host: where it runs;
    resident_bytes: its memory, 0 if not known.
    """

    name: str
    pid: int
    process: str = ""
    groups: list[str]
    ready: bool
    chunks: list[Chunk]
    held_up: list[HeldUp] = []
    loaded: list[LoadedProfile] = []
    host: str = ""
    resident_bytes: int = 0
    gpus: list[Gpu] = []


@translate_errors
class Heartbeats:
    """The heartbeats of all workers. Every method raises QueueUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def publish(self, heartbeat: Heartbeat, seconds: float) -> None:
        """Publish a heartbeat that expires after so many seconds."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(keys.worker(heartbeat.name), heartbeat.model_dump_json(), px=round(seconds * 1000))
            pipe.sadd(keys.WORKERS, heartbeat.name)
            pipe.execute()

    def withdraw(self, name: str) -> None:
        """Remove the heartbeat of a worker that ends, so that it does not count as live until it expires."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(keys.worker(name))
            pipe.srem(keys.WORKERS, name)
            pipe.execute()

    def live(self) -> list[Heartbeat]:
        """The heartbeats that have not expired, by the workers' names, without those of `ended`."""
        return [heartbeat for heartbeat in self._all() if not has_ended(heartbeat.process)]

    def ended(self) -> list[str]:
        """The names of the workers of this machine whose processes have ended before their heartbeats expired."""
        return [heartbeat.name for heartbeat in self._all() if has_ended(heartbeat.process)]

    def _all(self) -> list[Heartbeat]:
        """The heartbeats that have not expired. Removes the names of the other workers."""
        # read the heartbeats of all known names in one command: SCAN for their keys would walk the whole database
        members: Any = self._redis.smembers(keys.WORKERS)
        names = sorted(members)
        texts: Any = self._redis.mget([keys.worker(name) for name in names]) if names else []
        # a name without a heartbeat belongs to a worker that has ended
        expired = [name for name, text in zip(names, texts, strict=True) if text is None]
        if expired:
            self._redis.srem(keys.WORKERS, *expired)
        return [heartbeat for text in texts if text is not None and (heartbeat := _parsed(text)) is not None]

    def ready_workers(self, pids: Collection[int] | None = None) -> Counter[str]:
        """The number of ready workers of each group. pids: only these processes count; None: all."""
        ready = [heartbeat for heartbeat in self.live() if heartbeat.ready]
        return Counter(group for one in ready if pids is None or one.pid in pids for group in one.groups)


@translate_errors
class Sums:
    """What all processes have counted since Redis was emptied, by field. Every method raises QueueUnavailable.

    The sums only grow: a worker that ends takes nothing away.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def add(self, sums: Mapping[str, float]) -> None:
        """Add to several fields, all in one step."""
        if sums:
            with self._redis.pipeline(transaction=True) as pipe:
                for field, number in sums.items():
                    pipe.hincrbyfloat(keys.SUMS, field, number)
                pipe.execute()

    def read(self) -> dict[str, float]:
        """All sums."""
        found: Any = self._redis.hgetall(keys.SUMS)
        return {field: float(number) for field, number in found.items()}


def _parsed(text: str) -> Heartbeat | None:
    """A worker's heartbeat; None if it is that of another version, whose work this one does not know."""
    try:
        return Heartbeat.model_validate_json(text)
    except ValidationError:
        return None
