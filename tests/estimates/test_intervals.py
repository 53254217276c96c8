"""Intervals of 95 %: of those of simulated draws, 90 % at least have the truth of the whole inside."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from strata.core import Budget, Figure, ImageReference, JobRequest, Record, Sample, ShardSummary, Usage, Work
from strata.estimates import intervals
from strata.estimates.estimate import Workers, _Estimating
from strata.estimates.intervals import finite, inverse, of_mean, of_share, resampled_means, student
from strata.estimates.sampled import Sampled
from strata.estimates.times import Times, Whole
from strata.jobs import Population
from strata.jobs.new_jobs import new_request
from tests.fakes import FAKE_PROFILE

DRAWS, IMAGES, BATCH, DRAWN = 200, 3000, 8, 120
LEAST = int(0.9 * DRAWS)  # of the draws, in which the truth must be inside
PRICES = (2.0, 10.0)


@pytest.mark.parametrize("values", [3, 4, 12, 31, 32, 60, 500])
def test_student_is_that_of_the_tables(values: int) -> None:
    exact = float(stats.t.ppf(0.975, values - 1)) * math.sqrt(values / (values - 1))
    assert student(values) == pytest.approx(exact, rel=2e-4)


def test_a_sample_of_all_is_exact() -> None:
    values = np.array([[1.0], [2.0], [6.0], [3.0]])
    found = of_mean(3.0, resampled_means(values, 0)[:, 0], 4, 4)
    assert (found.value, found.low, found.high) == (12, 12, 12)
    share = of_share(1, 4, 4)
    assert (share.value, share.low, share.high) == (1, 1, 1)
    assert finite(1, 1) == 0 and finite(1, 10**9) == pytest.approx(1)


def test_a_sample_that_is_too_small_has_no_interval() -> None:
    found = of_mean(3.0, np.array([3.0, 3.0]), 2, 100)
    assert (found.value, found.low, found.high) == (300, None, None)
    times = Times.of([Work(images=2, computing=1.0)], Whole(10, 5, 2), 0)
    assert times is not None and intervals.of_times(times.value, times.resampled, times.batches).high is None
    assert Times.of([], Whole(10, 5, 2), 0) is None
    assert of_share(0, 0, 100).low is None


def test_shares_without_a_case_have_an_upper_bound() -> None:
    found = of_share(0, 200, 1_000_000)
    assert found.value == found.low == 0
    assert found.high is not None and 0.015 < found.high / 1_000_000 < 0.02
    all_of_them = of_share(200, 200, 1_000_000)
    assert all_of_them.high == all_of_them.value == 1_000_000 and all_of_them.low is not None
    # what was seen is there, however few there are in all
    few = of_share(3, 10, 12)
    assert few.low is not None and few.high is not None and few.low >= 3 and few.high <= 12 - 7


def test_a_rate_has_the_inverse_interval() -> None:
    rate = inverse(Figure(value=4.0, low=2.0, high=8.0), 8.0)
    assert (rate.value, rate.low, rate.high) == (2.0, 1.0, 4.0)
    assert inverse(Figure(value=4.0), 8.0).low is None


def test_the_first_micro_batch_of_a_chunk_waits_for_its_images() -> None:
    # two chunks of five images in micro-batches of two: four images are decoded with nothing beside them
    whole = Whole(10, 2, 2)
    at = [np.array(value) for value in (3.0, 1.0, 7.0)]
    assert float(whole.seconds(*at)) == 4 * (3 + 1) + 6 * 3 + 2 * 7
    # where decoding is slower than the models, it counts
    at[1] = np.array(5.0)
    assert float(whole.seconds(*at)) == 4 * (3 + 5) + 6 * 5 + 2 * 7
    # a chunk that is smaller than a micro-batch
    assert float(Whole(3, 2, 8).seconds(*at)) == 3 * 8 + 2 * 7


class _World:
    """A whole with known costs: images whose times and tokens are skewed, of which some fail and some are filtered."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self.times = random.lognormal(-1.5, 0.6, (IMAGES, 2))
        self.tokens = random.lognormal(6, 0.5, (IMAGES, 2)).astype(int)
        kinds = random.random(IMAGES)
        self.records = [self._record(number, kinds[number]) for number in range(IMAGES)]
        self.money = sum(2 * one[0] + 10 * one[1] for one in self.tokens) / 1e6

    def _record(self, number: int, kind: float) -> Record:
        image = ImageReference(uri="/a.tar", offset=512, size=1)
        read, written = map(int, self.tokens[number])
        usage = {"composer": Usage(prompt_tokens=read, completion_tokens=written, requests=1)}
        record = Record(key=str(number), image=image, usage=usage)
        if kind < 0.06:
            return record.failed("captioner", "empty_answer", "nothing")
        return record.filtered("min_side", "10") if kind < 0.08 else record

    def draw(self, random: np.random.Generator) -> Sampled:
        """A sample, as its parts tell it."""
        drawn = random.choice(IMAGES, DRAWN, replace=False)
        sampled = Sampled([self.records[number] for number in drawn])
        for column, group in enumerate(("vision", "llm")):
            lists = drawn.reshape(-1, BATCH)
            sampled.works[group] = [
                Work(images=BATCH, computing=self.times[one, column].sum(), decoding=0.02, writing=0.1) for one in lists
            ]
            sampled.rows[group], sampled.parts[group] = DRAWN, []
        return sampled


def _request() -> JobRequest:
    sample = Sample(images=DRAWN, seed=3, drawn=True, batch=BATCH, prices={"composer": PRICES})
    request = new_request("batch", [], FAKE_PROFILE, "lo", {}, [ShardSummary(shard="picked:a")], None, "")
    return request.model_copy(update={"sample": sample, "paid": ["llm"]})


@pytest.mark.parametrize(
    ("budget", "told"), [(Budget(tokens=1_000_000), "1,000,000 (tokens)"), (Budget(money=0.25), "0.25 (money)")]
)
def test_a_budget_that_is_not_enough_is_told(budget: Budget, told: str) -> None:
    both = dict.fromkeys(("vision", "llm"), IMAGES)
    population = Population(shards=3, unread=0, images=IMAGES, missing=both, chunks=both)
    request = _request().model_copy(update={"budget": budget})
    sampled = _World().draw(np.random.default_rng(1))
    notes = _Estimating(request, population, sampled, Workers({"vision": 2, "llm": 1})).notes()
    assert [note for note in notes if f"the budget of {told} is spent after about" in note]


def test_rows_that_are_copied_take_nothing() -> None:
    both = dict.fromkeys(("vision", "llm"), IMAGES)
    population = Population(shards=3, unread=0, images=IMAGES, missing=both, chunks=both)
    sampled, workers = _World().draw(np.random.default_rng(1)), Workers({"vision": 2, "llm": 1})
    whole = _Estimating(_request(), population, sampled, workers)
    # some of the lists are copies, and all of the vision
    some = len(sampled.works["llm"]) // 2
    for group, kept in (("vision", 0), ("llm", some)):
        copied = [work.model_copy(update={"images": 0, "computing": 0.0}) for work in sampled.works[group][kept:]]
        sampled.works[group] = [*sampled.works[group][:kept], *copied]
    found = _Estimating(_request(), population, sampled, workers)
    part = some * BATCH / DRAWN
    money, all_money = found.money(), whole.money()
    assert money and all_money and money.value == pytest.approx(all_money.value * part)
    seconds, before = found.seconds(), whole.seconds()
    assert seconds and before and 0 < seconds.value < before.value
    assert found.group("vision").images.value == 0 and found.group("llm").images.value == pytest.approx(IMAGES * part)
    assert f"{DRAWN:,} of {DRAWN:,} sampled images have results of vision, which are copied" in found.notes()
    left = DRAWN - some * BATCH
    assert f"{left:,} of {DRAWN:,} sampled images have results of llm, which are copied" in found.notes()
    # without a worker that copies them the time is not known
    assert _Estimating(_request(), population, sampled, Workers({"vision": 0, "llm": 1})).seconds() is None


def test_hours_are_told_when_all_groups_were_measured() -> None:
    both = dict.fromkeys(("vision", "llm"), IMAGES)
    population = Population(shards=3, unread=0, images=IMAGES, missing=both, chunks=both)
    sampled = _World().draw(np.random.default_rng(1))
    workers = Workers({"vision": 2, "llm": 1})
    assert _Estimating(_request(), population, sampled, workers).hours(gpu=False) is not None
    sampled.works["llm"], sampled.rows["llm"] = [], 0  # no list has come so far
    assert _Estimating(_request(), population, sampled, workers).hours(gpu=False) is None
    # what has nothing to compute is not waited for
    done = population.model_copy(update={"missing": both | {"llm": 0}})
    assert _Estimating(_request(), done, sampled, workers).hours(gpu=False) is not None


def test_the_truth_is_in_the_intervals_of_simulated_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 300)  # the standard error needs no more
    world, random, request = _World(), np.random.default_rng(11), _request()
    chunks = IMAGES // 40
    population = Population(
        shards=3, unread=0, images=IMAGES, missing=dict.fromkeys(("vision", "llm"), IMAGES),
        chunks=dict.fromkeys(("vision", "llm"), chunks),
    )  # fmt: skip
    whole = Whole(IMAGES, chunks, BATCH)
    seconds = [
        float(whole.seconds(np.array(mean), np.array(0.02 / BATCH), np.array(0.1))) for mean in world.times.mean(axis=0)
    ]
    statuses = [record.status.value for record in world.records]
    truth = {
        "seconds": max(seconds[0] / 2, seconds[1]),
        "hours": sum(seconds) / 3600,
        "read": float(world.tokens[:, 0].sum()),
        "written": float(world.tokens[:, 1].sum()),
        "money": world.money,
        "failed": statuses.count("failed"),
        "filtered": statuses.count("filtered"),
    }
    inside = dict.fromkeys(truth, 0)
    widths = dict.fromkeys(truth, 0.0)
    for _ in range(DRAWS):
        found = _Estimating(request, population, world.draw(random), Workers({"vision": 2, "llm": 1}))
        reasons = {one.status: one.images for one in found.reasons()}
        told = {
            "seconds": found.seconds(),
            "hours": found.hours(gpu=False),
            "read": found.prompt_tokens(),
            "written": found.completion_tokens(),
            "money": found.money(),
            "failed": reasons.get("failed") or of_share(0, DRAWN, IMAGES),
            "filtered": reasons.get("filtered") or of_share(0, DRAWN, IMAGES),
        }
        for name, figure in told.items():
            assert figure is not None and figure.low is not None and figure.high is not None, name
            assert figure.low <= figure.value <= figure.high
            inside[name] += figure.low <= truth[name] <= figure.high
            widths[name] += (figure.high - figure.low) / DRAWS
    assert all(number >= LEAST for number in inside.values()), inside
    # and they say something: an interval of everything would hold the truth too
    assert all(widths[name] < 0.4 * truth[name] for name in ("seconds", "hours", "read", "written", "money")), widths
