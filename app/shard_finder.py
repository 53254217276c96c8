"""Finds the shards that a submission names, in threads of its own: never on the event loop, and few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from anyio import CapacityLimiter, to_thread

from app.problems import ProblemError
from strata.shards import OutsideRoots, ShardMissing, SourceError, TooManyShards, find_shards

AT_ONCE = 2  # submissions whose patterns are expanded; each may list a million files and take 30 s
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

    async def find(self, patterns: Sequence[str]) -> list[str]:
        """The shards that the patterns name. Raises ProblemError."""
        if self.waiting >= MAX_WAITING:
            detail = f"{self.waiting} submissions wait for their shards to be found; send this one again later"
            raise ProblemError("too-busy", detail, headers={"Retry-After": str(RETRY_SECONDS)})
        try:
            return await to_thread.run_sync(partial(find_shards, patterns, self._roots), limiter=self._limiter)
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
