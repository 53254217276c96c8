"""Accounts: a chunk's spending on servers is reserved ahead in the ledger of a job that waits for it, then settled."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence

from strata.core.chunks import Chunk
from strata.core.errors import StrataError
from strata.core.profiles import Profile
from strata.core.records import Record
from strata.core.usage import Bill, Cost, Usage
from strata.queue.ledger import Ledger

BoundOf = Callable[[Record], Mapping[str, tuple[Usage, Usage]]]


class NotAffordable(StrataError):
    """No waiting job can pay for the chunk now. spent: those that never can, each with the reason."""

    def __init__(self, spent: Mapping[str, str]) -> None:
        super().__init__("; ".join(spent.values()) or "other chunks have reserved what is left")
        self.spent = spent


class Meter:
    """What a group's stages that ask servers can cost for an image at most, and what they did cost.

    bound_of: of a record and by stage, the most that one try and that all tries can use.
    """

    def __init__(self, profile: Profile, group: str, bound_of: BoundOf) -> None:
        self._profile, self._stages, self._bound_of = profile, profile.paid(group), bound_of

    def bounds(self, record: Record) -> tuple[Cost, Cost]:
        """The most that one try and that all tries can cost."""
        bounds = self._bound_of(record)
        once = self._profile.cost({stage: bound[0] for stage, bound in bounds.items()})
        return once, self._profile.cost({stage: bound[1] for stage, bound in bounds.items()})

    def used(self, record: Record) -> tuple[Usage, Cost]:
        """What a computed record did use and cost."""
        used = {stage: record.usage[stage] for stage in self._stages if stage in record.usage}
        return sum(used.values(), Usage()), self._profile.cost(used)


class Account:
    """What one chunk may spend and has spent. meter: None where no server is asked; then there is nothing to do.

    rows: the chunk's records, None for those that are settled before; micro_batch: how many are computed together.
    """

    def __init__(
        self, ledger: Ledger, chunk: Chunk, meter: Meter | None, rows: Sequence[Record | None], micro_batch: int
    ) -> None:
        self.ledger, self.chunk, self.meter, self.rows, self.micro_batch = ledger, chunk, meter, rows, micro_batch
        self.entry = f"{chunk.id}#{secrets.token_hex(4)}"
        self.payer: str | None = None
        self._bounds: list[tuple[Cost, Cost]] = []
        self._at = 0  # rows before it are computed
        self._usage, self._spent, self._doubt, self._reserved = Usage(), Cost(), Cost(), Cost()
        self._in_hand = False
        self._settled = meter is None

    def ahead(self, waiting: Callable[[], Iterable[str]]) -> None:
        """Before a micro-batch: make sure that a waiting job pays for all rows left, once each, and for every
        repeat within this micro-batch. Raises NotAffordable, and redis.RedisError."""
        if self.meter is None:
            return
        if not self._bounds:
            self._bounds = [self.meter.bounds(row) if row is not None else (Cost(), Cost()) for row in self.rows]
        need = sum((once for once, _ in self._bounds[self._at + self.micro_batch :]), self._spent + self._doubt)
        need += self._worst()
        if self.payer is None or not need.within(self._reserved):
            self._reserve(need, [self.payer] if self.payer else sorted(waiting()))
        self._in_hand = True

    def _worst(self) -> Cost:
        """The most that the next micro-batch can cost."""
        return sum((whole for _, whole in self._bounds[self._at : self._at + self.micro_batch]), Cost())

    def _reserve(self, need: Cost, jobs: Sequence[str]) -> None:
        spent: dict[str, str] = {}
        for job_id in jobs:  # ids sort by time: the oldest that can afford it pays
            answer = self.ledger.reserve(job_id, self.chunk.id, self.entry, need)
            if answer == "yes":
                self.payer, self._reserved, self._settled = job_id, need, False
                return
            if answer == "no":
                most = f"up to {need.tokens:,} tokens" + (f" or {need.money / 1e6:.6g} in money" if need.money else "")
                spent[job_id] = f"budget spent: the next chunk may cost {most}, left: {self.ledger.left(job_id)}"
        raise NotAffordable(spent)

    def computed(self, records: Sequence[Record]) -> None:
        """After a micro-batch: the records of its rows, in order."""
        if self.meter is None:
            return
        for row, record in zip(self.rows[self._at :], records, strict=False):
            if row is not None:
                usage, cost = self.meter.used(record)
                self._usage, self._spent = self._usage + usage, self._spent + cost
        self._at += len(records)
        self._in_hand = False

    def lost(self) -> None:
        """The micro-batch in hand failed by a fault of ours: nobody knows what it used."""
        if self.meter is not None:
            self._doubt += self._worst()

    def rest(self, records: Sequence[Record]) -> None:
        """All records of the chunk are there; count those that were not counted."""
        self.computed(records[self._at :])

    @property
    def bill(self) -> Bill | None:
        """What it cost so far, and who paid."""
        if self.payer is None:
            return None
        doubt = self._doubt + self._worst() if self._in_hand else self._doubt
        return Bill(job=self.payer, entry=self.entry, usage=self._usage, cost=self._spent, doubt=doubt)

    def settle(self) -> None:
        """Put what was spent in the place of what was reserved, once. What is in hand counts with its worst case.

        Raises redis.RedisError; then the reservation stays.
        """
        bill = self.bill
        if bill is not None and not self._settled:
            self.ledger.settle(self.chunk.id, bill)
            self._settled = True
