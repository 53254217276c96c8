"""What Redis keeps for the service, in the memory of one process that runs one job: counts, budget and death notes."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from strata.core import MILLION, Bill, Budget, Chunk, Cost, JobRequest, JobUsage, Usage
from strata.queue import Notes, Reservation

_WHOLE_CHUNK = "chunk"  # in place of a row's number: several rows are in flight together


class MemoryCounts:
    """Which chunks the job has counted, and its counts as `GROUP:NAME`. Safe to use from several threads."""

    def __init__(self) -> None:
        self.request: JobRequest | None = None
        self.numbers: Counter[str] = Counter()
        self._counted: dict[str, set[str]] = defaultdict(set)
        self._guard = threading.Lock()

    def recorded(self, job_id: str, group: str, fields: Sequence[str]) -> set[str]:
        """Those of a group's chunks, by their fields, that are counted."""
        del job_id
        with self._guard:
            return self._counted[group].intersection(fields)

    def record(self, job_id: str, chunk: Chunk, counts: Mapping[str, int]) -> bool:
        """Count a chunk that need not be computed any more; False if it was counted before."""
        del job_id
        with self._guard:
            if chunk.field in self._counted[chunk.group]:
                return False
            self._counted[chunk.group].add(chunk.field)
            self.numbers.update({f"{chunk.group}:{name}": number for name, number in counts.items()})
            return True

    def record_all(self, job_id: str, counted: Iterable[tuple[Chunk, Mapping[str, int]]]) -> None:
        """Count many chunks, each with its counts."""
        for chunk, counts in counted:
            self.record(job_id, chunk, counts)

    def set_request(self, request: JobRequest) -> None:
        """Replace the request."""
        self.request = request


class MemoryBudget:
    """What the job may spend, has spent and has reserved, as `strata.queue.Ledger` keeps it.

    A job is computed by one run at a time, so that a reservation that is left over belongs to a process that has died:
    its servers may have charged for it, and it counts as spent in doubt.
    """

    def __init__(self, budget: Budget | None) -> None:
        self.tokens = None if budget is None else budget.tokens
        self.money = None if budget is None or budget.money is None else int(budget.money * MILLION)
        self._entries: dict[str, Cost] = {}
        self._known: dict[str, tuple[Usage, int]] = {}
        self._open: dict[str, str] = {}  # the entries that are not settled, by the ids of their chunks
        self._guard = threading.Lock()

    def reserve(self, job_id: str, chunk_id: str, entry: str, cost: Cost) -> Reservation:
        """Reserve a chunk's worst-case cost; for an entry that exists, cost is its new total."""
        del job_id
        with self._guard:
            total = sum((other for name, other in self._entries.items() if name != entry), cost)
            if self._is_over(total):
                return "later" if self._open.keys() - {chunk_id} else "refused"
            self._entries[entry], self._open[chunk_id] = cost, entry
            return "granted"

    def settle(self, chunk_id: str, bill: Bill) -> None:
        """Replace a reservation by what was spent."""
        with self._guard:
            self._entries[bill.entry] = bill.cost + bill.doubt
            self._known[bill.entry] = bill.usage, bill.cost.money
            if self._open.get(chunk_id) == bill.entry:
                del self._open[chunk_id]

    def remaining(self, job_id: str) -> str:
        """What remains of the budget, as text for people."""
        del job_id
        with self._guard:
            total, texts = self._total(), []
        if self.tokens:
            texts.append(f"{self.tokens - total.tokens:,} of {self.tokens:,} tokens")
        if self.money:
            texts.append(f"{(self.money - total.money) / MILLION:.6g} of {self.money / MILLION:.6g} in money")
        return " and ".join(texts)

    def usage(self, priced: bool) -> JobUsage:
        """What the job has spent and reserved. priced: whether its profile has prices; without them money is None."""
        with self._guard:
            total, known = self._total(), list(self._known.values())
        used, paid = sum((usage for usage, _ in known), Usage()), sum(money for _, money in known)
        return JobUsage(
            prompt_tokens=used.prompt_tokens,
            completion_tokens=used.completion_tokens,
            requests=used.requests,
            money=paid / MILLION if priced else None,
            reserved_tokens=total.tokens - used.prompt_tokens - used.completion_tokens,
            reserved_money=(total.money - paid) / MILLION if priced else None,
        )

    def _total(self) -> Cost:
        return sum(self._entries.values(), Cost())

    def _is_over(self, total: Cost) -> bool:
        over = self.tokens is not None and total.tokens > self.tokens
        return over or (self.money is not None and total.money > self.money)


@dataclass
class _ChunkNotes:
    """The notes on one chunk as JSON can hold them; the fields are those of `strata.queue.Notes`.

    current: what is in flight now: None, the number of a row, or _WHOLE_CHUNK.
    """

    current: str | None = None
    deaths: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    chunk_deaths: int = 0
    suspects: list[int] = field(default_factory=list)
    in_a_row: int = 0
    saved: bool = False

    def parsed(self) -> Notes:
        """The notes as the isolation reads them."""
        deaths = {int(row): number for row, number in self.deaths.items()}
        reasons = {int(row): text for row, text in self.reasons.items()}
        return Notes(deaths, reasons, self.chunk_deaths, frozenset(self.suspects), self.in_a_row, self.saved)


_Change = Callable[[_ChunkNotes], object]


class MemoryNotes:
    """What was in flight when processes ended, as `strata.queue.IsolationNotes` notes it.

    file: where the notes are kept, so that the next process on this machine has them; None: nowhere.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._notes: dict[str, _ChunkNotes] = {}
        self._guard = threading.Lock()
        if file is not None:
            with suppress(FileNotFoundError, ValueError):
                self._notes = {
                    name: _ChunkNotes(**kept) for name, kept in json.loads(file.read_text(encoding="utf-8")).items()
                }

    def is_known(self, chunk_id: str) -> bool:
        """Whether there are notes on a chunk: somebody has begun it, and has not finished it."""
        with self._guard:
            return chunk_id in self._notes

    def take_over(self, chunk_id: str) -> Notes:
        """Count the death of the previous holder, if it left a mark, and mark the whole chunk as in flight."""
        with self._guard:
            notes = self._notes.setdefault(chunk_id, _ChunkNotes())
            if notes.current == _WHOLE_CHUNK:
                notes.chunk_deaths += 1
            elif notes.current is not None:
                notes.deaths[notes.current] = notes.deaths.get(notes.current, 0) + 1
                notes.in_a_row += 1
            notes.current = _WHOLE_CHUNK
            self._keep()
            return notes.parsed()

    def mark(self, chunk_id: str, row: int | None = None) -> None:
        """Note what is in flight now: one row alone, or with None the whole chunk."""
        with self._guard:
            self._notes.setdefault(chunk_id, _ChunkNotes()).current = _WHOLE_CHUNK if row is None else str(row)
            self._keep()

    def clear(self, chunk_id: str) -> None:
        """Note that nothing is in flight: if the process dies now, the chunk is not the cause."""
        self._change(chunk_id, lambda notes: setattr(notes, "current", None))

    def computed(self, chunk_id: str, row: int | None = None) -> None:
        """Images of the chunk were computed. row: one that was alone, so that it ends no process."""

        def change(notes: _ChunkNotes) -> None:
            notes.in_a_row = 0
            if row is not None:
                notes.current = None
                notes.deaths.pop(str(row), None)
                notes.reasons.pop(str(row), None)

        self._change(chunk_id, change)

    def ended(self, chunk_id: str, suspects: Collection[int], alone: int | None, reason: str, saved: bool) -> None:
        """A process ends in order, and knows which rows may be the cause. The arguments are those of IsolationNotes."""

        def change(notes: _ChunkNotes) -> None:
            notes.current, notes.suspects, notes.saved = None, sorted(suspects), notes.saved or saved
            if alone is not None:
                notes.deaths[str(alone)] = notes.deaths.get(str(alone), 0) + 1
                notes.in_a_row += 1
                notes.reasons[str(alone)] = reason

        self._change(chunk_id, change)

    def go_on(self, chunk_id: str) -> None:
        """The chunk steps aside because its storage has stalled, and is tried again later."""
        self.clear(chunk_id)

    def try_again(self, chunk_id: str, notes: Notes, in_a_row: int, chunk_deaths: int) -> None:
        """Nobody knows whether an image is at fault: make all accused rows suspects again, with these counts."""
        suspects = sorted(notes.suspects | notes.deaths.keys())

        def change(kept: _ChunkNotes) -> None:
            kept.current, kept.suspects, kept.deaths, kept.reasons = None, suspects, {}, {}
            kept.in_a_row = min(notes.in_a_row, in_a_row)
            kept.chunk_deaths = min(notes.chunk_deaths, chunk_deaths)

        self._change(chunk_id, change)

    def forget(self, chunk_id: str) -> None:
        """The chunk is finished."""
        with self._guard:
            if self._notes.pop(chunk_id, None) is not None:
                self._keep()

    def _change(self, chunk_id: str, change: _Change) -> None:
        with self._guard:
            change(self._notes.setdefault(chunk_id, _ChunkNotes()))
            self._keep()

    def _keep(self) -> None:
        if self._file is not None:
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps({name: vars(notes) for name, notes in self._notes.items()}), encoding="utf-8")
            Path(new).replace(self._file)
