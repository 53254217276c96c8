"""The broker: chunks are queued, claimed under a lease, renewed, reclaimed and finished, on Redis Streams.

There is one stream for each group and priority, and in front of it a lane for each caller: the callers take turns (see
`scripts/lanes.lua`). A chunk is queued once however many jobs ask for it; when it is finished, it is counted for every
job that waits for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis

from strata.core import GROUPS, Chunk
from strata.queue import keys
from strata.queue.connection import Connection, translate_errors
from strata.queue.isolation_notes import CURRENT
from strata.queue.job_events import MAX_EVENTS
from strata.queue.scripts import STOPPED_TABLE, load_script, load_with_waits, open_jobs_script

PRIORITIES = ("hi", "lo")  # in the order in which they are served
RETURNED = "returned"  # a field of the messages of chunks that have stepped aside before
_DAY_MS = 86_400_000
_MOST_MOVED = 1000  # chunks that one call of `claim` parks, returns or removes: Redis serves nobody else meanwhile
_TRIAL_CHECK_MS = 10_000  # after this time it is looked whether a trial still goes on


@dataclass(frozen=True)
class Claim:
    """A chunk in flight: its message in a stream, and the number of its deliveries (1: this is the first one).

    returned: it has stepped aside before, so that rows of it may be computed already; caller: whose turn it took.
    """

    chunk: Chunk
    stream: str
    message: str
    deliveries: int = 1
    returned: bool = False
    caller: str = ""

    @classmethod
    def of(cls, stream: str, message: str, fields: Mapping[str, str], deliveries: int = 1) -> Claim:
        """The claim of a message with these fields."""
        returned, caller = RETURNED in fields, fields.get(keys.CALLER, "")
        return cls(Chunk.from_fields(fields), stream, message, deliveries, returned, caller)

    @property
    def priority(self) -> str:
        """The priority of its stream: "hi" or "lo"."""
        return self.stream.rpartition(":")[2]

    @property
    def trial(self) -> bool:
        """Whether the chunk was claimed to find out if the stage that its fingerprint waits for works again."""
        return f":{keys.TRIAL}:" in self.stream


class Queued(NamedTuple):
    """How many chunks of a group are in the streams, queued or in flight, and how many in each caller's lanes."""

    in_streams: int
    in_lanes: Counter[str]


@translate_errors
class Broker:
    """The streams of chunks. Every method raises QueueUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        jobs = {"JOB": keys.JOB, "STOPPED": STOPPED_TABLE}
        finish = load_with_waits(
            "finish",
            OPEN_JOBS=open_jobs_script(),
            EVENTS=keys.EVENTS_SUFFIX,
            MAX_EVENTS=str(MAX_EVENTS),
            WAITERS=keys.waiters(""),
            **jobs,
        )
        self._enqueue = connection.register_script(load_with_waits("enqueue", **jobs))
        self._queued = connection.register_script(load_with_waits("queued"))
        self._restore_turns = connection.register_script(load_with_waits("restore_turns", OPEN=keys.OPEN))
        self._claim = connection.register_script(load_with_waits("claim"))
        self._admit = connection.register_script(load_with_waits("admit"))
        self._finish = connection.register_script(finish)
        self._drop = connection.register_script(load_with_waits("drop"))
        self._release_all = connection.register_script(load_script("release_all"))
        self._renew = connection.register_script(load_with_waits("renew"))

    # queueing

    def enqueue(self, chunk: Chunk, job_id: str, priority: str) -> bool:
        """Queue a chunk for a job; False if it was queued or in flight already. The job waits for it either way.

        Nothing is queued for a job that was cancelled or has ended.
        """
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
        """The number of a group's chunks that are queued or in flight, without those that have stepped aside."""
        queued = self.queued(group)
        return queued.in_streams + queued.in_lanes.total()

    def queued(self, group: str) -> Queued:
        """Where a group's chunks are, without those that have stepped aside."""
        in_streams, *lanes = cast("list[Any]", self._queued(keys=_streams(group), args=[group, *PRIORITIES]))
        in_lanes: Counter[str] = Counter()
        for caller, number in zip(lanes[::2], lanes[1::2], strict=True):
            in_lanes[caller] += int(number)
        return Queued(int(in_streams), in_lanes)

    def restore_turns(self) -> int:
        """Give a turn to callers whose chunks would never be claimed without; how many. Redis may have lost turns."""
        return sum(int(self._restore_turns(args=[group, *PRIORITIES])) for group in GROUPS)

    def waiting_jobs(self, chunk: Chunk) -> set[str]:
        """The ids of the jobs that wait for a chunk. If there are none, the chunk need not be computed."""
        return cast("set[str]", self._redis.smembers(keys.waiters(chunk.id)))

    def all_waiting_jobs(self, chunks: Sequence[Chunk]) -> list[set[str]]:
        """`waiting_jobs` of several chunks, in order, in one round trip."""
        if not chunks:
            return []
        with self._redis.pipeline(transaction=False) as pipe:
            for chunk in chunks:
                pipe.smembers(keys.waiters(chunk.id))
            return list(pipe.execute())

    def is_queued(self, chunk: Chunk, job_id: str) -> bool:
        """Whether a chunk is queued, in flight or parked, and a job waits for it."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hexists(keys.QUEUED, chunk.id)
            pipe.sismember(keys.waiters(chunk.id), job_id)
            return all(pipe.execute())

    def withdraw(self, job_id: str, chunks: Iterable[Chunk] | None = None) -> None:
        """Remove a job from those that wait for any chunk. `claim` and `reclaim` drop chunks without waiting jobs.

        chunks: those that the job can wait for, if they are few; None: not known.
        """
        # the sets of waiting jobs are named by chunk, so all chunks in the queue are visited
        queued = cast("list[str]", self._redis.hkeys(keys.QUEUED)) if chunks is None else [chunk.id for chunk in chunks]
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
        """Claim at most count chunks, the first priority first. Waits at most block seconds for one to be queued.

        Chunks whose fingerprint waits for a stage are parked instead; when its pause is over, one of them is a trial.
        """
        streams = [keys.stream(group, priority) for priority in priorities]
        trials: list[str] = [text for priority in priorities for text in (priority, keys.trials(group, priority))]
        limits: list[str | int] = [group, _MOST_MOVED, _TRIAL_CHECK_MS]
        try:
            # the script reads without waiting: Redis does not allow a blocking command in a script
            found: Any = self._claim(
                keys=[keys.QUEUED, *streams], args=[keys.CONSUMER_GROUP, consumer, count, *limits, *trials]
            )
            if found or block <= 0:
                return [Claim.of(stream, message, _fields_of(flat)) for stream, (message, flat) in found]
            return [claim for claim in self._wait(streams, consumer, block) if self._is_admitted(claim)]
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            # a new or an emptied server: create the consumer groups, and let the caller try again
            self._create_groups(keys.stream(group, priority) for priority in PRIORITIES)
            return []

    def _wait(self, streams: list[str], consumer: str, seconds: float) -> list[Claim]:
        """Claim the chunk that is queued next, if one is queued within so many seconds."""
        # ">" reads messages that were not delivered to any consumer
        positions: Any = dict.fromkeys(streams, ">")
        reply: Any = self._redis.xreadgroup(
            keys.CONSUMER_GROUP, consumer, positions, count=1, block=max(1, round(seconds * 1000))
        )
        return [Claim.of(stream, message, fields) for stream, messages in reply or [] for message, fields in messages]

    def _is_admitted(self, claim: Claim) -> bool:
        """Whether a chunk of a blocking read is to be computed; else it has been parked or removed."""
        args = [keys.CONSUMER_GROUP, claim.message, claim.chunk.group, claim.priority]
        return bool(self._admit(keys=[claim.stream, keys.QUEUED], args=args))

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
        for stream in _streams(group):
            for claim in self._lapsed(stream, consumer, idle):
                # a chunk whose jobs were all cancelled is removed instead of computed
                if not self.waiting_jobs(claim.chunk):
                    self.drop(claim, consumer)
                    continue
                claims.append(claim)
                if len(claims) >= count:
                    return claims
        return claims

    def _lapsed(self, stream: str, consumer: str, idle: float) -> Iterator[Claim]:
        """Claim a stream's chunks whose leases have lapsed, one after the other."""
        cursor = "0-0"
        while True:
            try:
                # one call looks at ten messages for each one that it may claim, and says where to go on
                reply: Any = self._redis.xautoclaim(
                    stream, keys.CONSUMER_GROUP, consumer, round(idle * 1000), start_id=cursor, count=1
                )
            except redis.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                return  # no consumer group: nothing was ever claimed from this stream
            cursor = reply[0]
            for message, fields in reply[1]:
                yield Claim.of(stream, message, fields, self._deliveries(stream, message))
            if cursor == "0-0":
                return

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

    def release_all(self, consumer: str) -> None:
        """Release all leases of a worker that has ended, as `release` does with `counted`; its isolation notes stay."""
        for group in GROUPS:
            self._release_all(keys=_streams(group), args=[keys.CONSUMER_GROUP, consumer, _DAY_MS])

    # ends

    def finish(
        self,
        claim: Claim,
        consumer: str,
        value: str,
        counts: Mapping[str, int],
        following: Chunk | None = None,
        sums: Mapping[str, float] | None = None,
    ) -> bool:
        """Acknowledge a chunk, count it for every waiting job, and queue the next group's chunk, atomically.

        value: kept with the chunk in each job's working copy; for `index` the shard's summary as JSON. following: each
        job gets the chunk with its own fingerprint of that group. sums: what is added to `Sums`, once. Returns False,
        with nothing changed, if another worker has reclaimed the chunk.
        """
        chunk = claim.chunk
        # the order of keys and arguments is documented in scripts/finish.lua
        where = [claim.stream, keys.waiters(chunk.id), keys.QUEUED, keys.in_flight(chunk.id), keys.SUMS]
        rest: list[str] = [""]
        if following is not None:
            fields = following.to_fields() | ({keys.CALLER: claim.caller} if claim.caller else {})
            rest = [following.group, claim.priority, *_flat(fields)]
        head = [claim.message, keys.CONSUMER_GROUP, consumer, chunk.id, chunk.field]
        what = [chunk.group, chunk.fingerprint, value, json.dumps(dict(counts)), json.dumps(dict(sums or {}))]
        return bool(self._finish(keys=where, args=[*head, *what, *rest]))

    def drop(self, claim: Claim, consumer: str) -> bool:
        """Remove a chunk without counting it for any job; False if another worker has reclaimed it."""
        chunk = claim.chunk
        where = [claim.stream, keys.waiters(chunk.id), keys.QUEUED, keys.in_flight(chunk.id)]
        args = [claim.message, keys.CONSUMER_GROUP, consumer, chunk.id, chunk.group, chunk.fingerprint]
        return bool(self._drop(keys=where, args=args))


def _streams(group: str) -> list[str]:
    """All streams of a group's chunks, also those of trials."""
    return [*(keys.stream(group, priority) for priority in PRIORITIES), *(keys.trials(group, p) for p in PRIORITIES)]


def _enqueue_arguments(chunk: Chunk, job_id: str, priority: str) -> tuple[list[str], list[str]]:
    where = [keys.waiters(chunk.id), keys.QUEUED]
    return where, [chunk.id, job_id, chunk.group, priority, *_flat(chunk.to_fields())]


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _fields_of(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
