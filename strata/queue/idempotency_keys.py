"""The state of requests with an `Idempotency-Key`: in flight, or answered."""

from __future__ import annotations

from typing import cast

from strata.queue import keys
from strata.queue.connection import Connection, translate_errors

IN_FLIGHT_SECONDS = 300  # a request whose process died frees its key after this; longer than the longest `wait`
ANSWER_SECONDS = 86_400  # an answer is replayed for this long


@translate_errors
class IdempotencyKeys:
    """One text for each key, written by the caller. Every method raises QueueUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def begin(self, key: str, text: str) -> str | None:
        """Reserve a key with a text for IN_FLIGHT_SECONDS; None on success, else the text that the key has."""
        while True:
            if self._redis.set(keys.idempotency(key), text, nx=True, ex=IN_FLIGHT_SECONDS):
                return None
            # the key may be freed between the two commands: then try to reserve it again
            existing = cast("str | None", self._redis.get(keys.idempotency(key)))
            if existing is not None:
                return existing

    def keep(self, key: str, text: str) -> None:
        """Replace a key's text by that of its answer, for ANSWER_SECONDS."""
        self._redis.set(keys.idempotency(key), text, ex=ANSWER_SECONDS)

    def free(self, key: str) -> None:
        """Remove a key, so that the next request with it is executed."""
        self._redis.delete(keys.idempotency(key))
