"""The runner: claim, load ahead, micro-batches, part, finish: the same for every group that runs models.

The walk of a chunk: `_take` claims it and opens it in a thread while the one before is computed; `_work` decodes one
micro-batch ahead in threads and runs the group on the micro-batch in hand, looking at `hi` between two of them; then
it writes the part and acks, counts and queues the next group in one call.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import redis

from models.base import StageUnavailable, StageUnfit, WeightsMissing
from strata.core.profiles import ProfileError
from strata.core.records import Record
from strata.jobs.jobs import Jobs
from strata.queue import keys
from strata.queue.broker import Claim
from strata.store.store import Store, count_of
from workers.accounts import NotAffordable
from workers.claims import Claims
from workers.groups import Group, Item
from workers.leases import Leases
from workers.opened import Opened, Opener
from workers.retry import WorkInterrupted

log = logging.getLogger(__name__)

DECODE_THREADS = 2
DECODE_TOGETHER = 8  # images at least
HANDFULS = 4  # of a micro-batch at most
HOPELESS = (WeightsMissing, ProfileError, StageUnfit)
HI_BEFORE_LO = 4  # micro-batches of `hi` before one of `lo` gets its turn: a stream of single images starves no job


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
        self.group, self.micro_batch = group, micro_batch
        self.store: Store = jobs.store
        self.claims = Claims(group.name, jobs, leases, fingerprint_of)
        self.opener = Opener(group, self.claims, micro_batch)
        self._pool = ThreadPoolExecutor(DECODE_THREADS + 1, thread_name_prefix=group.name)
        self._ahead: Future[Opened | None] | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until stop is set; what is in hand then is given back."""
        self.claims.stop = stop
        while not stop.is_set():
            try:
                self._step()
            except redis.RedisError as error:
                log.warning("%s waits for Redis: %s", self.group.name, error)
                stop.wait(1.0)
        self._give_back()

    def _step(self) -> None:
        busy = all(self._urgent() for _ in range(HI_BEFORE_LO))
        ahead, self._ahead = self._ahead, None  # forgotten also when it failed
        if ahead is not None:
            opened = ahead.result()
        else:
            opened = self._take(("lo",)) if busy else self._take(keys.PRIORITIES, block=1.0)
        if opened is None:
            return
        if not self.claims.stop.is_set():
            # ahead only `lo`: a single image must not wait behind the chunk in hand
            self._ahead = self._pool.submit(self._take, ("lo",))
        self._work([opened])

    def _take(self, priorities: Sequence[str], block: float = 0.0) -> Opened | None:
        claim = self.claims.take(priorities, block)
        return self.opener.open(claim) if claim else None

    def _urgent(self) -> bool:
        """Compute the single images that wait, one micro-batch at most; whether there were any."""
        if self.claims.stop.is_set():
            return False
        claims = self.claims.next(self.micro_batch, ("hi",))
        try:
            opened = [chunk for chunk in map(self.opener.open, claims) if chunk is not None]
            for _, together in itertools.groupby(opened, key=lambda chunk: chunk.together):
                self._work(list(together))
        finally:
            for claim in claims:  # when Redis went away in between, whoever sees it first takes the rest over
                self.claims.release(claim)
        return bool(claims)

    # computing

    def _work(self, chunks: list[Opened]) -> None:
        """Compute chunks of one fingerprint together, then write and finish each."""
        try:
            chunks = [chunk for chunk in chunks if self._pays(chunk)]
            if not chunks:
                return
            records = iter(list(self._careful(chunks[0]) if chunks[0].careful else self._swift(chunks)))
            for chunk in chunks:
                self._finish(chunk, list(itertools.islice(records, len(chunk.items))))
        except WorkInterrupted:
            for chunk in chunks:
                self.claims.leave(chunk.claim)
        except NotAffordable as refusal:
            for chunk in chunks:
                self.claims.defer(chunk.claim, refusal)
        except HOPELESS as error:
            for chunk in chunks:
                self.claims.abandon(chunk.claim, str(error))
        finally:
            for chunk in chunks:
                self.claims.release(chunk.claim)
                with suppress(redis.RedisError):  # then the reservation stays
                    chunk.account.settle()

    def _swift(self, chunks: list[Opened]) -> Iterator[Record]:
        """Micro-batches, the next one being decoded while the one in hand is computed."""
        items = [item for chunk in chunks for item in chunk.items]
        for chunk in chunks:
            chunk.isolation.hold()
        batches = [items[i : i + self.micro_batch] for i in range(0, len(items), self.micro_batch)]
        coming: list[Future[list[Item]]] = []
        for number, following in enumerate([*batches, []]):
            ready, coming = coming, [self._pool.submit(self._decode, some) for some in _handfuls(following)]
            if number > 1:
                self._pause(chunks[0].claim)
            if ready:
                yield from self._batch(chunks, [item for future in ready for item in future.result()])

    def _decode(self, items: Sequence[Item]) -> list[Item]:
        return [self.group.decode(item) for item in items]

    def _careful(self, opened: Opened) -> Iterator[Record]:
        """One image at a time, each noted while it is in hand."""
        for row, item in enumerate(opened.items):
            if not item.settled:
                self._pause(opened.claim)
                opened.isolation.hold(row)
            yield from self._batch([opened], [self.group.decode(item)])
            if not item.settled:
                opened.isolation.let_go()

    def _batch(self, chunks: Sequence[Opened], batch: Sequence[Item]) -> list[Record]:
        claim = chunks[0].claim
        alive = [item for item in batch if not item.settled]
        if alive:
            for chunk in chunks:
                self._ahead_of(chunk)
        compute = functools.partial(self.group.compute, claim.chunk, alive)
        try:
            done = iter(self.claims.waiting(claim, compute, StageUnavailable) if alive else ())
        except (*HOPELESS, WorkInterrupted):
            raise
        except Exception as error:  # a fault outside of any stage: no image of the chunk may be lost for it
            log.exception("%s: a micro-batch of chunk %s failed", self.group.name, claim.chunk.id)
            kind, detail = type(error).__name__, str(error)
            done = iter([item.record.failed(self.group.name, kind, detail) for item in alive])
            for chunk in chunks:
                chunk.account.lost()
        records = [item.record if item.settled else next(done) for item in batch]
        if len(chunks) == 1:
            chunks[0].account.computed(records)
        return records

    def _pause(self, claim: Claim) -> None:
        """Between two micro-batches: single images first. Raises WorkInterrupted if the rest is for another worker."""
        if claim.priority == "lo":
            try:
                all(self._urgent() for _ in range(HI_BEFORE_LO))
            except redis.RedisError as error:
                log.warning("%s goes on without Redis: %s", self.group.name, error)
        if self.claims.stop.is_set() or not self.claims.wanted(claim):
            raise WorkInterrupted

    # paying and ending

    def _ahead_of(self, opened: Opened) -> None:
        """Make sure that the next micro-batch is paid for. Raises NotAffordable and WorkInterrupted."""
        chunk = opened.claim.chunk
        pay = functools.partial(opened.account.ahead, lambda: self.claims.broker.waiting_jobs(chunk))
        self.claims.waiting(opened.claim, pay, redis.RedisError)

    def _pays(self, opened: Opened) -> bool:
        """Whether a job pays for the chunk; if none can, it is put off."""
        try:
            self._ahead_of(opened)
        except NotAffordable as refusal:
            self.claims.defer(opened.claim, refusal)
            return False
        return True

    def _finish(self, opened: Opened, records: list[Record]) -> None:
        chunk, account = opened.claim.chunk, opened.account
        account.rest(records)
        write = functools.partial(self.store.write_records, chunk, records, account.bill)
        counts = self.claims.waiting(opened.claim, write, OSError)
        account.settle()
        self.claims.finish(opened.claim, count_of(counts))

    def _give_back(self) -> None:
        if self._ahead is not None:
            with suppress(redis.RedisError):
                if opened := self._ahead.result():
                    self.claims.leave(opened.claim)
        self._pool.shutdown(wait=True)


def _handfuls(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Items for the threads that decode: a future for each image would cost more than a tiny image does."""
    together = max(DECODE_TOGETHER, -(-len(items) // HANDFULS))
    return [items[i : i + together] for i in range(0, len(items), together)]
