"""Isolation notes: what a worker computes now in a chunk, and what was in flight when processes ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from strata.queue import keys
from strata.queue.connection import Connection, translate_errors

WHOLE_CHUNK = "chunk"  # in place of a row's number: several rows are in flight together
EXPIRY_SECONDS = 7 * 86_400
# the fields of a chunk's hash; each other field is the number of a row, and counts the deaths with that row alone
CURRENT = "current"  # what is in flight now
SUSPECTS = "suspects"  # the numbers of rows that were in flight together when a process ended, separated by commas
IN_A_ROW = "in_a_row"  # deaths with one row in flight since an image of the chunk was computed last
SAVED = "saved"  # whether the store has the rows that a process had computed before it ended
STALLED = "stalled"  # why the process was ended that waited for the storage of the chunk
REASON = "reason:"  # followed by the number of a row: why the process ended that had it alone in flight


@dataclass(frozen=True)
class Notes:
    """The notes on one chunk. A death is the end of a process that computed or read it.

    deaths, reasons: by row, of processes that had that row alone in flight; a killed process gives no reason.
    chunk_deaths: of processes that had several rows in flight and could not say which; suspects: those rows, where a
    process could. in_a_row: deaths with one row in flight since an image of the chunk was computed last. saved: whether
    the store has the rows that a process computed before it ended. stalled: why a process was ended that waited for the
    storage of the chunk; "" if none was.
    """

    deaths: Mapping[int, int] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    chunk_deaths: int = 0
    suspects: frozenset[int] = frozenset()
    in_a_row: int = 0
    saved: bool = False
    stalled: str = ""


@translate_errors
class IsolationNotes:
    """The notes on all chunks; `Broker.finish` removes those of a chunk. Every method raises QueueUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def take_over(self, chunk_id: str) -> Notes:
        """Count the death of the previous holder, if it left a mark, and mark the whole chunk as in flight."""
        key = keys.in_flight(chunk_id)
        current = cast("str | None", self._redis.hget(key, CURRENT))
        with self._redis.pipeline(transaction=True) as pipe:
            # move what was in flight to the count of deaths
            if current is not None:
                pipe.hincrby(key, current, 1)
                if current != WHOLE_CHUNK:
                    pipe.hincrby(key, IN_A_ROW, 1)
                pipe.hdel(key, CURRENT)
            # read all notes before the new mark is set, so that the mark is not among them
            pipe.hgetall(key)
            pipe.hset(key, CURRENT, WHOLE_CHUNK)
            pipe.expire(key, EXPIRY_SECONDS)
            found: Any = pipe.execute()[-3]
        return _parsed(found)

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

    def computed(self, chunk_id: str, row: int | None = None) -> None:
        """Images of the chunk were computed. row: one that was alone, so that it ends no process."""
        own = [] if row is None else [CURRENT, str(row), f"{REASON}{row}"]
        self._redis.hdel(keys.in_flight(chunk_id), IN_A_ROW, *own)

    def ended(self, chunk_id: str, suspects: Collection[int], alone: int | None, reason: str, saved: bool) -> None:
        """A process ends in order, and knows which rows may be the cause.

        suspects: rows that were in flight together, and earlier ones that were not computed since. alone: the row that
        was in flight by itself, which gets one more death with this reason. saved: as in Notes.
        """
        key = keys.in_flight(chunk_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(key, CURRENT)
            pipe.hset(key, SUSPECTS, ",".join(map(str, sorted(suspects))))
            if alone is not None:
                pipe.hincrby(key, str(alone), 1)
                pipe.hincrby(key, IN_A_ROW, 1)
                pipe.hset(key, f"{REASON}{alone}", reason)
            if saved:
                pipe.hset(key, SAVED, "1")
            pipe.expire(key, EXPIRY_SECONDS)
            pipe.execute()

    def explain(self, chunk_id: str, row: int, reason: str) -> None:
        """Note why a process ended that had this row alone in flight, whose death is counted already."""
        key = keys.in_flight(chunk_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, f"{REASON}{row}", reason)
            pipe.expire(key, EXPIRY_SECONDS)
            pipe.execute()

    def stalled(self, chunk_id: str, reason: str) -> None:
        """A process is ended that has waited for the chunk's storage: no row is the cause."""
        key = keys.in_flight(chunk_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(key, CURRENT)
            pipe.hset(key, STALLED, reason)
            pipe.expire(key, EXPIRY_SECONDS)
            pipe.execute()

    def stalled_by(self, chunk_id: str) -> str:
        """What `stalled` has noted last; "" if nothing."""
        return cast("str | None", self._redis.hget(keys.in_flight(chunk_id), STALLED)) or ""

    def go_on(self, chunk_id: str) -> None:
        """The chunk steps aside because its storage has stalled, and is tried again later."""
        self._redis.hdel(keys.in_flight(chunk_id), STALLED, CURRENT)

    def try_again(self, chunk_id: str, notes: Notes, in_a_row: int, chunk_deaths: int) -> None:
        """Nobody knows whether an image is at fault: make all accused rows suspects again, with these counts."""
        key = keys.in_flight(chunk_id)
        suspects = sorted(notes.suspects | notes.deaths.keys())
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(key, CURRENT, *(str(row) for row in suspects), *(f"{REASON}{row}" for row in suspects))
            pipe.hset(
                key,
                mapping={
                    SUSPECTS: ",".join(map(str, suspects)),
                    IN_A_ROW: min(notes.in_a_row, in_a_row),
                    WHOLE_CHUNK: min(notes.chunk_deaths, chunk_deaths),
                },
            )
            pipe.execute()


def _parsed(found: Mapping[str, str]) -> Notes:
    reasons = {name: text for name, text in found.items() if name.startswith(REASON)}
    return Notes(
        deaths={int(name): int(text) for name, text in found.items() if name.isdigit()},
        reasons={int(name.removeprefix(REASON)): text for name, text in reasons.items()},
        chunk_deaths=int(found.get(WHOLE_CHUNK, 0)),
        suspects=frozenset(int(row) for row in found.get(SUSPECTS, "").split(",") if row),
        in_a_row=int(found.get(IN_A_ROW, 0)),
        saved=SAVED in found,
        stalled=found.get(STALLED, ""),
    )
