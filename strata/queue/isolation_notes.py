"""Isolation notes: what a worker computes now in a chunk, and how often workers died with that in flight."""

from __future__ import annotations

from typing import Any, cast

from strata.queue import keys
from strata.queue.connection import Connection, translate_errors

WHOLE_CHUNK = "chunk"  # in place of a row's number: several rows are in flight together
EXPIRY_SECONDS = 7 * 86_400
CURRENT = "current"  # the hash's field for what is in flight now; each other field counts the deaths of one row


@translate_errors
class IsolationNotes:
    """The notes on all chunks; `Broker.finish` removes those of a chunk. Every method raises QueueUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def count_death(self, chunk_id: str) -> dict[str, int]:
        """Count a death for what the previous holder had in flight, if anything, and mark the chunk as in flight.

        Returns the number of deaths by row, and under WHOLE_CHUNK those with several rows in flight.
        """
        key = keys.in_flight(chunk_id)
        current = cast("str | None", self._redis.hget(key, CURRENT))
        with self._redis.pipeline(transaction=True) as pipe:
            # move what was in flight to the count of deaths
            if current is not None:
                pipe.hincrby(key, current, 1)
                pipe.hdel(key, CURRENT)
            # read all counts before the new mark is set, so that the mark is not among them
            pipe.hgetall(key)
            pipe.hset(key, CURRENT, WHOLE_CHUNK)
            pipe.expire(key, EXPIRY_SECONDS)
            found: Any = pipe.execute()[-3]
        return {row: int(deaths) for row, deaths in found.items()}

    def mark(self, chunk_id: str, row: int | None = None) -> None:
        """Note what is in flight now: one row alone, or with None the whole chunk."""
        key = keys.in_flight(chunk_id)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(key, CURRENT, WHOLE_CHUNK if row is None else str(row))
            pipe.expire(key, EXPIRY_SECONDS)
            pipe.execute()

    def clear(self, chunk_id: str) -> None:
        """Note that nothing is in flight: if the worker dies now, the chunk is not the cause."""
        self._redis.hdel(keys.in_flight(chunk_id), CURRENT)
