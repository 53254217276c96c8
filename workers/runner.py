"""The runner: claim, load ahead, micro-batches, part, finish: the same for every group that runs models.

The walk of a chunk: `_take` claims it and opens it in a thread while the one before is computed; `_compute` decodes
one micro-batch ahead in threads and runs the group on the micro-batch in hand, looking at `hi` between two of them;
`_finish` writes the part, then acks, counts and queues the next group in one call.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import redis

from models.base import StageUnavailable, WeightsMissing
from strata import keys
from strata.broker import Broker, Claim
from strata.chunks import Chunk
from strata.jobs import Jobs
from strata.profiles import GROUPS, ProfileError
from strata.records import Record
from strata.schemas import JobStatus
from strata.store import Store, count_of
from workers.groups import Group, Item
from workers.leases import Leases

log = logging.getLogger(__name__)

DECODE_THREADS = 2
TAKE_OVER_SECONDS = 2.0  # how often to look for chunks of silent holders
MOST_DELIVERIES = 4  # a chunk that ended this many workers is given up, so that its job can end


@dataclass
class Opened:
    """A chunk in hand with its items read."""

    claim: Claim
    items: list[Item]


class Runner:
    """Runs one group's chunks until told to stop."""

    def __init__(
        self,
        group: Group,
        jobs: Jobs,
        leases: Leases,
        fingerprint_of: Callable[[str, str], str],
        micro_batch: int,
    ) -> None:
        self.group, self.jobs, self.leases = group, jobs, leases
        self.broker: Broker = jobs.broker
        self.store: Store = jobs.store
        self.fingerprint_of = fingerprint_of
        self.micro_batch = micro_batch
        self._pool = ThreadPoolExecutor(DECODE_THREADS + 1, thread_name_prefix=group.name)
        self._ahead: Future[Opened | None] | None = None
        self._overdue = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until stop is set; what is in hand then is given back."""
        while not stop.is_set():
            try:
                self._step(stop)
            except redis.RedisError as error:
                log.warning("%s waits for Redis: %s", self.group.name, error)
                self._forget()
                stop.wait(1.0)
        self._give_back()

    def _step(self, stop: threading.Event) -> None:
        if self._urgent():
            return
        opened = self._ahead.result() if self._ahead else self._take(block=1.0, priorities=keys.PRIORITIES)
        self._ahead = None
        if opened is None:
            return
        if not stop.is_set():
            # ahead only `lo`: a single image must not wait behind the chunk in hand
            self._ahead = self._pool.submit(self._take, priorities=("lo",))
        if opened.claim.priority == "hi":
            self._work([opened])
        else:
            self._work([opened], between=lambda: self._pause(stop))

    def _pause(self, stop: threading.Event) -> bool:
        """Between two micro-batches: single images first; False if the work must be given back."""
        self._urgent()
        return not stop.is_set()

    def _urgent(self) -> bool:
        claims = self._claim(self.micro_batch, priorities=("hi",))
        opened = [chunk for chunk in map(self._open, claims) if chunk is not None]
        for _, together in itertools.groupby(opened, key=lambda chunk: chunk.claim.chunk.fingerprint):
            self._work(list(together))
        return bool(opened)

    # taking

    def _take(self, priorities: Sequence[str], block: float = 0.0) -> Opened | None:
        claims: list[Claim] = []
        if time.monotonic() >= self._overdue:
            claims = self.broker.take_over(self.group.name, self.leases.name, self.leases.seconds)
            if not claims:  # where one was left there may be more
                self._overdue = time.monotonic() + min(TAKE_OVER_SECONDS, self.leases.seconds / 4)
            self.leases.hold(claims)
        claims = claims or self._claim(1, priorities, block)
        return self._open(claims[0]) if claims else None

    def _claim(self, count: int, priorities: Sequence[str], block: float = 0.0) -> list[Claim]:
        claims = self.broker.claim(self.group.name, self.leases.name, count, block, priorities)
        self.leases.hold(claims)
        return claims

    def _open(self, claim: Claim) -> Opened | None:
        """Read a chunk's items; None if there is nothing to compute: it is done, unwanted, or cannot be read."""
        chunk = claim.chunk
        if not self.broker.waiting_jobs(chunk):
            self._release(claim, self.broker.drop)
        elif self.store.has_part(chunk):
            self._count(claim, count_of(self.store.read_counts(chunk)), reused=chunk.images)
        elif claim.deliveries > MOST_DELIVERIES:
            self._abandon(claim, f"chunk {chunk.id} ended {claim.deliveries - 1} workers")
        else:
            try:
                return Opened(claim, self.group.open(chunk))
            except (OSError, ValueError) as error:
                self._abandon(claim, f"chunk {chunk.id} cannot be opened: {type(error).__name__}: {error}")
        return None

    # computing

    def _work(self, chunks: list[Opened], between: Callable[[], bool] = lambda: True) -> None:
        """Compute chunks of one fingerprint together, then write and finish each."""
        head = chunks[0].claim.chunk
        records: list[Record] = []
        try:
            for batch in self._decoded([item for chunk in chunks for item in chunk.items]):
                records += self._batch(head, batch)
                if len(records) < sum(len(chunk.items) for chunk in chunks) and not between():
                    return  # stopping: `_give_back` hands these chunks to another worker
        except (StageUnavailable, WeightsMissing, ProfileError) as error:
            for chunk in chunks:
                self._abandon(chunk.claim, str(error))
            return
        start = 0
        for chunk in chunks:
            self._finish(chunk.claim, records[start : start + len(chunk.items)])
            start += len(chunk.items)

    def _batch(self, head: Chunk, batch: Sequence[Item]) -> list[Record]:
        try:
            return self.group.compute(head, batch)
        except (StageUnavailable, WeightsMissing, ProfileError):
            raise
        except Exception as error:  # a fault outside of any stage: no image of the chunk may be lost for it
            log.exception("%s: a micro-batch of chunk %s failed", self.group.name, head.id)
            return [item.record.failed(self.group.name, type(error).__name__, str(error)) for item in batch]

    def _decoded(self, items: list[Item]) -> Iterator[list[Item]]:
        """Micro-batches, the next one being decoded while the one in hand is computed."""
        batches = [items[i : i + self.micro_batch] for i in range(0, len(items), self.micro_batch)]
        coming: list[Future[Item]] = []
        for following in [*batches, []]:
            ready, coming = coming, [self._pool.submit(self.group.decode, item) for item in following]
            if ready:
                yield [future.result() for future in ready]

    # ending

    def _finish(self, claim: Claim, records: list[Record]) -> None:
        counts = self.store.write_records(claim.chunk, records)
        self._count(claim, count_of(counts))

    def _count(self, claim: Claim, statuses: dict[str, int], reused: int = 0) -> None:
        chunk = claim.chunk
        counts = {"images": chunk.images, "chunks": 1, "reused": reused, **statuses}
        place = GROUPS.index(chunk.group) + 1
        following = None
        if place < len(GROUPS):
            following = chunk.of_group(GROUPS[place], self.fingerprint_of(chunk.profile, GROUPS[place]))
        value = json.dumps(counts)
        self._release(claim, lambda claim, name: self.broker.finish(claim, name, value, counts, following))

    def _abandon(self, claim: Claim, reason: str) -> None:
        """The chunk cannot be done here or anywhere: its jobs end as failed and say why."""
        log.error("%s", reason)
        for job_id in self.broker.waiting_jobs(claim.chunk):
            self.jobs.set_status(job_id, JobStatus.FAILED, error=reason[:300])
        self._release(claim, self.broker.drop)

    def _release(self, claim: Claim, end: Callable[[Claim, str], bool]) -> None:
        self.leases.release(claim)
        if not end(claim, self.leases.name):
            log.warning(
                "chunk %s had been taken over; what was computed here counts once all the same",
                claim.chunk.id,
            )

    def _forget(self) -> list[Claim]:
        """Hold nothing any more: what was in hand is taken over when its leases lapse."""
        if self._ahead is not None:
            self._ahead.exception()
            self._ahead = None
        claims = [claim for claim in self.leases.held() if claim.chunk.group == self.group.name]
        for claim in claims:
            self.leases.release(claim)
        return claims

    def _give_back(self) -> None:
        with suppress(redis.RedisError):
            for claim in self._forget():
                self.broker.give_back(claim, self.leases.name)
        self._pool.shutdown(wait=True)
