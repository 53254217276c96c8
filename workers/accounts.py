"""Accounts: what a chunk costs. Its time is measured; what servers cost is reserved in the ledger, then settled."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from strata.core import MILLION, Bill, Chunk, Cost, Profile, Record, Usage, Work
from strata.errors import StrataError
from strata.queue import Reservation

BoundOf = Callable[[Record], Mapping[str, tuple[Usage, Usage]]]


class ChunkClock:
    """The time that a worker takes for one chunk: from the first micro-batch to the last, and for decoding the first.

    now: gives seconds of a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._begun: float | None = None
        self._started: float | None = None
        self._ended = self._decoding = self._paused = self._pause = 0.0

    def begin(self) -> None:
        """The first micro-batch is decoded from now on."""
        self._begun = self._now()

    def start(self) -> None:
        """A micro-batch is computed from now on."""
        now = self._now()
        if self._started is None:
            self._started = now
            self._decoding = now - self._begun if self._begun is not None else 0.0
        else:
            self._paused += self._pause
        self._pause = 0.0

    def end(self) -> None:
        """A micro-batch is computed."""
        self._ended = self._now()

    def pause(self, seconds: float) -> None:
        """So many seconds were spent on other chunks. They count only between two micro-batches of this one."""
        self._pause += seconds

    def work(self, images: int, writing: float, first: bool, loading: float | None) -> Work:
        """What the chunk has taken so far, see `strata.core.Work`."""
        computing = max(0.0, self._ended - self._started - self._paused) if self._started is not None else 0.0
        return Work(
            images=images,
            computing=computing,
            decoding=self._decoding,
            writing=writing,
            first=first,
            loading=loading,
            device=device_in_use(),
        )


def device_in_use() -> str:
    """The name of the GPU that models of this process use, or `cpu`. No GPU is initialized for the answer."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "cpu"
    # an engine such as vLLM uses it in a process of its own
    return str(torch.cuda.get_device_name()) if torch.cuda.is_initialized() else "gpu"


class Budgets(Protocol):
    """What jobs may spend and have reserved. The service has `strata.queue.Ledger`, which says what the methods do."""

    def reserve(self, job_id: str, chunk_id: str, entry: str, cost: Cost) -> Reservation: ...

    def remaining(self, job_id: str) -> str: ...

    def settle(self, chunk_id: str, bill: Bill) -> None: ...


class NotAffordable(StrataError):
    """No waiting job can pay for the chunk now. spent: the jobs that never can, each with the reason."""

    def __init__(self, spent: Mapping[str, str]) -> None:
        super().__init__("; ".join(spent.values()) or "other chunks have reserved the rest of the budget")
        self.spent = spent


class Meter:
    """The cost of an image in those of a group's stages that ask servers: its upper bounds, and its actual value.

    bound_of: for a record and by stage, the maximum usage of one try and that of all tries.
    """

    def __init__(self, profile: Profile, group: str, bound_of: BoundOf) -> None:
        self._profile, self._stages, self._bound_of = profile, profile.paid(group), bound_of

    def bounds(self, record: Record) -> tuple[Cost, Cost]:
        """The maximum cost of one try and that of all tries."""
        bounds = self._bound_of(record)
        once = self._profile.cost({stage: bound[0] for stage, bound in bounds.items()})
        return once, self._profile.cost({stage: bound[1] for stage, bound in bounds.items()})

    def cost(self, spent: Mapping[str, Usage]) -> Cost:
        """The cost of the stages' usage; stages that ask no server cost nothing."""
        return self._profile.cost({stage: usage for stage, usage in spent.items() if stage in self._stages})

    def used(self, record: Record) -> tuple[Usage, Cost]:
        """The actual usage and cost of a computed record."""
        used = {stage: record.usage[stage] for stage in self._stages if stage in record.usage}
        return sum(used.values(), Usage()), self._profile.cost(used)


class Account:
    """What one chunk may spend and has spent.

    meter: None if no server is asked; then every method does nothing. rows: the chunk's records, None for those that
    were settled before; micro_batch: how many rows are computed together.
    """

    def __init__(
        self, budgets: Budgets, chunk: Chunk, meter: Meter | None, rows: Sequence[Record | None], micro_batch: int
    ) -> None:
        self.budgets, self.chunk, self.meter, self.rows, self.micro_batch = budgets, chunk, meter, rows, micro_batch
        self.entry = f"{chunk.id}#{secrets.token_hex(4)}"
        self.payer: str | None = None
        self._bounds: list[tuple[Cost, Cost]] = []
        self._next_row = 0  # the rows before it are computed
        self._usage, self._spent, self._doubt, self._reserved = Usage(), Cost(), Cost(), Cost()
        self._in_flight = False
        self._kept = Cost()  # of answers that the stage keeps for the next attempt, and reports then
        self._settled = meter is None

    def reserve_next(self, waiting: Callable[[], Iterable[str]]) -> None:
        """Reserve the cost of the next micro-batch with all its repeats, and of one try of each row after it.

        waiting: the ids of the waiting jobs, one of which pays. Raises NotAffordable and QueueUnavailable.
        """
        if self.meter is None:
            return
        # compute the bounds of all rows once
        if not self._bounds:
            self._bounds = [self.meter.bounds(row) if row is not None else (Cost(), Cost()) for row in self.rows]
        # the total of this chunk: what is spent, one try of each later row, all tries of the next micro-batch
        later_rows = self._bounds[self._next_row + self.micro_batch :]
        need = sum((once for once, _ in later_rows), self._spent + self._doubt) + self._worst_case()
        # ask the ledger only if the reservation is too small; the job that paid first goes on to pay
        if self.payer is None or not need.within(self._reserved):
            self._reserve(need, [self.payer] if self.payer else sorted(waiting()))
        self._in_flight = True

    def _worst_case(self) -> Cost:
        """The maximum cost of the next micro-batch."""
        next_rows = self._bounds[self._next_row : self._next_row + self.micro_batch]
        return sum((all_tries for _, all_tries in next_rows), Cost())

    def _reserve(self, need: Cost, jobs: Sequence[str]) -> None:
        spent: dict[str, str] = {}
        # ids sort by time: the oldest job that can afford the chunk pays for it
        for job_id in jobs:
            reservation = self.budgets.reserve(job_id, self.chunk.id, self.entry, need)
            if reservation == "granted":
                self.payer, self._reserved, self._settled = job_id, need, False
                return
            if reservation == "refused":
                cost = f"{need.tokens:,} tokens" + (f" or {need.money / MILLION:.6g} in money" if need.money else "")
                left = self.budgets.remaining(job_id)
                spent[job_id] = f"budget spent: the next chunk may cost up to {cost}, left: {left}"
        raise NotAffordable(spent)

    def computed(self, records: Sequence[Record | None]) -> None:
        """Count the usage of the next rows' records, in order; None: no server was asked for the row."""
        if self.meter is None:
            return
        for row, record in zip(self.rows[self._next_row :], records, strict=False):
            # an earlier attempt has paid for a row that was settled before
            if row is not None and record is not None:
                usage, cost = self.meter.used(record)
                self._usage, self._spent = self._usage + usage, self._spent + cost
        self._next_row += len(records)
        self._in_flight = False

    def lost(self) -> None:
        """The micro-batch in flight failed by an error in our code: count its maximum cost, as its usage is unknown."""
        if self.meter is not None:
            self._doubt += self._worst_case()

    def interrupted(self, spent: Mapping[str, Usage]) -> None:
        """The micro-batch in flight has ended without records: count what its questions have cost so far, by stage."""
        if self.meter is not None and self._in_flight:
            self._kept, self._in_flight = self.meter.cost(spent), False

    def resume(self, earlier: Account) -> None:
        """Go on with the entry of an earlier attempt of this process at the chunk, whose kept answers are used."""
        self.entry, self.payer = earlier.entry, earlier.payer
        self._usage, self._spent, self._doubt = earlier._usage, earlier._spent, earlier._doubt

    def complete(self, records: Sequence[Record | None]) -> None:
        """All records of the chunk are computed: count those that were not counted yet."""
        self.computed(records[self._next_row :])

    @property
    def bill(self) -> Bill | None:
        """What the chunk has cost so far, and which job pays; None if no server was asked."""
        if self.payer is None:
            return None
        # the servers may have charged for the micro-batch in flight
        doubt = self._doubt + (self._worst_case() if self._in_flight else self._kept)
        return Bill(job=self.payer, entry=self.entry, usage=self._usage, cost=self._spent, doubt=doubt)

    def settle(self) -> None:
        """Replace the reservation by what was spent, once. A micro-batch in flight counts with its maximum cost.

        Raises QueueUnavailable; then the reservation stays.
        """
        bill = self.bill
        if bill is not None and not self._settled:
            self.budgets.settle(self.chunk.id, bill)
            self._settled = True
