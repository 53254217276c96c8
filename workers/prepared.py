"""Preparing a claimed chunk: read its images, skip poisonous ones, and open its account in the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from strata.core import ProfileError
from strata.errors import QueueUnavailable
from strata.queue import Claim
from strata.store import Store, count_of, reason_of
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
            # another job or an earlier holder may have written the part; for an upload that is delivered for the first
            # time, the API has asked a moment ago
            asked = claim.deliveries == 1 and self.store.is_upload(chunk.shard)
            if not asked and self.claims.retry(claim, lambda: self.store.has_part(chunk), OSError):
                self._finish_existing(claim)
                return None
            return self._read(claim)
        except WorkInterrupted:
            self.claims.release(claim)
        except ProfileError as error:
            self.claims.fail(claim, str(error))
        except (FileNotFoundError, ValueError) as error:
            self.claims.fail(claim, f"chunk {chunk.id} cannot be read: {type(error).__name__}: {reason_of(error)}")
        except QueueUnavailable:
            # the lease lapses, and a worker reclaims the chunk when Redis is back
            self.claims.stop_renewing(claim)
            raise
        return None

    def _finish_existing(self, claim: Claim) -> None:
        """Count a part that exists already."""
        chunk = claim.chunk
        counts, bill = self.claims.retry(claim, lambda: self.store.read_footer(chunk), OSError)
        # the worker that wrote the part may have died before it settled the bill; settling twice is harmless
        if bill is not None:
            self.claims.jobs.ledger.settle(chunk.id, bill)
        self.claims.finish(claim, count_of(counts), reused=chunk.images)

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
