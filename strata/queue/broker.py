"""The queue on Redis Streams: claim, renew, take over, and one Lua call that finishes a chunk.

One stream a group and priority. A chunk is queued once whoever asks, and every job that asked is told when it is
finished. Nothing here must survive: parts in the store are the truth. Works on Redis 7.0 and Valkey 8 or later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from strata.core.chunks import Chunk
from strata.queue import keys
from strata.queue import scripts as broker_scripts


@dataclass(frozen=True)
class Claim:
    """A chunk in hand: whose message it is, and how often it was delivered (1: the first time)."""

    chunk: Chunk
    stream: str
    message: str
    deliveries: int = 1

    @property
    def priority(self) -> str:
        """ "hi" or "lo"."""
        return self.stream.rpartition(":")[2]


class Broker:
    """The streams of one Redis or Valkey server. All methods raise redis.RedisError when it cannot be reached."""

    def __init__(self, url: str) -> None:
        # RESP2 answers have the same shape on every server and client version that we support
        self.redis = redis.Redis.from_url(
            url,
            decode_responses=True,
            protocol=2,
            socket_connect_timeout=5,
            socket_timeout=20,
            health_check_interval=30,
        )
        self._enqueue = self.redis.register_script(broker_scripts.ENQUEUE)
        self._claim = self.redis.register_script(broker_scripts.CLAIM)
        self._finish = self.redis.register_script(broker_scripts.FINISH)
        self._record = self.redis.register_script(broker_scripts.RECORD)
        self._renew = self.redis.register_script(broker_scripts.RENEW)

    def enqueue(self, chunk: Chunk, job_id: str, priority: str) -> bool:
        """Ask for a chunk in a job's name; False if it was queued or in hand already."""
        where, args = _asking(chunk, job_id, priority)
        return bool(self._enqueue(keys=where, args=args))

    def enqueue_all(self, chunks: Iterable[Chunk], job_id: str, priority: str) -> None:
        """Ask for many chunks in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for chunk in chunks:
                where, args = _asking(chunk, job_id, priority)
                self._enqueue(keys=where, args=args, client=pipe)
            pipe.execute()

    def depth(self, group: str) -> int:
        """Messages of a group, queued or in hand."""
        return sum(int(self.redis.xlen(keys.stream(group, priority))) for priority in keys.PRIORITIES)

    def claim(
        self,
        group: str,
        consumer: str,
        count: int,
        block: float = 0.0,
        priorities: Sequence[str] = keys.PRIORITIES,
    ) -> list[Claim]:
        """Up to count chunks that jobs wait for, of the first priority first; waits at most block seconds for one."""
        streams = [keys.stream(group, priority) for priority in priorities]
        try:
            found: Any = self._claim(keys=[keys.QUEUED, *streams], args=[keys.CONSUMER_GROUP, consumer, count])
            if found or block <= 0:
                return [Claim(Chunk.from_fields(_pairs(flat)), stream, message) for stream, (message, flat) in found]
            return self._wait(streams, consumer, block)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._create_groups(streams)  # a new or emptied server
            return []

    def _wait(self, streams: list[str], consumer: str, seconds: float) -> list[Claim]:
        """The chunk that is queued next, if one is within so many seconds."""
        wanted: Any = dict.fromkeys(streams, ">")
        answer: Any = self.redis.xreadgroup(
            keys.CONSUMER_GROUP, consumer, wanted, count=1, block=max(1, round(seconds * 1000))
        )
        return [
            Claim(Chunk.from_fields(fields), stream, message)
            for stream, messages in answer or []
            for message, fields in messages
        ]

    def _create_groups(self, streams: Iterable[str]) -> None:
        for stream in streams:
            try:
                self.redis.xgroup_create(stream, keys.CONSUMER_GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def take_over(self, group: str, consumer: str, idle: float, count: int = 1) -> list[Claim]:
        """Up to count chunks that jobs wait for and whose holder has been silent for idle seconds."""
        claims: list[Claim] = []
        for priority in keys.PRIORITIES:
            stream = keys.stream(group, priority)
            try:
                answer: Any = self.redis.xautoclaim(
                    stream,
                    keys.CONSUMER_GROUP,
                    consumer,
                    min_idle_time=round(idle * 1000),
                    count=count - len(claims),
                )
            except redis.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                continue
            for message, fields in answer[1]:
                pending: Any = self.redis.xpending_range(stream, keys.CONSUMER_GROUP, message, message, 1)
                deliveries = int(pending[0]["times_delivered"]) if pending else 1
                claim = Claim(Chunk.from_fields(fields), stream, message, deliveries)
                if self.waiting_jobs(claim.chunk):
                    claims.append(claim)
                else:
                    self.drop(claim, consumer)
            if len(claims) >= count:
                break
        return claims

    def renew(self, claim: Claim, consumer: str) -> bool:
        """Tell that the holder is alive; False if the chunk is no longer its own."""
        return bool(self._renew(keys=[claim.stream], args=[keys.CONSUMER_GROUP, consumer, claim.message]))

    def give_back(self, claim: Claim, consumer: str) -> None:
        """Let another worker take the chunk over at once; this delivery is not counted, for nothing died."""
        if self.renew(claim, consumer):
            self.redis.xclaim(
                claim.stream,
                keys.CONSUMER_GROUP,
                consumer,
                0,
                [claim.message],
                idle=86_400_000,
                retrycount=claim.deliveries - 1,
                justid=True,
            )
            self.redis.hdel(keys.in_hand(claim.chunk.id), "now")

    def finish(
        self,
        claim: Claim,
        consumer: str,
        value: str,
        counts: Mapping[str, int],
        following: Chunk | None = None,
    ) -> bool:
        """Ack, delete, count for every job that waits, and queue the next group's chunk: all or nothing.

        Returns False, with nothing done, if the chunk was taken over by another worker meanwhile.
        """
        chunk = claim.chunk
        where = [claim.stream, keys.waiters(chunk.id), keys.QUEUED, keys.in_hand(chunk.id)]
        rest: list[str] = [""]
        if following is not None:
            where += [keys.stream(following.group, claim.priority), keys.waiters(following.id)]
            rest = [following.id, *_flat(following.to_fields())]
        head = [claim.message, keys.CONSUMER_GROUP, consumer, chunk.id, chunk.field, chunk.group, value]
        return bool(self._finish(keys=where, args=[*head, json.dumps(dict(counts)), *rest]))

    def drop(self, claim: Claim, consumer: str) -> bool:
        """Forget a chunk that nobody wants or that cannot be done; False if it was taken over."""
        self.redis.delete(keys.waiters(claim.chunk.id))
        return self.finish(claim, consumer, "", {})

    def record(self, job_id: str, chunk: Chunk, value: str, counts: Mapping[str, int]) -> bool:
        """Count a chunk that was done before for a job; False if it was counted already."""
        where = [keys.done(job_id, chunk.group), keys.job(job_id), keys.events(job_id)]
        return bool(self._record(keys=where, args=[chunk.field, value, json.dumps(dict(counts)), chunk.group]))

    def recorded(self, job_id: str, group: str, fields: Sequence[str]) -> set[str]:
        """Those of the chunks' fields that were counted for a job."""
        values: Any = self.redis.hmget(keys.done(job_id, group), list(fields))
        return {field for field, value in zip(fields, values, strict=True) if value is not None}

    def waiting_jobs(self, chunk: Chunk) -> set[str]:
        """The jobs that wait for a chunk; none: nobody wants it any more."""
        answer: Any = self.redis.smembers(keys.waiters(chunk.id))
        return set(answer)


def _asking(chunk: Chunk, job_id: str, priority: str) -> tuple[list[str], list[str]]:
    where = [keys.stream(chunk.group, priority), keys.waiters(chunk.id), keys.QUEUED]
    return where, [chunk.id, job_id, *_flat(chunk.to_fields())]


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
