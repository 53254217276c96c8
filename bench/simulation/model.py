"""The service as a queueing network: workers, one scheduler, one Redis, and the CPUs of each machine.

A worker's cycle, as `workers/runner.py` has it: the next chunk is claimed, read and decoded while this one is computed;
then the stage, then the part is written and recorded. All workers share Redis, which does one command at a time, and
the one scheduler, which queues chunks up to its high-water mark on each beat and counts those that are done.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import simpy

BEAT = 0.1  # seconds between two ticks of the scheduler
QUANTUM = 0.02  # seconds of CPU that a process has before another one that waits
Step = Generator[Any, Any, None]


@dataclass(frozen=True)
class Costs:
    """Seconds for one chunk. stage: that a group's stage takes, without CPU of this model.

    prepare: CPU of reading and decoding, while the chunk before is computed; finish: CPU of writing and recording,
    while nothing is computed; redis, scheduler: CPU of these, for all that is done about a chunk.
    """

    stage: float
    prepare: float
    finish: float
    redis: float
    scheduler: float


@dataclass(frozen=True)
class Site:
    """Where it runs. workers_a_machine, cores: of each machine.

    own_machine: Redis and scheduler have a machine of their own; high_water: chunks that are queued at most.
    """

    workers: int
    workers_a_machine: int
    cores: int
    own_machine: bool
    high_water: int = 2000


@dataclass
class Outcome:
    """chunks/s, and the share of the time for which each was busy."""

    rate: float
    stages: float
    redis: float
    scheduler: float

    @property
    def first(self) -> str:
        """What limits the rate: the part that is busiest."""
        return max(
            ("stages", self.stages), ("redis", self.redis), ("scheduler", self.scheduler), key=lambda one: one[1]
        )[0]


class Simulation:
    """One run of `chunks` chunks."""

    def __init__(self, costs: Costs, site: Site, chunks: int) -> None:
        self.costs, self.site, self.chunks = costs, site, chunks
        self.environment = simpy.Environment()
        machines = -(-site.workers // site.workers_a_machine)
        self.cpus = [simpy.Resource(self.environment, site.cores) for _ in range(machines)]
        self.head = simpy.Resource(self.environment, site.cores) if site.own_machine else self.cpus[0]
        self.redis = simpy.Resource(self.environment, 1)
        self.stream = simpy.Store(self.environment)
        self.unplanned, self.done, self.to_count = chunks, 0, 0
        self.busy = {"stages": 0.0, "redis": 0.0, "scheduler": 0.0}
        self.ended = self.environment.event()

    def run(self) -> Outcome:
        """Simulate until all chunks are done."""
        self.environment.process(self._schedule())
        for number in range(self.site.workers):
            self.environment.process(self._work(self.cpus[number // self.site.workers_a_machine]))
        self.environment.run(until=self.ended)
        now = self.environment.now
        shares = {name: seconds / now for name, seconds in self.busy.items()}
        return Outcome(self.chunks / now, shares["stages"] / self.site.workers, shares["redis"], shares["scheduler"])

    def _schedule(self) -> Step:
        while True:
            room = self.site.high_water - len(self.stream.items)
            queued, self.unplanned = min(room, self.unplanned), max(0, self.unplanned - room)
            # half of a chunk's cost is its queueing, half its counting
            for _ in range(queued):
                yield from self._spend(self.costs.scheduler / 2, "scheduler")
                yield self.stream.put(None)
            counted, self.to_count = self.to_count, 0
            yield from self._spend(self.costs.scheduler / 2 * counted, "scheduler")
            self.done += counted
            if self.done == self.chunks:
                self.ended.succeed()
                return
            yield self.environment.timeout(BEAT)

    def _work(self, cpu: simpy.Resource) -> Step:
        ahead = self.environment.process(self._prepare(cpu))
        while True:
            yield ahead
            ahead = self.environment.process(self._prepare(cpu))
            self.busy["stages"] += self.costs.stage
            yield self.environment.timeout(self.costs.stage)
            yield from _use(self.environment, cpu, self.costs.finish)
            yield from self._spend(self.costs.redis / 2, "redis")
            self.to_count += 1

    def _prepare(self, cpu: simpy.Resource) -> Step:
        yield self.stream.get()
        yield from self._spend(self.costs.redis / 2, "redis")
        yield from _use(self.environment, cpu, self.costs.prepare)

    def _spend(self, seconds: float, what: str) -> Step:
        """CPU of Redis or the scheduler."""
        self.busy[what] += seconds
        if what == "scheduler":
            yield from _use(self.environment, self.head, seconds)
            return
        with self.redis.request() as turn:
            yield turn
            yield from _use(self.environment, self.head, seconds)


def _use(environment: simpy.Environment, cpu: simpy.Resource, seconds: float) -> Step:
    """Have a core for so long, in turns with others that want one."""
    while seconds > 0:
        with cpu.request() as turn:
            yield turn
            share = min(QUANTUM, seconds)
            yield environment.timeout(share)
            seconds -= share


def larger(costs: Costs, stage: float) -> Costs:
    """The same service with another stage."""
    return replace(costs, stage=stage)
