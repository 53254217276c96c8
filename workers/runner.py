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
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import redis

from models.base import StageUnavailable, StageUnfit, WeightsMissing
from strata import keys
from strata.broker import Broker, Claim
from strata.jobs import Jobs
from strata.profiles import GROUPS, ProfileError
from strata.records import Record
from strata.schemas import JobStatus
from strata.store import Store, count_of
from workers.accounts import Account, NotAffordable
from workers.groups import Group, Item
from workers.isolation import Isolation
from workers.leases import Leases
from workers.patience import Answer, LeftOff, patiently

log = logging.getLogger(__name__)

DECODE_THREADS = 2
DECODE_TOGETHER = 8  # images at least
HANDFULS = 4  # of a micro-batch at most
TAKE_OVER_SECONDS = 2.0  # how often to look for chunks of silent holders
LATER_SECONDS = 0.5  # before the next chunk is looked at, where one must wait for others to settle what they reserved
HOPELESS = (WeightsMissing, ProfileError, StageUnfit)
HI_BEFORE_LO = 4  # micro-batches of `hi` before one of `lo` gets its turn: a stream of single images starves no job


@dataclass
class Opened:
    """A chunk in hand with its items read. careful: it ended a worker before, so it is computed image by image."""

    claim: Claim
    items: list[Item]
    isolation: Isolation
    careful: bool
    account: Account


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
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(DECODE_THREADS + 1, thread_name_prefix=group.name)
        self._ahead: Future[Opened | None] | None = None
        self._overdue = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until stop is set; what is in hand then is given back."""
        self._stop = stop
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
        if not self._stop.is_set():
            # ahead only `lo`: a single image must not wait behind the chunk in hand
            self._ahead = self._pool.submit(self._take, ("lo",))
        self._work([opened])

    def _urgent(self) -> bool:
        """Compute the single images that wait, one micro-batch at most; whether there were any."""
        if self._stop.is_set():
            return False
        claims = self._claim(self.micro_batch, priorities=("hi",))
        try:
            opened = [chunk for chunk in map(self._open, claims) if chunk is not None]
            for _, together in itertools.groupby(opened, key=_together):
                self._work(list(together))
        finally:
            for claim in claims:  # when Redis went away in between, whoever sees it first takes the rest over
                self.leases.release(claim)
        return bool(claims)

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
        """Read a chunk's items; None if there is nothing to compute: it is done, or cannot be read."""
        chunk = claim.chunk
        try:
            if self._waiting(claim, lambda: self.store.has_part(chunk), OSError):
                counts, bill = self._waiting(claim, lambda: self.store.read_footer(chunk), OSError)
                if bill is not None:  # whoever wrote it may have died before it was settled
                    self.jobs.ledger.settle(chunk.id, bill)
                self._count(claim, count_of(counts), reused=chunk.images)
                return None
            isolation = Isolation(self.broker.redis, claim)
            verdict = isolation.begin()
            items = self._waiting(claim, lambda: self.group.items(chunk), OSError)
            poison = range(len(items)) if verdict.hopeless else verdict.rows
            items = [_poisoned(item) if row in poison else item for row, item in enumerate(items)]
            items = self._waiting(claim, lambda: self.group.read(chunk, items), OSError)
            isolation.opened()
            rows = [None if item.settled else item.record for item in items]
            account = Account(self.jobs.ledger, chunk, self.group.meter(chunk), rows, self.micro_batch)
            return Opened(claim, items, isolation, verdict.careful, account)
        except LeftOff:
            self._leave(claim)
        except (FileNotFoundError, ValueError) as error:
            self._abandon(claim, f"chunk {chunk.id} cannot be opened: {type(error).__name__}: {error}")
        except redis.RedisError:
            self.leases.release(claim)
            raise
        return None

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
        except LeftOff:
            for chunk in chunks:
                self._leave(chunk.claim)
        except NotAffordable as refusal:
            for chunk in chunks:
                self._defer(chunk.claim, refusal)
        except HOPELESS as error:
            for chunk in chunks:
                self._abandon(chunk.claim, str(error))
        finally:
            for chunk in chunks:
                self.leases.release(chunk.claim)
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
        try:
            done = iter(
                self._waiting(claim, lambda: self.group.compute(claim.chunk, alive), StageUnavailable) if alive else ()
            )
        except (*HOPELESS, LeftOff):
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
        """Between two micro-batches: single images first. Raises LeftOff if the rest shall not be computed here."""
        if claim.priority == "lo":
            try:
                all(self._urgent() for _ in range(HI_BEFORE_LO))
            except redis.RedisError as error:
                log.warning("%s goes on without Redis: %s", self.group.name, error)
        if self._stop.is_set() or not self._wanted(claim):
            raise LeftOff

    def _wanted(self, claim: Claim) -> bool:
        """Whether a job still waits for the chunk; while Redis is away nobody can say, and the work goes on."""
        with suppress(redis.RedisError):
            return bool(self.broker.waiting_jobs(claim.chunk))
        return True

    def _waiting(self, claim: Claim, act: Callable[[], Answer], error: type[Exception]) -> Answer:
        return patiently(act, (error,), self._stop, lambda: self._wanted(claim))

    # paying

    def _ahead_of(self, opened: Opened) -> None:
        """Make sure that the next micro-batch is paid for. Raises NotAffordable and LeftOff."""
        chunk = opened.claim.chunk
        pay = functools.partial(opened.account.ahead, lambda: self.broker.waiting_jobs(chunk))
        self._waiting(opened.claim, pay, redis.RedisError)

    def _pays(self, opened: Opened) -> bool:
        """Whether a job pays for the chunk; if none can, it is put off."""
        try:
            self._ahead_of(opened)
        except NotAffordable as refusal:
            self._defer(opened.claim, refusal)
            return False
        return True

    def _defer(self, claim: Claim, refusal: NotAffordable) -> None:
        """Jobs whose budget is spent end; others that wait for the chunk have it again at the end of the line."""
        waiting = self.broker.waiting_jobs(claim.chunk)
        for job_id, reason in refusal.spent.items():
            status = self.jobs.status(job_id)
            if status is not None and not status.final:
                self.jobs.set_status(job_id, JobStatus.FAILED, error=reason)
        self._release(claim, self.broker.drop)
        for job_id in sorted(waiting - refusal.spent.keys()):
            self.broker.enqueue(claim.chunk, job_id, claim.priority)
        self._stop.wait(LATER_SECONDS)

    # ending

    def _finish(self, opened: Opened, records: list[Record]) -> None:
        chunk, account = opened.claim.chunk, opened.account
        account.rest(records)
        counts = self._waiting(opened.claim, lambda: self.store.write_records(chunk, records, account.bill), OSError)
        account.settle()
        self._count(opened.claim, count_of(counts))

    def _count(self, claim: Claim, statuses: dict[str, int], reused: int = 0) -> None:
        chunk = claim.chunk
        counts = {"images": chunk.images, "chunks": 1, "reused": reused, **statuses}
        place = GROUPS.index(chunk.group) + 1
        following = None
        if place < len(GROUPS):
            following = chunk.of_group(GROUPS[place], self.fingerprint_of(chunk.profile, GROUPS[place]))
        self._release(claim, lambda claim, name: self.broker.finish(claim, name, "", counts, following))

    def _abandon(self, claim: Claim, reason: str) -> None:
        """The chunk cannot be done here or anywhere: its jobs end as failed and say why."""
        log.error("%s", reason)
        for job_id in self.broker.waiting_jobs(claim.chunk):
            self.jobs.set_status(job_id, JobStatus.FAILED, error=reason[:300])
        self._release(claim, self.broker.drop)

    def _leave(self, claim: Claim) -> None:
        """Hand a chunk to another worker, or drop it if nobody waits for it."""
        self.leases.release(claim)
        with suppress(redis.RedisError):
            if self._wanted(claim):
                self.broker.give_back(claim, self.leases.name)
            else:
                self.broker.drop(claim, self.leases.name)

    def _release(self, claim: Claim, end: Callable[[Claim, str], bool]) -> None:
        self.leases.release(claim)
        if not end(claim, self.leases.name):
            log.warning("chunk %s had been taken over; it counts once all the same", claim.chunk.id)

    def _give_back(self) -> None:
        if self._ahead is not None:
            with suppress(redis.RedisError):
                if opened := self._ahead.result():
                    self._leave(opened.claim)
        self._pool.shutdown(wait=True)


def _together(opened: Opened) -> tuple[str, str]:
    """Chunks with equal answers are computed together; one of several images that are paid for stays alone."""
    chunk = opened.claim.chunk
    return chunk.fingerprint, chunk.id if opened.account.meter and chunk.images > 1 else ""


def _handfuls(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Items for the threads that decode: a future for each image would cost more than a tiny image does."""
    together = max(DECODE_TOGETHER, -(-len(items) // HANDFULS))
    return [items[i : i + together] for i in range(0, len(items), together)]


def _poisoned(item: Item) -> Item:
    """An image that ended workers, settled as failed; one that was settled before stays."""
    if item.settled:
        return item
    return Item(item.record.failed("runner", "poison", "workers died with this image in hand"), settled=True)
