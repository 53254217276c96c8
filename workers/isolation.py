"""Poison isolation: finds the image that ends the processes that compute it, so that its neighbours get results.

A process that knows that it is broken notes which images it computed together: these are suspects. A process that is
killed notes nothing more, so that all images of its chunk are suspects. A suspect is computed alone, in a new process
whose models have passed their probes, and before the other images. An image that was alone in flight at two deaths is
passed over. The notes lie in Redis: if they are lost, another process may end, but no row is lost.

A process that hangs is ended by its watchdog, which leaves the same notes in its place (`Hang`).

A machine can be at fault although its probes pass: then every image ends processes. Therefore an image of the chunk
that nobody accuses is computed before one that was alone at a death, and only what ends a process after that is blamed.
After MAX_IN_A_ROW deaths without any image of the chunk computed in between, the chunk steps aside and its jobs wait.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from models.deadlines import DEADLINES, Activity
from strata.addresses import without_secrets
from strata.errors import QueueUnavailable
from strata.queue import Claim, Notes, Queue

Result = TypeVar("Result")
ROW_DEATHS = 2  # with a row alone in flight, after which it is poison
CHUNK_DEATHS = 4  # with nobody knows how many rows in flight, after which the chunk itself is in doubt
MAX_POISON = 3  # images of a chunk of which all may be poison: too few to show that the machine computes others
MAX_IN_A_ROW = ROW_DEATHS * (MAX_POISON + 1)


class KeptNotes(Protocol):
    """The notes on all chunks. The service has `strata.queue.IsolationNotes`, which says what the methods do."""

    def take_over(self, chunk_id: str) -> Notes: ...

    def mark(self, chunk_id: str, row: int | None = None) -> None: ...

    def clear(self, chunk_id: str) -> None: ...

    def computed(self, chunk_id: str, row: int | None = None) -> None: ...

    def ended(self, chunk_id: str, suspects: Collection[int], alone: int | None, reason: str, saved: bool) -> None: ...

    def go_on(self, chunk_id: str) -> None: ...

    def try_again(self, chunk_id: str, notes: Notes, in_a_row: int, chunk_deaths: int) -> None: ...


class Blame(NamedTuple):
    """Why processes ended with an image, as its failed row tells it."""

    stage: str
    error_type: str
    detail: str


KILLED = Blame("runner", "poison", "workers died, or did not answer for longer than their lease, at this image")


@dataclass(frozen=True)
class Verdict:
    """What follows from the deaths with a chunk.

    alone: the rows to compute first and alone; None: all. deaths: by row, with that row alone in flight. condemned: the
    rows with too many of them, and why. unproved: whether nothing was computed between the last deaths, so that the
    machine may be the cause. doubt: why the chunk has to step aside; "" if it is to be computed. saved: whether the
    store has rows that an earlier holder computed.
    """

    alone: frozenset[int] | None = frozenset()
    deaths: Mapping[int, int] = field(default_factory=dict)
    condemned: Mapping[int, Blame] = field(default_factory=dict)
    unproved: bool = False
    doubt: str = ""
    saved: bool = False

    def needs_control(self, rows: Collection[int]) -> bool:
        """Whether all rows that are left are accused, so that none of them can show that the machine works."""
        undecided = [row for row in rows if row in self.deaths and (self.unproved or row not in self.condemned)]
        return bool(undecided) and not set(rows) - self.deaths.keys()

    def poison(self, rows: Collection[int]) -> dict[int, Blame]:
        """The rows to pass over, of those that are left: none as long as another can show that the machine works."""
        condemned = {row: blame for row, blame in self.condemned.items() if row in rows}
        others = set(rows) - self.deaths.keys()
        return {} if self.unproved and (others or len(condemned) > MAX_POISON) else condemned

    def order(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """Rows in the order of their computing: those to compute one by one, then those to compute together."""
        alone = [row for row in rows if self.alone is None or row in self.alone]
        together = [row for row in rows if self.alone is not None and row not in self.alone]
        alone.sort(key=lambda row: (row not in self.deaths, self.deaths.get(row, 0)))
        # before an accused row one that nobody accuses: it shows whether this process computes any image
        controls = together or [row for row in alone if row not in self.deaths]
        if alone and alone[0] in self.deaths and controls:
            control = controls[-1]
            (together or alone).remove(control)
            alone.insert(0, control)
        return alone, together


class Flying(NamedTuple):
    """A claimed chunk's rows that are in flight. suspects: those that were accused before, and not computed since."""

    claim: Claim
    rows: tuple[int, ...] = ()
    suspects: frozenset[int] = frozenset()


@contextmanager
def watching_storage(claim: Claim, part: str = "storage") -> Iterator[Callable[[], None]]:
    """Within the block something is read or written for a chunk, with a deadline: if it hangs, no row is at fault.

    Yields a function to call after each step of progress.
    """
    claims, shard = pickle.dumps([Flying(claim)]), without_secrets(claim.chunk.shard)
    waiting = Activity(claim.chunk.group, part, DEADLINES.limits.storage, shard, "storage", claims)
    with DEADLINES.watch(waiting) as progress:
        yield progress


def watched_storage(claim: Claim, act: Callable[[], Result]) -> Callable[[], Result]:
    """Wraps a function that reads or writes for a chunk in `watching_storage`."""

    def call() -> Result:
        with watching_storage(claim):
            return act()

    return call


class Hang:
    """A worker that hangs, and is ended by `workers.watchdog`. Every method raises QueueUnavailable.

    name: its consumer name. accused: what was in flight where it hangs; innocent: what was in flight elsewhere in it.
    """

    def __init__(self, queue: Queue, name: str, accused: Sequence[Flying], innocent: Sequence[Flying]) -> None:
        self._broker, self._notes, self._name = queue.broker, queue.isolation_notes, name
        self._accused, self._innocent = accused, innocent

    def note(self, blame: Blame, storage: bool) -> None:
        """Note what was in flight, as `Isolation.ended` does. storage: whether a storage hangs, and no row."""
        rows = [row for flying in self._accused for row in flying.rows]
        for claim, own, suspects in self._accused:
            chunk_id, reason = claim.chunk.id, json.dumps(blame)
            culprit = own[0] if own and len(rows) == 1 else None
            # a lease that has lapsed meanwhile was counted by the next holder, which knew no reason
            if not self._broker.renew(claim, self._name):
                if culprit is not None:
                    self._notes.explain(chunk_id, culprit, reason)
            elif storage:
                self._notes.stalled(chunk_id, blame.detail)
            else:
                self._notes.ended(chunk_id, suspects.union(own), culprit, reason, saved=False)
        for claim, _, _ in self._innocent:
            if self._broker.renew(claim, self._name):
                self._notes.clear(claim.chunk.id)

    def release(self) -> None:
        """Let other workers have the chunks. Call it when the worker has ended."""
        for flying in (*self._accused, *self._innocent):
            self._broker.release(flying.claim, self._name, counted=True)


class Isolation:
    """The notes on one claimed chunk. Only `begin` raises QueueUnavailable: a missing note costs at most a death."""

    def __init__(self, notes: KeptNotes, claim: Claim) -> None:
        self._notes, self._claim, self._chunk = notes, claim, claim.chunk
        # a chunk that had stepped aside comes back as a new message
        self._known = claim.deliveries > 1 or claim.returned
        self._suspects: set[int] = set()
        self._in_a_row = 0

    @property
    def proved(self) -> bool:
        """Whether an image of the chunk was computed since the last death: the machine is not at fault."""
        return self._in_a_row == 0

    def begin(self) -> Verdict:
        """Count the death of the previous holder, if it had the chunk in flight, and mark the chunk as in flight.

        On a first delivery there is no previous holder, so nothing is read or written.
        """
        if not self._known:
            return Verdict()
        notes = self._notes.take_over(self._chunk.id)
        # it comes back when the storage may answer again
        if notes.stalled:
            self._notes.go_on(self._chunk.id)
            return Verdict(doubt=notes.stalled)
        # no image is blamed while nothing shows that the machine computes any: every image may be tried again
        doubt = _doubt(notes, self._chunk.images)
        if doubt:
            self._notes.try_again(self._chunk.id, notes, MAX_IN_A_ROW - 1, CHUNK_DEATHS - 1)
            return Verdict(doubt=doubt)
        condemned = {row: _blame(notes, row) for row, deaths in notes.deaths.items() if deaths >= ROW_DEATHS}
        unproved = notes.in_a_row >= ROW_DEATHS
        # of a small chunk all rows, if nobody knows more
        if notes.chunk_deaths >= CHUNK_DEATHS:
            condemned, unproved = dict.fromkeys(range(self._chunk.images), KILLED), False
        self._suspects, self._in_a_row = set(notes.suspects | notes.deaths.keys()), notes.in_a_row
        alone = None if notes.chunk_deaths else frozenset(self._suspects)
        return Verdict(alone, notes.deaths, condemned, unproved, saved=notes.saved)

    def mark(self, row: int | None = None) -> None:
        """Note what is in flight now: one row alone, or with None the whole chunk."""
        with suppress(QueueUnavailable):
            self._notes.mark(self._chunk.id, row)

    def flying(self, rows: Collection[int]) -> Flying:
        """Rows of the chunk that are in flight now, for the watchdog."""
        return Flying(self._claim, tuple(rows), frozenset(self._suspects))

    def prepared(self) -> None:
        """Note that the chunk's images are read and that it waits: it is not the cause of a death from here on."""
        if self._known:
            with suppress(QueueUnavailable):
                self._notes.clear(self._chunk.id)

    def computed(self, row: int | None = None) -> None:
        """Images were computed: this row alone, which is no suspect any more; with None, several together."""
        if row is not None or self._in_a_row:
            self._in_a_row = 0
            self._suspects.discard(-1 if row is None else row)
            with suppress(QueueUnavailable):
                self._notes.computed(self._chunk.id, row)

    def ended(self, rows: Collection[int], alone: bool, blame: Blame, saved: bool) -> None:
        """Note that this process ends. rows: those in flight; alone: whether it is one, and no other chunk has any.

        saved: whether the store has the rows that are computed. Raises QueueUnavailable.
        """
        culprit = next(iter(rows)) if alone else None
        self._notes.ended(self._chunk.id, self._suspects.union(rows), culprit, json.dumps(blame), saved)


def _blame(notes: Notes, row: int) -> Blame:
    return Blame(*json.loads(notes.reasons[row])) if row in notes.reasons else KILLED


def _doubt(notes: Notes, images: int) -> str:
    """Why no image of a chunk can be blamed for the deaths; "" if one can be, or if there were too few."""
    if notes.in_a_row >= MAX_IN_A_ROW:
        last = _blame(notes, max(notes.reasons, default=-1)).detail
        return f"{notes.in_a_row} processes ended in a row, each with one image in flight: {last}"
    if notes.chunk_deaths >= CHUNK_DEATHS and images > MAX_POISON:
        return f"{notes.chunk_deaths} processes were killed while they worked on {images} images"
    return ""
