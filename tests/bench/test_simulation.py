"""`bench.simulation`: what a queueing network must tell, whatever its costs are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulation.model import Costs, Simulation, Site

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
