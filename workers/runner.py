"""The runner: the loop that computes chunks, the same for every group that runs models.

The path of a chunk: `_take` claims and prepares it in a thread while the chunk before is computed. `_compute` decodes
its images in threads, one micro-batch ahead of the models, and lets single images of the priority `hi` pass between
two micro-batches. `_finish` writes the part, and acknowledges and counts the chunk.

Whose fault an error is, is decided in `models.base` and `workers.micro_batches`. Here each answer has its end: a failed
row is part of the chunk; a chunk whose stage does not work steps aside; a process that is broken hands its chunks over.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from typing import TypeVar

from models.base import StageBroken, StageNotLoaded, StageUnavailable, StageUnfit, WeightsMissing
from strata.core import ProfileError, Work
from strata.errors import ProcessBroken, QueueUnavailable
from strata.logs import log_context
from strata.queue import PRIORITIES
from strata.store import Store, count_of, remove_progress
from strata.telemetry import carried, span
from workers.accounts import NotAffordable
from workers.ahead import DECODE_THREADS, Ahead
from workers.claims import Claims
from workers.groups import Group
from workers.handover import hand_over, keep_computed, step_aside
from workers.micro_batches import MachineFault, MicroBatches, Row, using_storage
from workers.prepared import ChunkPreparer, PreparedChunk
from workers.retry import WorkInterrupted

Item = TypeVar("Item")
Result = TypeVar("Result")
log = logging.getLogger(__name__)

PERMANENT_ERRORS = (WeightsMissing, ProfileError, StageUnfit)  # a retry would fail in the same way
STORE_THREADS = 16  # single images whose parts are read or written at a time: each call to a bucket takes a while
MAX_SERVERS = 8  # fingerprints that are computed at a time, if their servers do not answer soon
MAX_HELD = 256  # single images that wait for the end of a micro-batch of their fingerprint
SERVER_SECONDS = 0.25  # to wait for a server before other single images are looked for
HI_BEFORE_LO = 4  # micro-batches of `hi` before one of `lo`: a constant load of single images must not starve jobs


class Runner:
    """Runs one group's chunks until it is stopped. micro_batch: images that the models compute together."""

    def __init__(
        self,
        group: Group,
        claims: Claims,
        micro_batch: int,
    ) -> None:
        self.group, self.claims, self.micro_batch = group, claims, micro_batch
        self.store: Store = claims.store
        self.preparer = ChunkPreparer(group, self.claims, micro_batch)
        self.batches = MicroBatches(group, self.claims)
        # beside the decoding, one prepares the next chunk and one reads the next images of a large chunk
        self._pool = ThreadPoolExecutor(DECODE_THREADS + 2, thread_name_prefix=group.name)
        self.reader = Ahead(self.batches, self._pool, micro_batch)
        self._store_pool = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix=f"{group.name} store")
        self._ahead: Future[PreparedChunk | None] | None = None
        # a model server may not answer for minutes: its chunks are computed in threads, and others meanwhile
        self._server_pool = ThreadPoolExecutor(MAX_SERVERS, thread_name_prefix=f"{group.name} server")
        self._busy: set[str] = set()  # fingerprints that are computed in these threads
        self._held: list[PreparedChunk] = []  # single images of these fingerprints, which wait for their end
        self._begun: set[str] = set()  # fingerprints of which a chunk of shards was computed
        self._writing = 0.0  # seconds that the last of these took after its images were computed

    def run(self, stop: threading.Event) -> None:
        """Compute chunks until stop is set; chunks in flight are released then. Raises ProcessBroken, with stop set."""
        self.claims.stop = stop
        try:
            while not stop.is_set():
                try:
                    self._step()
                except QueueUnavailable as error:
                    log.warning("%s waits for Redis: %s", self.group.name, error)
                    stop.wait(1.0)
        except ProcessBroken:
            stop.set()  # also for the thread that prepares the next chunk
            raise
        finally:
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
        if self.claims.stop.is_set() or len(self._held) >= MAX_HELD:
            return False
        held, self._held = self._held, []
        claims = self.claims.claim(self.micro_batch, ("hi",))
        try:
            # compute chunks of the same profile together; those of a busy fingerprint wait
            prepared = [chunk for chunk in self._together(self.preparer.prepare, claims) if chunk is not None]
            for _, group in itertools.groupby([*held, *prepared], key=lambda chunk: chunk.batch_key):
                chunks = list(group)
                if chunks[0].claim.chunk.fingerprint in self._busy:
                    self._held += chunks
                else:
                    self._compute(chunks)
        except ProcessBroken:
            self.claims.release_held([*claims, *(chunk.claim for chunk in held)])
            raise
        finally:
            # if Redis went away in between, the leases of the remaining chunks lapse and a worker reclaims them
            waiting = [chunk.claim for chunk in self._held]
            for claim in [*claims, *(chunk.claim for chunk in held)]:
                if claim not in waiting:
                    self.claims.stop_renewing(claim)
        return len(claims) + len(held) > len(self._held)

    def _together(self, act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results of act for all items, in threads if there are several. Raises the first error, after the last."""
        if len(items) < 2:
            return [act(item) for item in items]
        futures = [self._store_pool.submit(carried(act), item) for item in items]
        wait(futures)
        return [future.result() for future in futures]

    # computing

    def _compute(self, chunks: list[PreparedChunk]) -> None:
        """Compute chunks of one fingerprint together, then write and finish each."""
        alone = chunks[0] if len(chunks) == 1 else None
        with log_context(chunk=alone.claim.chunk.id if alone else "", job=alone.jobs if alone else ""):
            own = [chunk.claim.chunk for chunk in chunks]
            images = sum(chunk.images for chunk in own)
            with span(f"compute {self.group.name}", self.claims.traces(own), chunk=own[0].id, images=images):
                self._compute_or_end(chunks)

    def _compute_or_end(self, chunks: list[PreparedChunk]) -> None:
        try:
            # reserve the worst-case cost of the first micro-batch; chunks that no job can pay for are requeued
            chunks = [chunk for chunk in chunks if self._is_paid(chunk)]
            if not chunks:
                return
            # images that may have ended a process come first and alone, then the others in micro-batches
            for chunk in chunks:
                self._compute_alone(chunk)
            self._compute_together(chunks)
            began = time.monotonic()
            self._together(self._finish, chunks)
            if chunks[0].claim.priority == "lo":
                self._writing = time.monotonic() - began
        except WorkInterrupted:
            for chunk in chunks:
                self.claims.release(chunk.claim)
        except NotAffordable as refusal:
            for chunk in chunks:
                _settle(chunk)  # before its job ends, whose end says what was spent
                self.claims.requeue(chunk.claim, refusal)
        except PERMANENT_ERRORS as error:
            for chunk in chunks:
                self.claims.fail(chunk.claim, str(error))
        except StageUnavailable as unavailable:
            self._step_aside(chunks, unavailable)
        except (StageNotLoaded, MachineFault) as error:
            for chunk in chunks:
                self.claims.step_aside(chunk.claim, error.stage, str(error))
        except StageBroken as broken:
            self._hand_over(chunks, broken)
            raise
        finally:
            for chunk in chunks:
                self.claims.stop_renewing(chunk.claim)
                _settle(chunk)

    def _compute_alone(self, chunk: PreparedChunk) -> None:
        """Compute a chunk's suspects one by one, with a note of the one in flight, to find out who ends processes."""
        for row in chunk.alone:
            self._yield_to_hi(chunk)
            self.batches.read([(chunk, row)])
            # what cannot be read does not show whether this process computes any image
            is_read = not chunk.items[row].settled
            if is_read:
                chunk.isolation.mark(row)
            self.batches.decode([(chunk, row)])
            self._compute_batch([(chunk, row)])
            if is_read:
                chunk.isolation.computed(row)

    def _compute_together(self, chunks: list[PreparedChunk]) -> None:
        """Compute the other rows in micro-batches; the next micro-batch is decoded while one is computed."""
        rows = [(chunk, row) for chunk in chunks for row in chunk.together]
        for chunk in chunks:
            chunk.clock.begin()
            if chunk.together:
                chunk.isolation.mark()
        with closing(self.reader.micro_batches(rows)) as batches:
            for number, coming in enumerate(batches):
                # before the first computation nothing has to be checked
                if number:
                    self._yield_to_hi(chunks[0])
                coming.wait()
                if coming.rows:
                    self._compute_batch(coming.rows)
                    for chunk in chunks:
                        chunk.isolation.computed()

    def _compute_batch(self, rows: Sequence[Row]) -> None:
        """Compute and settle the rows of one micro-batch, and count their cost."""
        chunks = list({id(chunk): chunk for chunk, _ in rows}.values())
        for chunk in chunks:
            chunk.clock.start()
        if any(not chunk.items[row].settled for chunk, row in rows):
            for chunk in chunks:
                self._reserve(chunk)
        if chunks[0].account.meter is None:
            self.batches.compute(rows)
        else:
            self._compute_on_server(rows, chunks)
        for chunk in chunks:
            chunk.clock.end()
        # chunks that are computed together have one image each, which is counted at the end
        if len(chunks) == 1:
            chunks[0].account.computed(chunks[0].costs([row for _, row in rows]))
            keep_computed(chunks[0], self.store)

    def _compute_on_server(self, rows: Sequence[Row], chunks: Sequence[PreparedChunk]) -> None:
        """Compute rows whose stages ask a server, and single images of other fingerprints as long as it takes."""
        fingerprint = chunks[0].claim.chunk.fingerprint
        self._busy.add(fingerprint)
        computing = self._server_pool.submit(carried(self.batches.compute), rows)
        try:
            while not computing.done():
                wait([computing], timeout=SERVER_SECONDS)
                # each server that hangs may keep one thread; nothing else is in flight beside a suspect
                if not computing.done() and len(self._busy) < MAX_SERVERS and not _is_suspect(rows):
                    with suppress(QueueUnavailable):
                        self._compute_hi()
        finally:
            self._busy.discard(fingerprint)
        computing.result()
        # the images were computed: if they were a trial, the others need not wait for its end
        with suppress(QueueUnavailable):
            for chunk in chunks:
                self.claims.stage_works(chunk.claim)

    def _step_aside(self, chunks: Sequence[PreparedChunk], error: StageUnavailable) -> None:
        """Let chunks step aside. The first one pays for the questions so far, because they were asked together."""
        for chunk in chunks:
            chunk.account.interrupted(error.spent if chunk is chunks[0] else {})
            self.preparer.keep(chunk.account)
            step_aside(chunk, self.claims, error)

    def _yield_to_hi(self, chunk: PreparedChunk) -> None:
        """Between two micro-batches: compute waiting single images. Raises WorkInterrupted to leave the chunk."""
        claim = chunk.claim
        if claim.priority == "lo":
            began = time.monotonic()
            try:
                all(self._compute_hi() for _ in range(HI_BEFORE_LO))
            except QueueUnavailable as error:
                log.warning("%s goes on without Redis: %s", self.group.name, error)
            chunk.clock.pause(time.monotonic() - began)
        if self.claims.stop.is_set() or not self.claims.is_wanted(claim):
            raise WorkInterrupted

    # paying and ending

    def _reserve(self, prepared: PreparedChunk) -> None:
        """Reserve the cost of the next micro-batch in the ledger. Raises NotAffordable and WorkInterrupted."""
        chunk = prepared.claim.chunk
        reserve = functools.partial(prepared.account.reserve_next, lambda: self.claims.waiting_jobs(chunk))
        self.claims.retry(prepared.claim, reserve, QueueUnavailable)

    def _is_paid(self, prepared: PreparedChunk) -> bool:
        """Whether a job can pay for the chunk; if none can, the chunk is requeued."""
        try:
            self._reserve(prepared)
        except NotAffordable as refusal:
            self.claims.requeue(prepared.claim, refusal)
            return False
        return True

    def _finish(self, prepared: PreparedChunk) -> None:
        """Write the part with its bill, settle the bill, and finish the chunk, in this order.

        A worker that dies in between leaves a part whose bill the next holder settles. Raises MachineFault.
        """
        chunk, account, records = prepared.claim.chunk, prepared.account, prepared.records()
        # images of chunks that were computed together are counted here, others after each micro-batch
        account.complete(prepared.costs([*prepared.alone, *prepared.together]))
        write = functools.partial(self.store.write_records, chunk, records, account.bill, self._work(prepared))
        with using_storage("the part cannot be written"), span("write part", chunk=chunk.id, rows=len(records)):
            counts = self.claims.retry(prepared.claim, write, OSError)
        account.settle()
        reused = sum(item.reused for item in prepared.items)
        self.claims.finish(prepared.claim, count_of(counts), reused=reused, sums=prepared.counted(records))
        if prepared.saved:
            remove_progress(self.store, chunk)

    def _work(self, prepared: PreparedChunk) -> Work | None:
        """What a chunk of shards took; None of single images, which are computed together with others."""
        chunk = prepared.claim.chunk
        if prepared.claim.priority != "lo":
            return None
        first = chunk.fingerprint not in self._begun
        self._begun.add(chunk.fingerprint)
        images = sum(not item.reused for item in prepared.items)
        return prepared.clock.work(images, 0.0 if first else self._writing, first, self.group.loading(chunk))

    def _hand_over(self, chunks: Sequence[PreparedChunk], broken: StageBroken) -> None:
        """Leave chunks to their next holders, because this process ends. No row is suspected for a failed loading."""
        in_flight = [] if broken.loading else self.batches.in_flight
        for chunk in chunks:
            rows = [row for other, row in in_flight if other is chunk]
            hand_over(chunk, self.claims, rows, len(rows) == len(in_flight) == 1, broken)

    def _release_ahead(self) -> None:
        """Release the chunk that was prepared ahead, and end the threads."""
        if self._ahead is not None:
            with suppress(QueueUnavailable):
                if prepared := self._ahead.result():
                    self.claims.release(prepared.claim)
        for prepared in self._held:
            self.claims.release(prepared.claim)
        self._server_pool.shutdown(wait=True)
        self._pool.shutdown(wait=True)
        self._store_pool.shutdown(wait=True)


def _settle(chunk: PreparedChunk) -> None:
    """Settle a chunk's account. Without Redis the reservation stays, and the bill in the part restores it."""
    with suppress(QueueUnavailable):
        chunk.account.settle()


def _is_suspect(rows: Sequence[Row]) -> bool:
    return any(row in chunk.alone for chunk, row in rows)
