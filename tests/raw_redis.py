"""A plain Redis client for tests: to empty the server, and to look at keys that no method of the queue shows."""

from __future__ import annotations

import redis

from strata.queue.queue import Queue


def raw_redis(queue: Queue) -> redis.Redis:
    """A client of a queue's server."""
    return redis.Redis.from_url(queue.url, decode_responses=True)
