"""The plan of an unfinished job: which of its chunks have been queued, and its rate."""

from __future__ import annotations

import time
from collections import Counter, deque

from strata.core import Chunk, JobRequest, ShardSummary

RATE_SECONDS = 30.0  # a job's rate is its mean over this window


class Plan:
    """The scheduler's state of a job. It can be rebuilt at any time from the request and the store.

    unindexed: shards to be queued for indexing; known: shards whose summaries have been read; waiting: summaries whose
    chunks are to be compared with the store; chunks: chunks of one shard that are to be queued. So the size of a plan
    grows with the job's shards, not with its images. summaries_written: how many summaries the store has. waits_for:
    the stage that the job waits for, as its last event about that told. copies: shards with the content of another
    shard of the job, each with its number among them; their parts are the same.
    """

    def __init__(self, request: JobRequest) -> None:
        self.request = request
        self.reviewed = time.monotonic()
        self.summaries_written = len(request.indexed)
        self.waits_for: str | None = None
        self.restart()
        self._computed: deque[tuple[float, int]] = deque()

    def is_due(self, seconds: float) -> bool:
        """Whether so many seconds have passed since the plan was made, or this method has returned True."""
        if time.monotonic() - self.reviewed < seconds:
            return False
        self.reviewed = time.monotonic()
        return True

    def restart(self) -> None:
        """Compare all chunks with the store again."""
        self.unindexed = deque(self.request.shards)
        self.known: set[str] = set()
        self.waiting: deque[ShardSummary] = deque()
        self.chunks: deque[Chunk] = deque()
        self.copies: list[tuple[int, ShardSummary]] = []
        self._shards_with: Counter[str] = Counter()

    def next_shard(self) -> ShardSummary | None:
        """Take the next shard whose chunks are to be compared with the store; None if it is a copy of one before."""
        summary = self.waiting.popleft()
        number = self._shards_with[summary.identity]
        self._shards_with[summary.identity] += 1
        if not number:
            return summary
        self.copies.append((number, summary))
        return None

    @property
    def all_queued(self) -> bool:
        """Whether every chunk of the job has been queued or counted."""
        left = self.unindexed or self.waiting or self.chunks
        return not left and len(self.known) == len(self.request.shards)

    def rate(self, now: float, computed: int) -> float | None:
        """Images per second over the last RATE_SECONDS; None if no image was computed in this time.

        now: seconds of a monotonic clock; computed: the job's images so far, without those whose parts existed before.
        """
        self._computed.append((now, computed))
        # drop the samples before the window
        while self._computed[0][0] < now - RATE_SECONDS:
            self._computed.popleft()
        start, before = self._computed[0]
        return (computed - before) / (now - start) if computed > before else None
