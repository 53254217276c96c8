"""Finds the shards that a submission names, in a thread and for few submissions at a time.

A submission keeps its turn until its job is created, because it has the names of all its shards in memory until then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from anyio import CapacityLimiter
from starlette.concurrency import run_in_threadpool

from app.problems import ProblemError
from strata.shards import OutsideRoots, ShardMissing, SourceError, TooManyShards, find_shards

AT_ONCE = 2  # submissions in their turn; each may list a million files and take 30 s
MAX_WAITING = 32  # submissions that wait for their turn, each with its body in memory
MAX_LISTED = 20  # missing shards that the problem lists
RETRY_SECONDS = 5


class ShardFinder:
    """Runs `find_shards` for submissions. Use it in one event loop."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = roots
        self._limiter = CapacityLimiter(AT_ONCE)

    @property
    def waiting(self) -> int:
        """The number of submissions that wait for their turn."""
        return self._limiter.statistics().tasks_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn of a submission, which ends with the block. Raises ProblemError if too many wait."""
        if self.waiting >= MAX_WAITING:
            detail = f"{self.waiting} submissions wait for their turn; send this one again later"
            raise ProblemError("too-busy", detail, headers={"Retry-After": str(RETRY_SECONDS)})
        async with self._limiter:
            yield

    async def find(self, patterns: Sequence[str]) -> list[str]:
        """The shards that the patterns name; call it in a turn. Raises ProblemError."""
        try:
            return await run_in_threadpool(find_shards, patterns, self._roots)
        except SourceError as error:
            raise _problem(error) from error


def _problem(error: SourceError) -> ProblemError:
    if isinstance(error, ShardMissing):
        entries = [
            {"type": "missing", "location": [place], "message": "the shard does not exist"}
            for place in error.places[:MAX_LISTED]
        ]
        return ProblemError("shard-not-found", str(error), entries)
    names = {OutsideRoots: "shard-outside-roots", TooManyShards: "too-many-shards"}
    return ProblemError(names.get(type(error), "invalid-shards"), str(error))
