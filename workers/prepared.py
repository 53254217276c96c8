"""Preparing a claimed chunk: read its images, skip poisonous ones, and open its account in the ledger."""

from __future__ import annotations

from dataclasses import dataclass, replace

from strata.core import Chunk, ProfileError
from strata.errors import QueueUnavailable
from strata.queue import Claim
from strata.store import BrokenPart, Part, Source, Store, count_of, reason_of
from workers.accounts import Account
from workers.claims import Claims
from workers.groups import Group
from workers.isolation import Isolation
from workers.items import WorkItem
from workers.retry import WorkInterrupted


@dataclass
class PreparedChunk:
    """A chunk that can be computed. one_by_one: a worker died with it in flight, so its images are computed alone."""

    claim: Claim
    items: list[WorkItem]
    isolation: Isolation
    one_by_one: bool
    account: Account

    @property
    def batch_key(self) -> tuple[str, str]:
        """Chunks with equal keys are computed in one micro-batch. A paid chunk of several images has its own key."""
        chunk = self.claim.chunk
        return chunk.fingerprint, chunk.id if self.account.meter and chunk.images > 1 else ""


class ChunkPreparer:
    """Prepares a group's chunks. micro_batch: how many images are reserved in the ledger at once."""

    def __init__(self, group: Group, claims: Claims, micro_batch: int) -> None:
        self.group, self.claims, self.micro_batch = group, claims, micro_batch
        self.store: Store = claims.jobs.store

    def prepare(self, claim: Claim) -> PreparedChunk | None:
        """Read a chunk's items; None if there is nothing to compute, because its part exists or it cannot be read.

        Raises QueueUnavailable.
        """
        chunk = claim.chunk
        try:
            # for an upload that is delivered for the first time, the API has looked for the part a moment ago
            asked = claim.deliveries == 1 and self.store.is_upload(chunk.shard)
            return None if not asked and self._is_done(claim) else self._read(claim)
        except WorkInterrupted:
            self.claims.release(claim)
        except ProfileError as error:
            self.claims.fail(claim, str(error))
        except BrokenPart as error:
            return self._after(claim, error)
        except (FileNotFoundError, ValueError) as error:
            self.claims.fail(claim, f"chunk {chunk.id} cannot be read: {type(error).__name__}: {reason_of(error)}")
        except QueueUnavailable:
            # the lease lapses, and a worker reclaims the chunk when Redis is back
            self.claims.stop_renewing(claim)
            raise
        return None

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
            self.claims.jobs.ledger.settle(newest.id, footer.bill)
        self.claims.finish(claim, count_of(footer.counts), reused=chunk.images)
        return True

    def _after(self, claim: Claim, error: BrokenPart) -> PreparedChunk | None:
        """Set a broken part aside that was found while a chunk was prepared, and go on.

        It may be a part that the chunk needs, of the group before, or a newer attempt at the chunk: then that chunk is
        queued instead. Otherwise the chunk is prepared again, without the part.
        """
        chunk, part = claim.chunk, Part.parse(error.path)
        self.claims.retry(claim, lambda: self.store.set_aside(error), OSError)
        if part.group == chunk.group and part.attempt <= chunk.attempt:
            return self.prepare(claim)
        if part.group == "index" and self.store.is_upload(chunk.shard):
            self.claims.fail(claim, f"{error}; submit the image again")
        elif part.group == "index":
            # the index knows its shard's identity only when it has read the shard
            self.claims.replace(claim, Chunk("index", chunk.profile, part.fingerprint, chunk.shard))
        else:
            needed = replace(chunk, group=part.group, fingerprint=part.fingerprint, attempt=part.attempt)
            self.claims.replace(claim, needed)
        return None

    def _read(self, claim: Claim) -> PreparedChunk:
        chunk, jobs = claim.chunk, self.claims.jobs
        # find out whether workers have died with this chunk in flight
        isolation = Isolation(jobs.queue.isolation_notes, claim)
        verdict = isolation.begin()
        # read the rows, settle the poisonous ones as failed, and read the images of the others
        items = self.claims.retry(claim, lambda: self.group.items(chunk), OSError)
        poison = range(len(items)) if verdict.poison_chunk else verdict.poison_rows
        items = [_poisoned(item) if row in poison else item for row, item in enumerate(items)]
        items = self.claims.retry(claim, lambda: self.group.read(chunk, items), OSError)
        isolation.prepared()
        # settled rows cost nothing
        rows = [None if item.settled else item.record for item in items]
        account = Account(jobs.ledger, chunk, self.group.meter(chunk), rows, self.micro_batch)
        return PreparedChunk(claim, items, isolation, verdict.one_by_one, account)


def _poisoned(item: WorkItem) -> WorkItem:
    """A poisonous image, settled as failed; an item that is settled already is left as it is."""
    if item.settled:
        return item
    return WorkItem(item.record.failed("runner", "poison", "workers died while they computed this image"), settled=True)
