"""The broker: chunks are queued, claimed under a lease, renewed, reclaimed and finished, on Redis Streams.

There is one stream for each group and priority. A chunk is queued once however many jobs ask for it; when it is
finished, it is counted for every job that waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis

from strata.core import Chunk
from strata.queue import keys
from strata.queue.connection import Connection, translate_errors
from strata.queue.isolation_notes import CURRENT
from strata.queue.job_events import MAX_EVENTS
from strata.queue.scripts import load_script

PRIORITIES = ("hi", "lo")  # in the order in which they are served
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Claim:
    """A chunk in flight: its message in a stream, and the number of its deliveries (1: this is the first one)."""

    chunk: Chunk
    stream: str
    message: str
    deliveries: int = 1

    @property
    def priority(self) -> str:
        """ "hi" or "lo"."""
        return self.stream.rpartition(":")[2]


@translate_errors
class Broker:
    """The streams of chunks. Every method raises QueueUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        finish = load_script("finish", JOB=keys.job(""), EVENTS=keys.EVENTS_SUFFIX, MAX_EVENTS=str(MAX_EVENTS))
        self._enqueue = connection.register_script(load_script("enqueue"))
        self._claim = connection.register_script(load_script("claim", WAITERS=keys.waiters("")))
        self._finish = connection.register_script(finish)
        self._renew = connection.register_script(load_script("renew"))

    # queueing

    def enqueue(self, chunk: Chunk, job_id: str, priority: str) -> bool:
        """Queue a chunk for a job; False if it was queued or in flight already. The job waits for it either way."""
        where, args = _enqueue_arguments(chunk, job_id, priority)
        return bool(self._enqueue(keys=where, args=args))

    def enqueue_all(self, chunks: Iterable[Chunk], job_id: str, priority: str) -> None:
        """Queue many chunks for a job in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for chunk in chunks:
                where, args = _enqueue_arguments(chunk, job_id, priority)
                self._enqueue(keys=where, args=args, client=pipe)
            pipe.execute()

    def depth(self, group: str) -> int:
        """The number of a group's chunks that are queued or in flight."""
        return sum(int(self._redis.xlen(keys.stream(group, priority))) for priority in PRIORITIES)

    def waiting_jobs(self, chunk: Chunk) -> set[str]:
        """The ids of the jobs that wait for a chunk. If there are none, the chunk need not be computed."""
        return cast("set[str]", self._redis.smembers(keys.waiters(chunk.id)))

    def withdraw(self, job_id: str) -> None:
        """Remove a job from those that wait for any chunk. `claim` and `reclaim` drop chunks without waiting jobs."""
        # the sets of waiting jobs are named by chunk, so all chunks in the queue are visited
        queued = cast("list[str]", self._redis.hkeys(keys.QUEUED))
        with self._redis.pipeline(transaction=False) as pipe:
            for chunk_id in queued:
                pipe.srem(keys.waiters(chunk_id), job_id)
            pipe.execute()

    # leases

    def claim(
        self,
        group: str,
        consumer: str,
        count: int,
        block: float = 0.0,
        priorities: Sequence[str] = PRIORITIES,
    ) -> list[Claim]:
        """Claim at most count chunks, the first priority first. Waits at most block seconds for one to be queued."""
        streams = [keys.stream(group, priority) for priority in priorities]
        try:
            # the script reads without waiting: Redis does not allow a blocking command in a script
            found: Any = self._claim(keys=[keys.QUEUED, *streams], args=[keys.CONSUMER_GROUP, consumer, count])
            if found or block <= 0:
                return [Claim(_chunk_of(flat), stream, message) for stream, (message, flat) in found]
            return self._wait(streams, consumer, block)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            # a new or an emptied server: create the consumer groups, and let the caller try again
            self._create_groups(streams)
            return []

    def _wait(self, streams: list[str], consumer: str, seconds: float) -> list[Claim]:
        """Claim the chunk that is queued next, if one is queued within so many seconds."""
        # ">" reads messages that were not delivered to any consumer
        positions: Any = dict.fromkeys(streams, ">")
        reply: Any = self._redis.xreadgroup(
            keys.CONSUMER_GROUP, consumer, positions, count=1, block=max(1, round(seconds * 1000))
        )
        return [
            Claim(Chunk.from_fields(fields), stream, message)
            for stream, messages in reply or []
            for message, fields in messages
        ]

    def _create_groups(self, streams: Iterable[str]) -> None:
        for stream in streams:
            try:
                self._redis.xgroup_create(stream, keys.CONSUMER_GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):  # another process has created it in this moment
                    raise

    def renew(self, claim: Claim, consumer: str) -> bool:
        """Renew the lease on a chunk; False if the consumer no longer holds it."""
        return bool(self._renew(keys=[claim.stream], args=[keys.CONSUMER_GROUP, consumer, claim.message]))

    def reclaim(self, group: str, consumer: str, idle: float, count: int = 1) -> list[Claim]:
        """Claim at most count chunks whose holders have not renewed their leases for idle seconds."""
        claims: list[Claim] = []
        for priority in PRIORITIES:
            stream = keys.stream(group, priority)
            for claim in self._reclaim(stream, consumer, idle, count - len(claims)):
                # a chunk whose jobs were all cancelled is removed instead of computed
                if self.waiting_jobs(claim.chunk):
                    claims.append(claim)
                else:
                    self.drop(claim, consumer)
            if len(claims) >= count:
                break
        return claims

    def _reclaim(self, stream: str, consumer: str, idle: float, count: int) -> list[Claim]:
        try:
            reply: Any = self._redis.xautoclaim(
                stream, keys.CONSUMER_GROUP, consumer, min_idle_time=round(idle * 1000), count=count
            )
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            return []  # no consumer group: nothing was ever claimed from this stream
        return [
            Claim(Chunk.from_fields(fields), stream, message, self._deliveries(stream, message))
            for message, fields in reply[1]
        ]

    def _deliveries(self, stream: str, message: str) -> int:
        pending: Any = self._redis.xpending_range(stream, keys.CONSUMER_GROUP, message, message, 1)
        return int(pending[0]["times_delivered"]) if pending else 1

    def release(self, claim: Claim, consumer: str, counted: bool = False) -> None:
        """Release a lease, so that another worker can reclaim the chunk at once.

        counted: whether this delivery counts, so that the next holder reads the chunk's isolation notes.
        """
        if not self.renew(claim, consumer):
            return
        # an idle time of a day makes the message eligible for `reclaim` whatever the lease's length is
        self._redis.xclaim(
            claim.stream,
            keys.CONSUMER_GROUP,
            consumer,
            0,
            [claim.message],
            idle=_DAY_MS,
            retrycount=claim.deliveries - (not counted),
            justid=True,
        )
        # no worker has died: nothing of the chunk is in flight now
        self._redis.hdel(keys.in_flight(claim.chunk.id), CURRENT)

    # ends

    def finish(
        self,
        claim: Claim,
        consumer: str,
        value: str,
        counts: Mapping[str, int],
        following: Chunk | None = None,
    ) -> bool:
        """Acknowledge a chunk, count it for every waiting job, and queue the next group's chunk, atomically.

        value: kept with the chunk in each job's working copy; for `index` the shard's summary as JSON. Returns False,
        with nothing changed, if another worker has reclaimed the chunk.
        """
        chunk = claim.chunk
        # the order of keys and arguments is documented in scripts/finish.lua
        where = [claim.stream, keys.waiters(chunk.id), keys.QUEUED, keys.in_flight(chunk.id)]
        rest: list[str] = [""]
        if following is not None:
            where += [keys.stream(following.group, claim.priority), keys.waiters(following.id)]
            rest = [following.id, *_flat(following.to_fields())]
        head = [claim.message, keys.CONSUMER_GROUP, consumer, chunk.id, chunk.field, chunk.group, value]
        return bool(self._finish(keys=where, args=[*head, json.dumps(dict(counts)), *rest]))

    def drop(self, claim: Claim, consumer: str) -> bool:
        """Remove a chunk without counting it for any job; False if another worker has reclaimed it."""
        # without waiting jobs, finishing counts the chunk for none
        self._redis.delete(keys.waiters(claim.chunk.id))
        return self.finish(claim, consumer, "", {})


def _enqueue_arguments(chunk: Chunk, job_id: str, priority: str) -> tuple[list[str], list[str]]:
    where = [keys.stream(chunk.group, priority), keys.waiters(chunk.id), keys.QUEUED]
    return where, [chunk.id, job_id, *_flat(chunk.to_fields())]


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _chunk_of(flat: Sequence[str]) -> Chunk:
    return Chunk.from_fields(dict(zip(flat[::2], flat[1::2], strict=True)))
