"""Heartbeats: what each worker says of itself every few seconds, and who has been heard of lately."""

from __future__ import annotations

from typing import Any

import redis
from pydantic import BaseModel

from strata.core.chunks import Chunk
from strata.queue import keys


class Heartbeat(BaseModel):
    """One worker: ready when its models are loaded; chunks: what it holds."""

    name: str
    pid: int
    groups: list[str]
    ready: bool
    chunks: list[Chunk]


class Heartbeats:
    """The workers of one Redis. All methods raise redis.RedisError when it cannot be reached."""

    def __init__(self, connection: redis.Redis) -> None:
        self.redis = connection

    def tell(self, beat: Heartbeat, seconds: float) -> None:
        """Be heard of for so many seconds."""
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.set(keys.worker(beat.name), beat.model_dump_json(), px=round(seconds * 1000))
            pipe.sadd(keys.WORKERS, beat.name)
            pipe.execute()

    def all(self) -> list[Heartbeat]:
        """The workers that are heard of; the names of others are forgotten."""
        members: Any = self.redis.smembers(keys.WORKERS)
        names = sorted(members)
        texts: Any = self.redis.mget([keys.worker(name) for name in names]) if names else []
        silent = [name for name, text in zip(names, texts, strict=True) if text is None]
        if silent:
            self.redis.srem(keys.WORKERS, *silent)
        return [Heartbeat.model_validate_json(text) for text in texts if text is not None]
