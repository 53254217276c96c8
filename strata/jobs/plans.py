"""The plan of an unfinished job: which of its chunks have been queued, and its rate; how many more may be queued."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from strata.core import Chunk, JobRequest, ShardSummary, Waiting
from strata.queue import Queue, Queued

RATE_SECONDS = 30.0  # a job's rate is its mean over this window
LEAST_RATE_SECONDS = 10.0  # a shorter time tells no rate: chunks are counted as wholes, and were begun before it
SLICE_CHUNKS = 500  # chunks of a shard whose parts are looked for at a time


class Plan:
    """The scheduler's state of a job. It can be rebuilt at any time from the request and the store.

    unindexed: shards to be queued for indexing; known: shards whose summaries have been read; waiting: summaries whose
    chunks are to be compared with the store; chunks: chunks of one slice of a shard that are to be queued. So the size
    of a plan grows with the job's shards, not with its images. summaries_written: how many summaries the store has.
    waits_for: the stage that the job waits for, as its last event about that told. held: that the next chunk exceeds a
    quota of the job's key now. copies: shards with the content of another shard of the job, each with its number among
    them; their parts are the same.
    """

    def __init__(self, request: JobRequest) -> None:
        self.request = request
        self.reviewed = time.monotonic()
        self.wakes = 0.0
        self.held: Waiting | None = None
        self._held_until = 0.0
        self.summaries_written = len(request.indexed)
        self.waits_for: str | None = None
        self.restart()
        self._computed: deque[tuple[float, int]] = deque()

    def rest(self, seconds: float) -> None:
        """Nothing is to be done for so many seconds, unless the job changes."""
        self.wakes = time.monotonic() + seconds

    def hold(self, reason: str, seconds: float) -> None:
        """Queue no chunk for so many seconds, because the job's key has used a quota."""
        since, attempts = (self.held.since, self.held.attempts) if self.held else (datetime.now(UTC), 0)
        self.held = Waiting(stage="quota", reason=reason, since=since, attempts=attempts + 1)
        self._held_until = time.monotonic() + seconds

    def go_on(self) -> None:
        """The quota of the job's key has room again."""
        self.held, self._held_until = None, 0.0

    @property
    def is_held(self) -> bool:
        """Whether no chunk is to be queued now, see `hold`."""
        return time.monotonic() < self._held_until

    @property
    def has_more(self) -> bool:
        """Whether shards or chunks are known that were not queued yet."""
        return bool(self.unindexed or self.waiting or self.chunks or self._rest)

    @property
    def can_compare(self) -> bool:
        """Whether the store can be asked for more of the job's parts. This needs no room in the streams."""
        return not self.chunks and bool(self._rest or self.waiting)

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
        self._rest: deque[tuple[ShardSummary, range]] = deque()  # slices of the shard that is compared now
        self._uncounted: deque[tuple[int, ShardSummary, range]] = deque()  # slices of copies

    def next_slice(self) -> tuple[ShardSummary, range] | None:
        """Take the next chunks of a shard, by their numbers, that are to be compared with the store.

        None if there are no more: shards without images, and copies of a shard before, are passed over.
        """
        while self.waiting and not self._rest:
            summary = self.waiting.popleft()
            number = self._shards_with[summary.identity]
            self._shards_with[summary.identity] += 1
            if number:
                self.copies.append((number, summary))
            else:
                self._rest.extend((summary, numbers) for numbers in self._slices(summary))
        return self._rest.popleft() if self._rest else None

    def slices_of_copies(self) -> Iterator[tuple[int, ShardSummary, range]]:
        """Take the next chunks of copies, whose parts are to be counted; after the last, the next call begins anew."""
        if not self._uncounted:
            self._uncounted.extend((*copy, numbers) for copy in self.copies for numbers in self._slices(copy[1]))
        while self._uncounted:
            yield self._uncounted.popleft()

    def _slices(self, summary: ShardSummary) -> list[range]:
        count = summary.chunks(self.request.chunk_size)
        return [range(start, min(start + SLICE_CHUNKS, count)) for start in range(0, count, SLICE_CHUNKS)]

    @property
    def is_running(self) -> bool:
        """Whether images were computed in the time over which the rate is a mean."""
        return bool(self._computed) and self._computed[0][1] < self._computed[-1][1]

    @property
    def all_queued(self) -> bool:
        """Whether every chunk of the job has been queued or counted."""
        return not self.has_more and len(self.known) == len(self.request.shards)

    def rate(self, now: float, computed: int) -> float | None:
        """Images per second over the last RATE_SECONDS; None if no image was computed in this time, or it is too short.

        now: seconds of a monotonic clock; computed: the job's images so far, without those whose parts existed before.
        """
        self._computed.append((now, computed))
        # drop the samples before the window
        while self._computed[0][0] < now - RATE_SECONDS:
            self._computed.popleft()
        start, before = self._computed[0]
        known = computed > before and now - start >= LEAST_RATE_SECONDS
        return (computed - before) / (now - start) if known else None


class Room:
    """How many more chunks each caller may queue: the high-water mark is shared by those who have unfinished jobs.

    high_water: how many chunks a group may have queued or in flight. A caller who comes while the others have queued as
    many as they may gets a share at once; the others queue nothing until they have fewer than theirs.
    """

    def __init__(self, queue: Queue, high_water: int, plans: Iterable[Plan]) -> None:
        self.queue = queue
        self._callers = max(1, len({plan.request.caller for plan in plans}))
        self._share = max(1, high_water // self._callers)
        self._queued: dict[str, Queued] = {}

    def free(self, caller: str, *groups: str, most: int | None = None) -> int:
        """How many more chunks of these groups a caller may queue. most: a bound of its own, if it has one."""
        share = self._share if most is None else min(self._share, most)
        return max(0, share - max(self._used(caller, group) for group in groups))

    def _used(self, caller: str, group: str) -> int:
        """How many chunks of a group a caller has queued."""
        if group not in self._queued:
            self._queued[group] = self.queue.broker.queued(group)
        queued = self._queued[group]
        # whose the chunks in the streams are is not known: they are few, and are shared out
        return queued.in_lanes[caller] + math.ceil(queued.in_streams / self._callers)

    def has_changed(self) -> None:
        """Chunks were queued: read again how many there are."""
        self._queued.clear()
