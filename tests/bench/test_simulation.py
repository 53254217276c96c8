"""`bench.simulation`: what a queueing network must tell, whatever its costs are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulation.measured import Measured, parts_of
from bench.simulation.model import Costs, Line, Parts, Simulation, Site, steady
from bench.simulation.scale import scaled

costs = st.builds(
    Costs,
    stage=st.floats(0.1, 2),
    prepare=st.floats(0, 0.5),
    finish=st.floats(0, 0.5),
    redis=st.floats(0, 0.05),
    scheduler=st.floats(0, 0.05),
)


@settings(deadline=None, max_examples=30)
@given(costs, st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_no_part_does_more_than_it_can(costs: Costs, workers: int, cores: int, own: bool) -> None:
    outcome = Simulation(costs, Site(workers, workers, cores, own), 20 * workers).run()
    assert outcome.rate <= workers / (costs.stage + costs.finish) * (1 + 1e-6)
    assert outcome.rate * (costs.prepare + costs.finish) <= cores * (1 + 0.1)
    assert all(0 <= share <= 1 + 1e-6 for share in (outcome.stages, outcome.redis, outcome.scheduler))
    assert outcome.stages == pytest.approx(outcome.rate * costs.stage / workers, rel=0.1)


def test_a_stage_alone_is_the_limit_until_another_part_is() -> None:
    free = Costs(stage=1.0, prepare=0.0, finish=0.0, redis=0.0, scheduler=0.0)
    outcome = Simulation(free, Site(4, 4, 2, own_machine=True), 400).run()
    assert outcome.rate == pytest.approx(4.0, rel=0.01) and outcome.first == "stages"
    for name in ("redis", "scheduler"):
        dear = Costs(**{**vars(free), name: 0.5})
        outcome = Simulation(dear, Site(64, 8, 8, own_machine=True, high_water=20), 400).run()
        assert outcome.rate == pytest.approx(2.0, rel=0.1) and outcome.first == name


def test_workers_share_the_cores_of_their_machine() -> None:
    busy = Costs(stage=0.1, prepare=0.5, finish=0.5, redis=0.0, scheduler=0.0)
    one_machine = Simulation(busy, Site(8, 8, 2, own_machine=True), 200).run()
    four_machines = Simulation(busy, Site(8, 2, 2, own_machine=True), 200).run()
    assert one_machine.rate == pytest.approx(2.0, rel=0.1)
    assert four_machines.rate > 3 * one_machine.rate


seconds = st.floats(0, 0.05)


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0, 10), st.floats(0, 10))
def test_a_line_is_never_negative_and_meets_what_it_was_made_of(few: int, more: int, one: float, other: float) -> None:
    line = Line.through((few, one), (few + more, other))
    assert line.fixed >= 0 and line.each >= 0
    assert line.of(few) == pytest.approx(one, abs=1e-6)
    if one <= other <= one * (few + more) / few:
        assert line.of(few + more) == pytest.approx(other, abs=1e-6)


@settings(deadline=None, max_examples=15)
@given(st.builds(Line, seconds, st.floats(0, 0.001)), st.builds(Line, seconds, st.floats(0, 0.001)))
def test_costs_of_two_sizes_tell_the_rate_of_a_third(prepare: Line, finish: Line) -> None:
    true = Parts(prepare, finish, Line(0.002, 0), Line(0.003, 0))

    def run(images: int, workers: int, parts: Parts) -> float:
        return (
            Simulation(parts.of(images, 0.02), Site(workers, workers, 8, own_machine=True), 30 * workers).run().steady
        )

    def measured(images: int) -> Measured:
        return Measured(run(images, 1, true), 0.002, 0.003, true.prepare.of(images) + true.finish.of(images))

    found = parts_of({(1, images): measured(images) for images in (32, 128)}, 0.02)
    assert run(64, 4, found) == pytest.approx(run(64, 4, true), rel=0.02)


def test_the_middle_of_the_events_is_what_counts() -> None:
    assert steady([0.0, *range(100, 200), 1000.0]) == pytest.approx(1.0)
    together = [100.0 * (number // 64) for number in range(24 * 64)]  # 64 workers in step
    assert steady(together) == pytest.approx(0.64, rel=0.005)
    with pytest.raises(ValueError, match="too few"):
        steady([1.0, 1.0])


def test_many_gpus_are_limited_by_what_they_share() -> None:
    parts = Parts(Line(0.01, 0.0001), Line(0.01, 0.0001), Line(0.001, 0), Line(0.02, 0))
    slow, fast = (scaled(parts, 0.002, [rate], [64])[0] for rate in (5, 5000))
    assert slow.share > 0.99 and slow.first == "stages"
    assert fast.share < 0.5 and fast.first == "scheduler"


@given(
    st.builds(Line, st.floats(0.001, 0.1), st.floats(0.001, 0.1)),
    st.builds(Line, st.floats(0.001, 0.1), st.floats(0, 0.1)),
)
def test_what_a_chunk_and_a_second_cost_is_told_apart(redis: Line, scheduler: Line) -> None:
    runs = {}
    for workers, chunk in ((1, 32), (1, 128), (4, 32), (8, 64)):
        rate = workers / (chunk * 0.02 + 0.05)
        costs = redis.fixed + redis.each * workers / rate, scheduler.fixed + scheduler.each / rate
        runs[workers, chunk] = Measured(rate, *costs, 0.1)
    found = parts_of(runs, 0.02)
    for line, true in ((found.redis, redis), (found.scheduler, scheduler)):
        assert (line.fixed, line.each) == pytest.approx((true.fixed, true.each), abs=1e-6)
