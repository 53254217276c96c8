"""The plan of an unfinished job: how far its chunks have been handed out, and how fast they come back."""

from __future__ import annotations

from collections import deque

from strata.core.chunks import Chunk
from strata.core.requests import JobRequest, ShardSummary

RATE_SECONDS = 30.0  # the stretch over which a job's rate is taken


class Plan:
    """What the scheduler knows of a job. It can be made anew at any time from the request and the store.

    unindexed: shards that `index` is to be asked for; known: shards whose summary was seen; waiting: summaries whose
    chunks are still to be compared with the store; chunks: those of one shard that are still to be queued. So what a
    plan holds grows with a job's shards, not with its images. kept: how many summaries the store was told of.
    """

    def __init__(self, request: JobRequest) -> None:
        self.request = request
        self.kept = len(request.indexed)
        self.restart()
        self._computed: deque[tuple[float, int]] = deque()

    def restart(self) -> None:
        """Compare with the store from the beginning."""
        self.unindexed = deque(self.request.shards)
        self.known: set[str] = set()
        self.waiting: deque[ShardSummary] = deque()
        self.chunks: deque[Chunk] = deque()

    @property
    def handed_out(self) -> bool:
        """Whether every chunk of the job has been queued or counted."""
        left = self.unindexed or self.waiting or self.chunks
        return not left and len(self.known) == len(self.request.shards)

    def rate(self, now: float, computed: int) -> float | None:
        """Images a second over the last RATE_SECONDS; None while nothing was computed in them.

        now: seconds of a monotonic clock; computed: the job's images so far, those that were there before left out.
        """
        self._computed.append((now, computed))
        while self._computed[0][0] < now - RATE_SECONDS:
            self._computed.popleft()
        then, before = self._computed[0]
        return (computed - before) / (now - then) if computed > before else None
