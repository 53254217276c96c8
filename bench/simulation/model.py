"""The service as a queueing network: workers, one scheduler, one Redis, and the CPUs of each machine.

A worker's cycle, as `workers/runner.py` has it: the next chunk is claimed, read and decoded while this one is computed;
then the stage, then the part is written and recorded. All workers share Redis, which does one command at a time, and
the one scheduler, which queues chunks up to its high-water mark on each beat and counts those that are done.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from statistics import linear_regression
from typing import Any

import simpy

BEAT = 0.1  # seconds between two ticks of the scheduler
QUANTUM = 0.02  # seconds of CPU that a process has before another one that waits
Step = Generator[Any, Any, None]


@dataclass(frozen=True)
class Costs:
    """Seconds for one chunk. stage: that a group's stage takes, without CPU of this model.

    prepare: CPU of reading and decoding, while the chunk before is computed; finish: CPU of writing and recording,
    while nothing is computed; redis, scheduler: CPU of these, for all that is done about a chunk; beat: CPU of the
    scheduler on each of its beats.
    """

    stage: float
    prepare: float
    finish: float
    redis: float
    scheduler: float
    beat: float = 0.0


@dataclass(frozen=True)
class Line:
    """CPU seconds of a chunk: `fixed`, and `each` for an image or for a second of its stage. Neither is negative."""

    fixed: float
    each: float

    @classmethod
    def through(cls, small: tuple[float, float], large: tuple[float, float]) -> Line:
        """The line through the costs of two sizes of chunks: (images or seconds of the stage, seconds of CPU).

        Where noise would make a part negative, that part is 0 and the line goes through `small`.
        """
        slope = (large[1] - small[1]) / (large[0] - small[0])
        each = min(max(0.0, slope), small[1] / small[0])
        return cls(max(0.0, small[1] - each * small[0]), each)

    def of(self, length: float) -> float:
        """The cost of a chunk of so many images or seconds."""
        return self.fixed + self.each * length


@dataclass(frozen=True)
class Parts:
    """The costs of any chunk: see `Costs`.

    prepare, finish: for an image; redis: for a second of a worker, which also asks and reports while it computes;
    scheduler: for a second, however many workers there are.
    """

    prepare: Line
    finish: Line
    redis: Line
    scheduler: Line

    def of(self, images: int, stage: float, decode: float = 0.0) -> Costs:
        """The costs of a chunk whose stage takes so many seconds an image. decode: more CPU for each image."""
        return Costs(
            stage * images,
            self.prepare.of(images) + decode * images,
            self.finish.of(images),
            self.redis.of(stage * images),
            self.scheduler.fixed,
            self.scheduler.each * BEAT,
        )


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
    """chunks/s from start to end; steady: without start and end; the share of the time for which each was busy."""

    rate: float
    steady: float
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
        # a worker computes and prepares at a time: with a core for both nobody waits, and turns make no difference
        self.turn = QUANTUM if site.cores < 2 * site.workers_a_machine or not site.own_machine else math.inf
        self.finished: list[float] = []  # when each chunk was written
        self.ended = self.environment.event()

    def run(self) -> Outcome:
        """Simulate until all chunks are done."""
        self.environment.process(self._schedule())
        for number in range(self.site.workers):
            self.environment.process(self._work(self.cpus[number // self.site.workers_a_machine]))
        self.environment.run(until=self.ended)
        now = self.environment.now
        shares = {name: seconds / now for name, seconds in self.busy.items()}
        busy = shares["stages"] / self.site.workers, shares["redis"], shares["scheduler"]
        return Outcome(self.chunks / now, steady(self.finished), *busy)

    def _schedule(self) -> Step:
        while True:
            yield from self._spend(self.costs.beat, "scheduler")
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
            yield from self._use(cpu, self.costs.finish)
            yield from self._spend(self.costs.redis / 2, "redis")
            self.to_count += 1
            self.finished.append(self.environment.now)

    def _prepare(self, cpu: simpy.Resource) -> Step:
        yield self.stream.get()
        yield from self._spend(self.costs.redis / 2, "redis")
        yield from self._use(cpu, self.costs.prepare)

    def _spend(self, seconds: float, what: str) -> Step:
        """CPU of Redis or the scheduler."""
        self.busy[what] += seconds
        if what == "scheduler":
            yield from self._use(self.head, seconds)
            return
        with self.redis.request() as turn:
            yield turn
            yield from self._use(self.head, seconds)

    def _use(self, cpu: simpy.Resource, seconds: float) -> Step:
        """Have a core for so long, in turns with others that want one."""
        while seconds > 0:
            with cpu.request() as turn:
                yield turn
                share = min(self.turn, seconds)
                yield self.environment.timeout(share)
                seconds -= share


def steady(times: Sequence[float]) -> float:
    """The events/s of the middle four fifths, given when each was: the slope of their number over the time.

    Workers that began together end their chunks together; two of the times alone would tell a rate that is wrong by
    as much as a part of such a group. Raises ValueError if there are too few events.
    """
    ordered = sorted(times)
    cut = len(ordered) // 10
    middle = ordered[cut : len(ordered) - cut]
    if len(middle) < 2 or middle[0] == middle[-1]:
        raise ValueError("there are too few events to tell a rate")
    return linear_regression(middle, range(len(middle))).slope
