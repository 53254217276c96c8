"""Poison isolation: finds the image that ends the workers that compute it, so that its neighbours come out whole.

A chunk that ended a worker is computed image by image, with a note of the one in hand. What was in hand alone at two
deaths is passed over. The notes lie in Redis: losing them costs another death, never a row.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import redis

from strata.queue import keys
from strata.queue.broker import Claim

DEATHS = 2  # with an image alone in hand, after which it is poison
CHUNK_DEATHS = 4  # with the chunk in hand, but no image alone, after which the whole chunk is
EXPIRY = 7 * 86_400  # seconds
_CHUNK = "chunk"


@dataclass(frozen=True)
class Verdict:
    """What a chunk's deaths tell. careful: it ended a worker; rows: its poison; hopeless: all of it is."""

    careful: bool = False
    rows: frozenset[int] = frozenset()
    hopeless: bool = False


class Isolation:
    """The notes on one chunk; `Broker.finish` removes them. Only `begin` raises redis.RedisError."""

    def __init__(self, connection: redis.Redis, claim: Claim) -> None:
        self.redis, self.key = connection, keys.in_hand(claim.chunk.id)
        self._again = claim.deliveries > 1

    def begin(self) -> Verdict:
        """Count the death of the holder before, if it had the chunk in hand and not only waiting; then hold it.

        A first delivery has no holder before it: nothing is asked and nothing noted.
        """
        if not self._again:
            return Verdict()
        now = cast("str | None", self.redis.hget(self.key, "now"))
        with self.redis.pipeline(transaction=True) as pipe:
            if now is not None:
                pipe.hincrby(self.key, now, 1)
                pipe.hdel(self.key, "now")
            pipe.hgetall(self.key)
            pipe.hset(self.key, "now", _CHUNK)
            pipe.expire(self.key, EXPIRY)
            found: Any = pipe.execute()[-3]
        deaths = {row: int(times) for row, times in found.items()}
        whole = deaths.pop(_CHUNK, 0)
        poison = frozenset(int(row) for row, times in deaths.items() if times >= DEATHS)
        return Verdict(bool(found), poison, whole >= CHUNK_DEATHS)

    def hold(self, row: int | None = None) -> None:
        """Note what is in hand now: a row alone, or the chunk as a whole."""
        # a note that cannot be taken costs at most another death
        with suppress(redis.RedisError), self.redis.pipeline(transaction=False) as pipe:
            pipe.hset(self.key, "now", _CHUNK if row is None else str(row))
            pipe.expire(self.key, EXPIRY)
            pipe.execute()

    def opened(self) -> None:
        """The chunk waits with its items read: a death from here on is not its fault."""
        if self._again:
            self.let_go()

    def let_go(self) -> None:
        """Nothing is in hand any more."""
        with suppress(redis.RedisError):
            self.redis.hdel(self.key, "now")
