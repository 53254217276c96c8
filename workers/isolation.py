"""Poison isolation: finds the image that kills the workers that compute it, so that its neighbours get results.

A chunk during whose computation a worker died is computed image by image, with a note of the image in flight. An image
that was in flight alone at two deaths is skipped. The notes lie in Redis: if they are lost, another worker may die,
but no row is lost.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from strata.errors import QueueUnavailable
from strata.queue import WHOLE_CHUNK, Claim, IsolationNotes

ROW_DEATHS = 2  # with a row alone in flight, after which it is poison
CHUNK_DEATHS = 4  # with several rows in flight together, after which the whole chunk is poison


@dataclass(frozen=True)
class Verdict:
    """What follows from a chunk's deaths.

    one_by_one: a worker died with the chunk in flight; poison_rows: rows to skip; poison_chunk: all rows are to be
    skipped.
    """

    one_by_one: bool = False
    poison_rows: frozenset[int] = frozenset()
    poison_chunk: bool = False


class Isolation:
    """The notes on one claimed chunk. Only `begin` raises QueueUnavailable: a missing note costs at most a death."""

    def __init__(self, notes: IsolationNotes, claim: Claim) -> None:
        self._notes, self._chunk_id = notes, claim.chunk.id
        self._redelivered = claim.deliveries > 1

    def begin(self) -> Verdict:
        """Count the death of the previous holder, if it had the chunk in flight, and mark the chunk as in flight.

        On a first delivery there is no previous holder, so nothing is read or written.
        """
        if not self._redelivered:
            return Verdict()
        # count the previous holder's death for what it had in flight
        deaths = self._notes.count_death(self._chunk_id)
        one_by_one = bool(deaths)
        # separate the deaths with several rows in flight from those of single rows
        chunk_deaths = deaths.pop(WHOLE_CHUNK, 0)
        poison = frozenset(int(row) for row, times in deaths.items() if times >= ROW_DEATHS)
        return Verdict(one_by_one, poison, chunk_deaths >= CHUNK_DEATHS)

    def mark(self, row: int | None = None) -> None:
        """Note what is in flight now: one row alone, or with None the whole chunk."""
        with suppress(QueueUnavailable):
            self._notes.mark(self._chunk_id, row)

    def prepared(self) -> None:
        """Note that the chunk's images are read and that it waits: it is not the cause of a death from here on."""
        if self._redelivered:
            self.clear()

    def clear(self) -> None:
        """Note that nothing is in flight."""
        with suppress(QueueUnavailable):
            self._notes.clear(self._chunk_id)
