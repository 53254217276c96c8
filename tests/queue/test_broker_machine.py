"""The broker against a model of it: any sequence of enqueue, claim, renew, release, reclaim, finish and withdraw."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

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

from strata.queue.broker import PRIORITIES, Claim
from strata.queue.queue import Queue
from tests.queue.requests import chunk, job_request
from tests.raw_redis import raw_redis

JOBS, WORKERS, CHUNKS = ("one", "two"), ("a", "b"), 3
jobs, workers, numbers = st.sampled_from(JOBS), st.sampled_from(WORKERS), st.integers(0, CHUNKS - 1)


@dataclass
class Entry:
    """A chunk that is queued, or in flight with a holder."""

    number: int
    message: str = ""
    holder: str = ""
    deliveries: int = 0


@dataclass
class Model:
    """What the broker must hold: entries by priority in the order of their messages, waiting jobs, and counts."""

    streams: dict[str, list[Entry]] = field(default_factory=lambda: {priority: [] for priority in PRIORITIES})
    waiting: dict[int, set[str]] = field(default_factory=lambda: {number: set() for number in range(CHUNKS)})
    counted: set[tuple[str, int]] = field(default_factory=set)

    def find(self, number: int) -> tuple[str, Entry] | None:
        pairs = ((priority, entry) for priority, entries in self.streams.items() for entry in entries)
        return next((pair for pair in pairs if pair[1].number == number), None)

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
        self.broker, self.model = self.queue.broker, Model()
        self.claims: list[tuple[Claim, str]] = []  # also those that were lost or finished

    @initialize()
    def empty(self) -> None:
        raw_redis(self.queue).flushall()
        for job in JOBS:
            self.queue.job_states.create(job_request(job))
        self.broker.claim("vision", "a", 1)  # creates the consumer groups

    @rule(number=numbers, job=jobs, priority=st.sampled_from(PRIORITIES))
    def enqueue(self, number: int, job: str, priority: str) -> None:
        new = self.model.find(number) is None
        assert self.broker.enqueue(chunk(number), job, priority) == new
        if new:
            self.model.streams[priority].append(Entry(number))
        self.model.waiting[number].add(job)

    @rule(worker=workers, count=st.integers(1, 3))
    def claim(self, worker: str, count: int) -> None:
        expected: list[tuple[str, Entry]] = []
        for priority, entries in self.model.streams.items():
            for entry in [entry for entry in entries if not entry.holder]:
                if len(expected) == count:
                    break
                if self.model.waiting[entry.number]:
                    expected.append((priority, entry))
                else:
                    entries.remove(entry)
        found = self.broker.claim("vision", worker, count)
        assert [(claim.priority, claim.chunk.number) for claim in found] == [(p, entry.number) for p, entry in expected]
        for claim, (_, entry) in zip(found, expected, strict=True):
            entry.message, entry.holder, entry.deliveries = claim.message, worker, 1
            self.claims.append((claim, worker))

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
        found = self.broker.reclaim("vision", worker, idle=0.0)
        for entry in expected:
            entry.holder, entry.deliveries = worker, entry.deliveries + 1
        assert [(claim.message, claim.deliveries) for claim in found] == [(e.message, e.deliveries) for e in expected]
        self.claims += [(claim, worker) for claim in found]

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
            self.model.streams[claim.priority].remove(entry)
            self.model.counted |= {(job, entry.number) for job in self.model.waiting[entry.number]}
            self.model.waiting[entry.number] = set()

    @rule(job=jobs)
    def withdraw(self, job: str) -> None:
        self.broker.withdraw(job)
        for waiting in self.model.waiting.values():
            waiting.discard(job)

    @invariant()
    def agrees(self) -> None:
        assert self.broker.depth("vision") == sum(map(len, self.model.streams.values()))
        assert [self.broker.waiting_jobs(chunk(number)) for number in range(CHUNKS)] == list(
            self.model.waiting.values()
        )
        counts = Counter(job for job, _ in self.model.counted)
        assert [self.queue.job_states.counts(job, "vision:images") for job in JOBS] == [
            [4 * counts[job]] for job in JOBS
        ]


def test_the_broker_agrees_with_its_model(queue: Queue) -> None:
    checks = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    machine = type("BrokerMachineOnServer", (BrokerMachine,), {"queue": queue})
    run_state_machine_as_test(machine, settings=checks)
