"""Preparing a claimed chunk: read its first images, skip poisonous ones, and open its account in the ledger."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from models.base import StageNotLoaded
from models.faults import reason_of
from strata.core import MILLION, Chunk, ProfileError, Record, Status
from strata.errors import ProcessBroken, QueueUnavailable
from strata.logs import log_context
from strata.queue import Claim
from strata.store import BrokenPart, Part, ProgressListing, Source, Store, count_of, is_made_list, read_progress
from strata.store import reason_of as storage_reason
from strata.telemetry import field_of, rows_counted
from workers.accounts import Account, ChunkClock
from workers.claims import Claims, told_jobs
from workers.groups import Group
from workers.isolation import Isolation, Verdict
from workers.items import WorkItem
from workers.retry import WorkInterrupted

log = logging.getLogger(__name__)

# Bytes of the images that are read together, mostly those of a whole chunk. A larger chunk is read in pieces, of which
# three are in memory at most: one is decoded, one waits, and one is read. A fourth one is of the next chunk. An image
# that is larger than a piece is in memory without other pieces of its chunk.
PIECE_BYTES = 32 * 2**20
MAX_ACCOUNTS = 100  # of chunks that stepped aside and have not come back yet


@dataclass
class PreparedChunk:
    """A chunk that can be computed: its rows, of which some are settled.

    alone: the numbers of the rows to compute first and one by one, because a process may have ended over them;
    together: those to compute after them in micro-batches. poison: the rows that are passed over. saved: whether the
    store has rows of the chunk; those of an earlier holder are settled here. account: has the rows `alone` and
    `together`, in order. unread: the rows whose images are read when it is their turn to be computed. keep_at: when the
    rows that are computed then are kept, in seconds of the monotonic clock; None: at once, or not decided yet. jobs:
    the ids of the jobs that wait for it, for the log. clock: of its micro-batches.
    """

    claim: Claim
    items: list[WorkItem]
    isolation: Isolation
    alone: list[int]
    together: list[int]
    poison: Collection[int]
    saved: bool
    account: Account
    unread: set[int]
    keep_at: float | None = None
    jobs: str = ""
    clock: ChunkClock = field(default_factory=ChunkClock)

    @property
    def batch_key(self) -> tuple[str, str]:
        """Chunks with equal keys are computed in one micro-batch. A paid chunk of several images has its own key."""
        chunk = self.claim.chunk
        return chunk.fingerprint, chunk.id if self.account.meter and chunk.images > 1 else ""

    @property
    def has_computed(self) -> bool:
        """Whether a row was computed since the chunk was prepared."""
        return any(self.items[row].settled for row in (*self.alone, *self.together))

    def costs(self, rows: Sequence[int]) -> list[Record | None]:
        """The records of rows as the account counts them: None if a row was found to be a copy when it was read."""
        return [None if self.items[row].reused else self.items[row].record for row in rows]

    def records(self) -> list[Record]:
        """The records of all rows, when they are settled.

        A poisonous row may succeed elsewhere if nothing has shown that this machine still computes other images.
        """
        proved = self.isolation.proved
        return [
            item.record if proved or row not in self.poison else _transient(item.record)
            for row, item in enumerate(self.items)
        ]

    def counted(self, records: Sequence[Record]) -> dict[str, float]:
        """What metrics count of the chunk when it is finished, by field. records: of all rows."""
        computed = [record for record, item in zip(records, self.items, strict=True) if not item.reused]
        chunk, meter = self.claim.chunk, self.account.meter
        sums = rows_counted(chunk.group, computed, len(records) - len(computed))
        if meter is not None:
            money = sum(meter.used(record)[1].money for record in computed)
            sums[field_of("strata_money", chunk.profile)] = money / MILLION
        return sums


class ChunkPreparer:
    """Prepares a group's chunks. micro_batch: how many images are reserved in the ledger at once."""

    def __init__(self, group: Group, claims: Claims, micro_batch: int) -> None:
        self.group, self.claims, self.micro_batch = group, claims, micro_batch
        self.store: Store = claims.store
        self._kept = ProgressListing(self.store)
        self._interrupted: dict[str, Account] = {}  # by chunk id

    def keep(self, account: Account) -> None:
        """Keep the account of a chunk that steps aside, for its next attempt in this process."""
        account.rows = ()
        self._interrupted[account.chunk.id] = account
        # another process may have finished the oldest ones
        if len(self._interrupted) > MAX_ACCOUNTS:
            del self._interrupted[next(iter(self._interrupted))]

    def prepare(self, claim: Claim) -> PreparedChunk | None:
        """Read a chunk's items; None if there is nothing to compute, because its part exists or it cannot be read.

        Raises QueueUnavailable.
        """
        jobs = told_jobs(self.claims.waiting_jobs, claim.chunk)
        with log_context(chunk=claim.chunk.id, job=jobs):
            prepared = self._prepare_or_end(claim)
        if prepared is not None:
            prepared.jobs = jobs
        return prepared

    def _prepare_or_end(self, claim: Claim) -> PreparedChunk | None:
        chunk = claim.chunk
        try:
            return self._prepare(claim)
        except WorkInterrupted:
            self.claims.release(claim)
        except ProfileError as error:
            self.claims.leave(claim, str(error))
        except (FileNotFoundError, ValueError) as error:
            reason = f"{type(error).__name__}: {storage_reason(error)}"
            self.claims.fail(claim, f"chunk {chunk.id} cannot be read: {reason}")
        except StageNotLoaded as error:
            self.claims.step_aside(claim, error.stage, str(error))
        except QueueUnavailable:
            # the lease lapses, and a worker reclaims the chunk when Redis is back
            self.claims.stop_renewing(claim)
            raise
        except ProcessBroken:
            raise
        # an error of our own: none of the images was looked at
        except Exception as error:
            log.exception("chunk %s cannot be prepared", chunk.id)
            self.claims.step_aside(claim, self.group.name, f"cannot be read: {reason_of(error)}")
        return None

    def _prepare(self, claim: Claim) -> PreparedChunk | None:
        try:
            # for an upload that is delivered for the first time, the API has looked for the part a moment ago
            asked = claim.deliveries == 1 and self.store.is_upload(claim.chunk.shard)
            return None if not asked and self._is_done(claim) else self._read(claim)
        except BrokenPart as error:
            return self._after(claim, error)

    def _is_done(self, claim: Claim) -> bool:
        """Whether a part of the chunk exists already, of its attempt or a newer one; if so, the chunk is finished."""
        chunk = claim.chunk
        # another job or an earlier holder may have written the part
        attempts = self.claims.retry(claim, lambda: self.store.attempts_of(chunk), OSError)
        newest = attempts.newest(chunk)
        if newest is None:
            # a newer attempt was broken and must be computed again: this one would not count
            if attempts.needed(chunk) != chunk:
                raise Source.of(attempts.needed(chunk)).broken("it was set aside")
            return False
        footer = self.claims.retry(claim, lambda: self.store.read_footer(newest), OSError)
        # the worker that wrote the part may have died before it settled the bill; settling twice is harmless
        if footer.bill is not None:
            self.claims.budgets.settle(newest.id, footer.bill)
        sums = rows_counted(chunk.group, (), chunk.images)
        self.claims.finish(claim, count_of(footer.counts), reused=chunk.images, sums=sums)
        return True

    def _after(self, claim: Claim, error: BrokenPart) -> PreparedChunk | None:
        """Set a broken part aside that was found while a chunk was prepared, and go on.

        It may be a part that the chunk needs, of the group before, or a newer attempt at the chunk: then that chunk is
        queued instead. Otherwise the chunk is prepared again, without the part.
        """
        chunk, part = claim.chunk, Part.parse(error.path)
        self.claims.retry(claim, lambda: self.store.set_aside(error), OSError)
        if part.group == chunk.group and part.attempt <= chunk.attempt:
            return self._prepare(claim)
        if part.group == "index" and (self.store.is_upload(chunk.shard) or is_made_list(chunk.shard)):
            # no worker indexes uploads and picked images
            self.claims.fail(claim, f"{error}; submit the images again")
        elif part.group == "index":
            # the index knows its shard's identity only when it has read the shard
            self.claims.replace(claim, Chunk("index", chunk.profile, part.fingerprint, chunk.shard))
        else:
            needed = replace(chunk, group=part.group, fingerprint=part.fingerprint, attempt=part.attempt)
            self.claims.replace(claim, needed)
        return None

    def _read(self, claim: Claim) -> PreparedChunk | None:
        chunk = claim.chunk
        # find out whether workers have died with this chunk in flight
        isolation = Isolation(self.claims.notes, claim)
        verdict = isolation.begin()
        if verdict.doubt:
            isolation.prepared()
            self.claims.step_aside(claim, self.group.name, verdict.doubt)
            return None
        # read the rows; settle those that an earlier holder has computed, and those that are passed over
        items = self.claims.retry(claim, lambda: self.group.items(chunk), OSError)
        meter, saved = self.group.meter(chunk), dict[int, Record]()
        if verdict.saved or self._may_have_rows(claim, len(items), paid=meter is not None):
            saved = self.claims.retry(claim, lambda: read_progress(self.store, chunk), OSError)
        poison = _settle(items, verdict, saved)
        # read the images of the others; of a large chunk only the first ones
        wanted = [row for row, item in enumerate(items) if not item.settled] if self.group.needs_images(chunk) else []
        totals = itertools.accumulate(items[row].record.image.size for row in wanted)
        now = [row for row, total in zip(wanted, totals, strict=True) if total <= PIECE_BYTES]
        read_images(self.group, self.claims, claim, items, now)
        isolation.prepared()
        # rows that may have ended a process come first; settled rows cost nothing
        alone, together = verdict.order([row for row, item in enumerate(items) if not item.settled])
        unsettled = [items[row].record for row in (*alone, *together)]
        account = Account(self.claims.budgets, chunk, meter, unsettled, self.micro_batch)
        earlier = self._interrupted.pop(chunk.id, None)
        if earlier is not None and earlier.payer in self.claims.waiting_jobs(chunk):
            account.resume(earlier)
        unread = set(wanted[len(now) :])
        return PreparedChunk(claim, items, isolation, alone, together, poison, bool(saved), account, unread)

    def _may_have_rows(self, claim: Claim, rows: int, paid: bool) -> bool:
        """Whether rows of a chunk may be kept without a note: those of a chunk that takes long are, and paid ones."""
        # a chunk of one row has its part as soon as that is computed
        if rows < 2:
            return False
        # a delivery that is the first may be of another job, or come after a loss of Redis; rows are never paid twice
        again = claim.deliveries > 1 or claim.returned or paid
        return again or self.claims.retry(claim, lambda: self._kept.has(claim.chunk), OSError)


def read_images(group: Group, claims: Claims, claim: Claim, items: list[WorkItem], rows: Sequence[int]) -> None:
    """Replace the items of some rows by items with their images' bytes, or settled ones. Raises as `Claims.retry` does.

    While the storage is away, it is waited for.
    """
    if rows:
        read = claims.retry(claim, lambda: group.read(claim.chunk, [items[row] for row in rows]), OSError)
        for row, item in zip(rows, read, strict=True):
            items[row] = item


def _settle(items: list[WorkItem], verdict: Verdict, saved: Mapping[int, Record]) -> Collection[int]:
    """Settle the rows that are saved, and those that are poison, which are returned."""
    left = [row for row, item in enumerate(items) if not item.settled and row not in saved]
    # if all rows that are left are accused, one that was computed before shows whether the machine works
    spare = [row for row, record in saved.items() if record.status is Status.SUCCEEDED and not items[row].settled]
    if spare and verdict.needs_control(left):
        left.append(spare[-1])
    poison = verdict.poison(left)
    for row, item in enumerate(items):
        if row in poison:
            stage, kind, detail = poison[row]
            record = item.record.failed(stage, kind, detail, transient=kind == "OutOfMemoryError")
            items[row] = WorkItem(record, settled=True)
        elif row in saved and row not in left:
            items[row] = WorkItem(saved[row], settled=True)
    return poison.keys()


def _transient(record: Record) -> Record:
    if record.failure is None:
        return record
    return record.model_copy(update={"failure": record.failure.model_copy(update={"transient": True})})
