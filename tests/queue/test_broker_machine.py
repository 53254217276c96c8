"""The broker against a model of it: any sequence of enqueue, claim, renew, release, reclaim, finish, drop, withdraw,
step aside, trials and returns. No chunk is lost, none is held by two, what is parked comes back, callers take turns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import strata.queue.waits as waits_module
from strata.core.chunks import Chunk
from strata.queue import keys
from strata.queue.broker import PRIORITIES, Claim
from strata.queue.queue import Queue
from tests.queue.requests import chunk, job_request
from tests.raw_redis import raw_redis

JOBS, WORKERS, CHUNKS = ("one", "two", "three"), ("a", "b"), 7
CALLERS = {"one": "", "two": "second", "three": "second"}
FINGERPRINTS = ("e" * 16, "f" * 16)
STREAMS = (*PRIORITIES, *(f"trial:{priority}" for priority in PRIORITIES))
jobs, workers, numbers = st.sampled_from(JOBS), st.sampled_from(WORKERS), st.integers(0, CHUNKS - 1)


@dataclass
class Entry:
    """A chunk of a caller that is queued, or in flight with a holder."""

    number: int
    caller: str
    message: str = ""
    holder: str = ""
    deliveries: int = 0


def one_chunk(number: int) -> Chunk:
    """A chunk; odd numbers have another fingerprint than even ones."""
    return replace(chunk(number), fingerprint=FINGERPRINTS[number % 2])


@dataclass
class Wait:
    """A waiting fingerprint: whether its pause is over, the chunk that is tried, and the refusals in a row."""

    due: bool = False
    trial: int | None = None
    refusals: int = 0


@dataclass
class Model:
    """What the broker must hold: entries by stream in the order of their messages, waiting jobs, and counts.

    lanes: by priority the entries of each caller that are not in the stream yet, callers in the order of their turns.
    parked: entries by fingerprint and priority; waits: by fingerprint; returning: fingerprints.
    """

    streams: dict[str, list[Entry]] = field(default_factory=lambda: {name: [] for name in STREAMS})
    lanes: dict[str, dict[str, list[Entry]]] = field(default_factory=lambda: {priority: {} for priority in PRIORITIES})
    parked: dict[tuple[str, str], list[Entry]] = field(
        default_factory=lambda: {(fingerprint, p): [] for fingerprint in FINGERPRINTS for p in PRIORITIES}
    )
    waits: dict[str, Wait] = field(default_factory=dict)
    returning: set[str] = field(default_factory=set)
    waiting: dict[int, set[str]] = field(default_factory=lambda: {number: set() for number in range(CHUNKS)})
    counted: set[tuple[str, int]] = field(default_factory=set)

    def find(self, number: int) -> tuple[str, Entry] | None:
        pairs = ((name, entry) for name, entries in self.streams.items() for entry in entries)
        return next((pair for pair in pairs if pair[1].number == number), None)

    def queue(self, priority: str, entry: Entry) -> None:
        """Queue an entry in its caller's lane; if nothing waits in the stream, the next one moves there."""
        self.lanes[priority].setdefault(entry.caller, []).append(entry)
        self.move_on(priority, 1)

    def move_on(self, priority: str, count: int) -> None:
        """Move entries to the stream, one of each caller in turn, until so many wait there to be claimed."""
        lanes, stream = self.lanes[priority], self.streams[priority]
        while lanes and sum(not entry.holder for entry in stream) < count:
            caller = next(iter(lanes))
            entries = lanes.pop(caller)
            entry = entries.pop(0)
            if entries:
                lanes[caller] = entries
            if self.waiting[entry.number]:
                stream.append(entry)

    def in_lanes(self) -> list[Entry]:
        return [entry for lanes in self.lanes.values() for entries in lanes.values() for entry in entries]

    def is_queued(self, number: int) -> bool:
        """Whether a chunk is queued, in flight or parked."""
        return self.find(number) is not None or number in [entry.number for entry in self.in_lanes()]

    def is_parked(self, number: int) -> bool:
        return any(entry.number == number for entries in self.parked.values() for entry in entries)

    def unpark(self, fingerprint: str, priority: str) -> Entry | None:
        """The oldest parked entry that a job waits for; those before it are removed."""
        entries = self.parked[fingerprint, priority]
        while entries:
            entry = entries.pop(0)
            if self.waiting[entry.number]:
                return entry
        return None

    def bring_back(self) -> None:
        """What every claim does first with the fingerprints that no longer wait."""
        for fingerprint in self.returning:
            for priority in PRIORITIES:
                while (entry := self.unpark(fingerprint, priority)) is not None:
                    self.queue(priority, Entry(entry.number, entry.caller))
        self.returning.clear()

    def try_due(self, room: int) -> list[tuple[str, Entry]]:
        """The trials that a claim begins."""
        found: list[tuple[str, Entry]] = []
        for fingerprint in sorted(name for name, wait in self.waits.items() if wait.due):
            if len(found) == room:
                break
            wait = self.waits[fingerprint]
            for priority in PRIORITIES:
                entry = self.unpark(fingerprint, priority) if wait.trial is None else None
                if entry is not None:
                    wait.trial = entry.number
                    found.append((f"trial:{priority}", Entry(entry.number, entry.caller)))
                    self.streams[f"trial:{priority}"].append(found[-1][1])
            if wait.trial is not None:
                wait.due = False
            elif not any(self.parked[fingerprint, priority] for priority in PRIORITIES):
                del self.waits[fingerprint]
        return found

    def end_trial(self, number: int) -> None:
        wait = self.waits.get(FINGERPRINTS[number % 2])
        if wait is not None and wait.trial == number:
            wait.trial, wait.due = None, True

    def held(self, claim: Claim, worker: str) -> Entry | None:
        """The claim's entry if the worker is its holder."""
        found = self.find(claim.chunk.number)
        mine = found is not None and (found[1].message, found[1].holder) == (claim.message, worker)
        return found[1] if found and mine else None


class BrokerMachine(RuleBasedStateMachine):
    """Runs each step on the broker and on the model. queue: set by a derived class."""

    queue: Queue

    def __init__(self) -> None:
        super().__init__()
        self.broker, self.waits, self.model = self.queue.broker, self.queue.waits, Model()
        self.claims: list[tuple[Claim, str]] = []  # also those that were lost or finished

    @initialize()
    def empty(self) -> None:
        raw_redis(self.queue).flushall()
        for job in JOBS:
            self.queue.job_states.create(job_request(job, caller=CALLERS[job]))
        self.broker.claim("vision", "a", 1)  # creates the consumer groups

    @rule(number=numbers, job=jobs, priority=st.sampled_from(PRIORITIES))
    def enqueue(self, number: int, job: str, priority: str) -> None:
        new = not self.model.is_queued(number) and not self.model.is_parked(number)
        self.model.waiting[number].add(job)
        assert self.broker.enqueue(one_chunk(number), job, priority) == new
        if new:
            self.model.queue(priority, Entry(number, CALLERS[job]))

    @rule(worker=workers, count=st.integers(1, 3))
    def claim(self, worker: str, count: int) -> None:
        model = self.model
        model.bring_back()
        expected = model.try_due(count)
        for priority in PRIORITIES:
            while len(expected) < count:
                model.move_on(priority, count - len(expected))
                unclaimed = [entry for entry in model.streams[priority] if not entry.holder]
                if not unclaimed:
                    break
                expected += self.deliver(priority, unclaimed[: count - len(expected)], worker)
        expected += model.try_due(count - len(expected))
        found = self.broker.claim("vision", worker, count)
        assert [(_stream(claim), claim.chunk.number) for claim in found] == [(n, entry.number) for n, entry in expected]
        for claim, (_, entry) in zip(found, expected, strict=True):
            assert claim.caller == entry.caller
            entry.message, entry.holder, entry.deliveries = claim.message, worker, 1
            self.claims.append((claim, worker))

    def deliver(self, priority: str, entries: list[Entry], worker: str) -> list[tuple[str, Entry]]:
        """Those of the next entries that the worker gets; the others are removed or parked."""
        found: list[tuple[str, Entry]] = []
        for entry in entries:
            fingerprint = FINGERPRINTS[entry.number % 2]
            if self.model.waiting[entry.number] and fingerprint not in self.model.waits:
                entry.holder = worker
                found.append((priority, entry))
                continue
            self.model.streams[priority].remove(entry)
            if self.model.waiting[entry.number]:
                self.model.parked[fingerprint, priority].append(entry)
        return found

    @rule(worker=workers)
    def reclaim(self, worker: str) -> None:
        expected: list[Entry] = []
        for entries in self.model.streams.values():
            for entry in [entry for entry in entries if entry.holder]:
                if expected:
                    break
                if self.model.waiting[entry.number]:
                    expected = [entry]
                else:
                    entries.remove(entry)
                    self.model.end_trial(entry.number)
        found = self.broker.reclaim("vision", worker, idle=0.0)
        self.set_due()
        for entry in expected:
            entry.holder, entry.deliveries = worker, entry.deliveries + 1
        assert [(claim.message, claim.deliveries) for claim in found] == [(e.message, e.deliveries) for e in expected]
        self.claims += [(claim, worker) for claim in found]

    @rule()
    def pauses_end(self) -> None:
        for wait in self.model.waits.values():
            wait.due = wait.due or wait.trial is None
        self.set_due()

    def set_due(self) -> None:
        """Give all fingerprints that are due the same time, so that the order in which they are tried is known."""
        for fingerprint, wait in self.model.waits.items():
            if wait.due:
                raw_redis(self.queue).zadd(keys.waits("vision"), {fingerprint: 0})

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), refused=st.booleans())
    def step_aside(self, data: st.DataObject, refused: bool) -> None:
        claim, worker = data.draw(st.sampled_from(self.claims))
        refusals = self.waits.step_aside(claim, worker, "captioner", "away", refused)
        entry = self.model.held(claim, worker)
        if entry is None:
            assert refusals is None
            return
        fingerprint = claim.chunk.fingerprint
        wait = self.model.waits.setdefault(fingerprint, Wait(due=True))
        counts = wait.due or wait.trial == entry.number
        parked = self.model.parked[fingerprint, claim.priority]
        parked.insert(0 if counts else len(parked), entry)
        self.model.streams[_stream(claim)].remove(entry)
        if counts:
            self.model.waits[fingerprint] = Wait(refusals=wait.refusals + 1 if refused else 0)
            self.model.returning.discard(fingerprint)
        assert refusals == self.model.waits[fingerprint].refusals

    @rule(fingerprint=st.sampled_from(FINGERPRINTS))
    def stage_works(self, fingerprint: str) -> None:
        self.waits.end("vision", fingerprint)
        self.model.waits.pop(fingerprint, None)
        self.model.returning.add(fingerprint)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        claim, worker = data.draw(st.sampled_from(self.claims))
        assert self.broker.renew(claim, worker) == (self.model.held(claim, worker) is not None)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        claim, worker = data.draw(st.sampled_from(self.claims))
        self.broker.release(claim, worker)
        entry = self.model.held(claim, worker)
        if entry is not None:
            entry.deliveries = claim.deliveries - 1

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        claim, worker = data.draw(st.sampled_from(self.claims))
        entry = self.model.held(claim, worker)
        assert self.broker.finish(claim, worker, "", {"images": 4}) == (entry is not None)
        if entry is not None:
            self.model.streams[_stream(claim)].remove(entry)
            self.model.counted |= {(job, entry.number) for job in self.model.waiting[entry.number]}
            self.model.waiting[entry.number] = set()
            self.model.end_trial(entry.number)
            self.set_due()

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        claim, worker = data.draw(st.sampled_from(self.claims))
        entry = self.model.held(claim, worker)
        assert self.broker.drop(claim, worker) == (entry is not None)
        if entry is not None:
            self.model.streams[_stream(claim)].remove(entry)
            self.model.waiting[entry.number] = set()
            self.model.end_trial(entry.number)
            self.set_due()

    @rule(job=jobs)
    def withdraw(self, job: str) -> None:
        self.broker.withdraw(job)
        for waiting in self.model.waiting.values():
            waiting.discard(job)

    @invariant()
    def agrees(self) -> None:
        in_lanes = Counter(entry.caller for entry in self.model.in_lanes())
        assert self.broker.queued("vision") == (sum(map(len, self.model.streams.values())), in_lanes)
        in_streams, parked = sum(map(len, self.model.streams.values())), sum(map(len, self.model.parked.values()))
        assert sum(self.waits.parked("vision", fingerprint) for fingerprint in FINGERPRINTS) == parked
        assert raw_redis(self.queue).hlen(keys.QUEUED) == in_streams + in_lanes.total() + parked
        assert self.waits.fingerprints() == {("vision", fingerprint) for fingerprint in self.model.waits}
        assert [self.broker.waiting_jobs(one_chunk(number)) for number in range(CHUNKS)] == list(
            self.model.waiting.values()
        )
        counts = Counter(job for job, _ in self.model.counted)
        assert [self.queue.job_states.counts(job, "vision:images") for job in JOBS] == [
            [4 * counts[job]] for job in JOBS
        ]


def _stream(claim: Claim) -> str:
    return f"trial:{claim.priority}" if claim.trial else claim.priority


def test_the_broker_agrees_with_its_model(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits_module, "FIRST_PAUSE", 600.0)  # a pause ends when the machine ends it
    monkeypatch.setattr(waits_module, "LONGEST_PAUSE", 600.0)
    checks = settings(max_examples=50, stateful_step_count=50, suppress_health_check=list(HealthCheck))
    machine = type("BrokerMachineOnServer", (BrokerMachine,), {"queue": queue})
    run_state_machine_as_test(machine, settings=checks)
