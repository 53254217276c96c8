"""A chunk in hand, opened: its items read, its dangerous images known, its spending accounted."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from strata.queue.broker import Claim
from strata.store.store import Store, count_of
from workers.accounts import Account
from workers.claims import Claims
from workers.groups import Group, Item
from workers.isolation import Isolation
from workers.retry import WorkInterrupted


@dataclass
class Opened:
    """careful: the chunk ended a worker before, so it is computed image by image."""

    claim: Claim
    items: list[Item]
    isolation: Isolation
    careful: bool
    account: Account

    @property
    def together(self) -> tuple[str, str]:
        """Chunks with equal answers are computed together; one of several images that are paid for stays alone."""
        chunk = self.claim.chunk
        return chunk.fingerprint, chunk.id if self.account.meter and chunk.images > 1 else ""


class Opener:
    """Opens a group's chunks. micro_batch: images that are paid for at once."""

    def __init__(self, group: Group, claims: Claims, micro_batch: int) -> None:
        self.group, self.claims, self.micro_batch = group, claims, micro_batch
        self.store: Store = claims.jobs.store

    def open(self, claim: Claim) -> Opened | None:
        """Read a chunk's items; None if there is nothing to compute: it is done, or cannot be read.

        Raises redis.RedisError.
        """
        chunk = claim.chunk
        try:
            if self.claims.waiting(claim, lambda: self.store.has_part(chunk), OSError):
                self._take_up(claim)
                return None
            return self._read(claim)
        except WorkInterrupted:
            self.claims.leave(claim)
        except (FileNotFoundError, ValueError) as error:
            self.claims.abandon(claim, f"chunk {chunk.id} cannot be opened: {type(error).__name__}: {error}")
        except redis.RedisError:
            self.claims.release(claim)
            raise
        return None

    def _take_up(self, claim: Claim) -> None:
        """Count a part that is there already."""
        chunk = claim.chunk
        counts, bill = self.claims.waiting(claim, lambda: self.store.read_footer(chunk), OSError)
        if bill is not None:  # whoever wrote it may have died before it was settled
            self.claims.jobs.ledger.settle(chunk.id, bill)
        self.claims.finish(claim, count_of(counts), reused=chunk.images)

    def _read(self, claim: Claim) -> Opened:
        chunk, jobs = claim.chunk, self.claims.jobs
        isolation = Isolation(jobs.broker.redis, claim)
        verdict = isolation.begin()
        items = self.claims.waiting(claim, lambda: self.group.items(chunk), OSError)
        poison = range(len(items)) if verdict.hopeless else verdict.rows
        items = [_poisoned(item) if row in poison else item for row, item in enumerate(items)]
        items = self.claims.waiting(claim, lambda: self.group.read(chunk, items), OSError)
        isolation.opened()
        rows = [None if item.settled else item.record for item in items]
        account = Account(jobs.ledger, chunk, self.group.meter(chunk), rows, self.micro_batch)
        return Opened(claim, items, isolation, verdict.careful, account)


def _poisoned(item: Item) -> Item:
    """An image that ended workers, settled as failed; one that was settled before stays."""
    if item.settled:
        return item
    return Item(item.record.failed("runner", "poison", "workers died with this image in hand"), settled=True)
