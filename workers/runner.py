"""The runner: the loop that computes chunks, the same for every group that runs models.

The path of a chunk: `_take` claims and prepares it in a thread while the chunk before is computed. `_compute` decodes
its images in threads, one micro-batch ahead of the models, and lets single images of the priority `hi` pass between
two micro-batches. `_finish` writes the part, and acknowledges and counts the chunk.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

from models.base import StageBroken, StageUnavailable, StageUnfit, WeightsMissing
from strata.core import ProfileError, Record
from strata.errors import QueueUnavailable
from strata.jobs import Jobs
from strata.queue import PRIORITIES, Claim
from strata.store import Store, count_of
from workers.accounts import NotAffordable
from workers.claims import Claims
from workers.groups import Group
from workers.items import WorkItem
from workers.leases import Leases
from workers.prepared import ChunkPreparer, PreparedChunk
from workers.profile_versions import ProfileVersions
from workers.retry import WorkInterrupted

Item = TypeVar("Item")
Result = TypeVar("Result")
log = logging.getLogger(__name__)

DECODE_THREADS = 2
MIN_DECODE_BATCH = 8  # images that one thread decodes for one future
MAX_DECODE_BATCHES = 4  # futures for one micro-batch
PERMANENT_ERRORS = (WeightsMissing, ProfileError, StageUnfit)  # a retry would fail in the same way
STORE_THREADS = 16  # single images whose parts are read or written at a time: each call to a bucket takes a while
HI_BEFORE_LO = 4  # micro-batches of `hi` before one of `lo`: a constant load of single images must not starve jobs


class Runner:
    """Runs one group's chunks until it is stopped. micro_batch: images that the models compute together."""

    def __init__(
        self,
        group: Group,
        jobs: Jobs,
        leases: Leases,
        profiles: ProfileVersions,
        micro_batch: int,
    ) -> None:
        self.group, self.micro_batch = group, micro_batch
        self.store: Store = jobs.store
        self.claims = Claims(group.name, jobs, leases, profiles)
        self.preparer = ChunkPreparer(group, self.claims, micro_batch)
        self._pool = ThreadPoolExecutor(DECODE_THREADS + 1, thread_name_prefix=group.name)
        self._store_pool = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix=f"{group.name} store")
        self._ahead: Future[PreparedChunk | None] | None = None

    def run(self, stop: threading.Event) -> None:
        """Compute chunks until stop is set; chunks in flight are released then."""
        self.claims.stop = stop
        while not stop.is_set():
            try:
                self._step()
            except QueueUnavailable as error:
                log.warning("%s waits for Redis: %s", self.group.name, error)
                stop.wait(1.0)
        self._release_ahead()

    def _step(self) -> None:
        """Compute waiting single images, then one chunk."""
        hi_is_busy = all(self._compute_hi() for _ in range(HI_BEFORE_LO))
        # use the chunk that was prepared ahead; forget it in any case, so that an error in it is raised once
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            prepared = ahead.result()
        else:
            prepared = self._take(("lo",)) if hi_is_busy else self._take(PRIORITIES, block=1.0)
        if prepared is None:
            return
        # prepare the next chunk while this one is computed: only `lo`, as an image of `hi` must not wait for it
        if not self.claims.stop.is_set():
            self._ahead = self._pool.submit(self._take, ("lo",))
        self._compute([prepared])

    def _take(self, priorities: Sequence[str], block: float = 0.0) -> PreparedChunk | None:
        claim = self.claims.take(priorities, block)
        return self.preparer.prepare(claim) if claim else None

    def _compute_hi(self) -> bool:
        """Compute the single images that wait, at most one micro-batch; False if there were none."""
        if self.claims.stop.is_set():
            return False
        claims = self.claims.claim(self.micro_batch, ("hi",))
        try:
            # compute chunks of the same profile together
            prepared = [chunk for chunk in self._together(self.preparer.prepare, claims) if chunk is not None]
            for _, chunks in itertools.groupby(prepared, key=lambda chunk: chunk.batch_key):
                self._compute(list(chunks))
        finally:
            # if Redis went away in between, the leases of the remaining chunks lapse and a worker reclaims them
            for claim in claims:
                self.claims.stop_renewing(claim)
        return bool(claims)

    def _together(self, act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results of act for all items, in threads if there are several. Raises the first error, after the last."""
        if len(items) < 2:
            return [act(item) for item in items]
        futures = [self._store_pool.submit(act, item) for item in items]
        wait(futures)
        return [future.result() for future in futures]

    # computing

    def _compute(self, chunks: list[PreparedChunk]) -> None:
        """Compute chunks of one fingerprint together, then write and finish each."""
        try:
            # reserve the worst-case cost of the first micro-batch; chunks that no job can pay for are requeued
            chunks = [chunk for chunk in chunks if self._is_paid(chunk)]
            if not chunks:
                return
            # a chunk with which a worker died is never together with others, because it comes from a reclaim
            one_by_one = chunks[0].one_by_one
            records = iter(list(self._compute_one_by_one(chunks[0]) if one_by_one else self._compute_batches(chunks)))
            computed = [(chunk, list(itertools.islice(records, len(chunk.items)))) for chunk in chunks]
            self._together(lambda pair: self._finish(*pair), computed)
        except WorkInterrupted:
            for chunk in chunks:
                self.claims.release(chunk.claim)
        except NotAffordable as refusal:
            for chunk in chunks:
                self.claims.requeue(chunk.claim, refusal)
        except PERMANENT_ERRORS as error:
            for chunk in chunks:
                self.claims.fail(chunk.claim, str(error))
        finally:
            for chunk in chunks:
                self.claims.stop_renewing(chunk.claim)
                with suppress(QueueUnavailable):  # then the reservation stays, and the bill in the part restores it
                    chunk.account.settle()

    def _compute_batches(self, chunks: list[PreparedChunk]) -> Iterator[Record]:
        """Compute the items in micro-batches; the next micro-batch is decoded while one is computed."""
        items = [item for chunk in chunks for item in chunk.items]
        for chunk in chunks:
            chunk.isolation.mark()
        batches = [items[i : i + self.micro_batch] for i in range(0, len(items), self.micro_batch)]
        decoding: list[Future[list[WorkItem]]] = []
        for number, following in enumerate([*batches, []]):
            # start to decode the following micro-batch, then compute the one before it
            ready, decoding = decoding, [self._pool.submit(self._decode, part) for part in _decode_batches(following)]
            # the first pass only decodes, and before the first computation nothing has to be checked
            if number > 1:
                self._yield_to_hi(chunks[0].claim)
            if ready:
                yield from self._compute_batch(chunks, [item for future in ready for item in future.result()])

    def _decode(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        return [self.group.decode(item) for item in items]

    def _compute_one_by_one(self, prepared: PreparedChunk) -> Iterator[Record]:
        """Compute one image at a time, with a note of the image in flight, to find the one that kills workers."""
        for row, item in enumerate(prepared.items):
            if not item.settled:
                self._yield_to_hi(prepared.claim)
                prepared.isolation.mark(row)
            yield from self._compute_batch([prepared], [self.group.decode(item)])
            if not item.settled:
                prepared.isolation.clear()

    def _compute_batch(self, chunks: Sequence[PreparedChunk], batch: Sequence[WorkItem]) -> list[Record]:
        """The records of one micro-batch. A failure outside of any stage becomes failed rows."""
        claim = chunks[0].claim
        unsettled = [item for item in batch if not item.settled]
        if unsettled:
            for chunk in chunks:
                self._reserve(chunk)
        # compute what is not settled; a model server that is away is waited for
        compute = functools.partial(self.group.compute, claim.chunk, unsettled)
        try:
            computed = iter(self.claims.retry(claim, compute, StageUnavailable) if unsettled else ())
        except (*PERMANENT_ERRORS, StageBroken, WorkInterrupted):
            raise
        except Exception as error:  # an error in our own code: the images get failed rows instead of getting lost
            log.exception("%s: a micro-batch of chunk %s failed", self.group.name, claim.chunk.id)
            kind, detail = type(error).__name__, str(error)
            computed = iter([item.record.failed(self.group.name, kind, detail) for item in unsettled])
            for chunk in chunks:
                chunk.account.lost()
        # put the computed records between the settled ones, in the order of the batch
        records = [item.record if item.settled else next(computed) for item in batch]
        if len(chunks) == 1:
            chunks[0].account.computed(records)
        return records

    def _yield_to_hi(self, claim: Claim) -> None:
        """Between two micro-batches: compute waiting single images. Raises WorkInterrupted to leave the chunk."""
        if claim.priority == "lo":
            try:
                all(self._compute_hi() for _ in range(HI_BEFORE_LO))
            except QueueUnavailable as error:
                log.warning("%s goes on without Redis: %s", self.group.name, error)
        if self.claims.stop.is_set() or not self.claims.is_wanted(claim):
            raise WorkInterrupted

    # paying and ending

    def _reserve(self, prepared: PreparedChunk) -> None:
        """Reserve the cost of the next micro-batch in the ledger. Raises NotAffordable and WorkInterrupted."""
        chunk = prepared.claim.chunk
        reserve = functools.partial(prepared.account.reserve_next, lambda: self.claims.broker.waiting_jobs(chunk))
        self.claims.retry(prepared.claim, reserve, QueueUnavailable)

    def _is_paid(self, prepared: PreparedChunk) -> bool:
        """Whether a job can pay for the chunk; if none can, the chunk is requeued."""
        try:
            self._reserve(prepared)
        except NotAffordable as refusal:
            self.claims.requeue(prepared.claim, refusal)
            return False
        return True

    def _finish(self, prepared: PreparedChunk, records: list[Record]) -> None:
        """Write the part with its bill, settle the bill, and finish the chunk, in this order.

        A worker that dies in between leaves a part whose bill the next holder settles.
        """
        chunk, account = prepared.claim.chunk, prepared.account
        # images of chunks that were computed together are counted here, others after each micro-batch
        account.complete(records)
        write = functools.partial(self.store.write_records, chunk, records, account.bill)
        counts = self.claims.retry(prepared.claim, write, OSError)
        account.settle()
        self.claims.finish(prepared.claim, count_of(counts), reused=sum(item.reused for item in prepared.items))

    def _release_ahead(self) -> None:
        """Release the chunk that was prepared ahead, and end the threads."""
        if self._ahead is not None:
            with suppress(QueueUnavailable):
                if prepared := self._ahead.result():
                    self.claims.release(prepared.claim)
        self._pool.shutdown(wait=True)
        self._store_pool.shutdown(wait=True)


def _decode_batches(items: Sequence[WorkItem]) -> list[Sequence[WorkItem]]:
    """Items in batches for the threads that decode: one future for each image would cost more than a small image."""
    size = max(MIN_DECODE_BATCH, -(-len(items) // MAX_DECODE_BATCHES))
    return [items[i : i + size] for i in range(0, len(items), size)]
