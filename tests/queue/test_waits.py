"""Chunks that step aside: others go on, one is tried after each pause, and all return when the stage works again."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest

import strata.queue.waits as waits_module
from strata.core.chunks import Chunk
from strata.queue import keys
from strata.queue.broker import Broker, Claim
from strata.queue.queue import Queue
from strata.queue.waits import Waits
from tests.queue.requests import chunk, job_request
from tests.raw_redis import raw_redis

OTHER = "e" * 16


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits_module, "FIRST_PAUSE", 0.05)


@pytest.fixture
def broker(queue: Queue) -> Broker:
    assert queue.broker.claim("vision", "w", 1) == []  # the first call creates the consumer groups
    return queue.broker


@pytest.fixture
def waits(queue: Queue) -> Waits:
    return queue.waits


def other(number: int) -> Chunk:
    """A chunk of another fingerprint."""
    return replace(chunk(number), fingerprint=OTHER)


def numbers(claims: list[Claim]) -> list[int]:
    return [claim.chunk.number for claim in claims]


def claim_one(broker: Broker, worker: str = "w", seconds: float = 120.0) -> Claim:
    """The next chunk, which may be a trial that is not due yet."""
    deadline = time.monotonic() + seconds
    while not (claims := broker.claim("vision", worker, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return claims[0]


def aside(waits: Waits, claim: Claim, refused: bool = False, pause: float = 0.0) -> int | None:
    return waits.step_aside(claim, "w", "captioner", "server away", refused, pause)


def make_due(queue: Queue) -> None:
    """Let all pauses be over."""
    members: Any = raw_redis(queue).zrange(keys.waits("vision"), 0, -1)
    for member in members:
        raw_redis(queue).zadd(keys.waits("vision"), {member: 0})


def redis_time(queue: Queue) -> float:
    seconds: Any = raw_redis(queue).time()
    return float(seconds[0])


def test_others_go_on_and_all_return_once_a_trial_succeeds(queue: Queue, broker: Broker, waits: Waits) -> None:
    broker.enqueue_all((chunk(number) for number in range(4)), "one", "lo")
    broker.enqueue_all((other(number) for number in range(4, 6)), "two", "lo")
    aside(waits, claim_one(broker), pause=60)
    assert numbers(broker.claim("vision", "w", 10)) == [4, 5]
    assert (waits.parked("vision", chunk().fingerprint), broker.depth("vision")) == (4, 2)
    assert broker.claim("vision", "w", 10, block=0.05) == []
    assert not broker.enqueue(chunk(1), "one", "lo")  # parked, so it is queued already
    make_due(queue)
    (trial,) = broker.claim("vision", "w", 10)  # the oldest one, and no second
    assert trial.trial and (trial.chunk, trial.priority, trial.deliveries) == (chunk(0), "lo", 1)
    make_due(queue)
    assert broker.claim("vision", "w", 10) == []
    queue.job_states.create(job_request("one"), status="in_progress")
    assert broker.finish(trial, "w", "", {"images": 4})
    waits.end("vision", chunk().fingerprint)
    assert waits.find({"vision": chunk().fingerprint}) is None
    back = broker.claim("vision", "w", 10)
    assert numbers(back) == [1, 2, 3] and not any(claim.trial or claim.returned for claim in back)
    assert queue.job_states.counts("one", "vision:images") == [4]


def test_the_pause_grows_and_the_record_tells_what_is_waited_for(queue: Queue, broker: Broker, waits: Waits) -> None:
    broker.enqueue(chunk(), "one", "lo")
    assert waits.find({"vision": chunk().fingerprint}) is None
    moments = []
    for attempt in range(1, 5):
        aside(waits, claim_one(broker))
        moments.append(time.monotonic())
        found = waits.find({"index": "", "vision": chunk().fingerprint})
        assert found is not None and (found.stage, found.reason) == ("captioner", "server away")
        assert found.attempts == attempt
    assert found is not None and found.since.timestamp() <= redis_time(queue) + 1
    claim_one(broker)
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert pauses[0] >= 0.04 and pauses[1] >= 0.09 and pauses[2] >= 0.19


def test_a_pause_that_the_server_asks_for_is_kept(queue: Queue, broker: Broker, waits: Waits) -> None:
    broker.enqueue(chunk(), "one", "lo")
    aside(waits, claim_one(broker), pause=120.0)
    now = redis_time(queue)
    due = raw_redis(queue).zscore(keys.waits("vision"), chunk().fingerprint)
    assert isinstance(due, float) and 115 <= due / 1000 - now <= 121


def test_hi_is_tried_before_lo(queue: Queue, broker: Broker, waits: Waits) -> None:
    broker.enqueue_all([chunk(0), chunk(1)], "one", "lo")
    aside(waits, claim_one(broker), pause=60)
    broker.enqueue(chunk(2), "two", "hi")
    assert broker.claim("vision", "w", 10) == []
    make_due(queue)
    assert broker.claim("vision", "w", 10, priorities=("lo",))[0].chunk.number == 0
    queue.broker.drop(Claim(chunk(0), keys.trials("vision", "lo"), _message(queue, "lo")), "w")
    assert numbers(broker.claim("vision", "w", 10)) == [2]


def _message(queue: Queue, priority: str) -> str:
    return str(raw_redis(queue).xrange(keys.trials("vision", priority))[0][0])  # type: ignore[index]


def test_refusals_are_counted_in_a_row(broker: Broker, waits: Waits) -> None:
    broker.enqueue(chunk(), "one", "lo")
    assert [aside(waits, claim_one(broker), refused) for refused in (True, True, False, True)] == [1, 2, 0, 1]


def test_who_was_claimed_before_does_not_count_as_an_attempt(broker: Broker, waits: Waits) -> None:
    broker.enqueue_all((chunk(number) for number in range(3)), "one", "lo")
    claims = broker.claim("vision", "w", 3)
    assert [aside(waits, claim, True, 60) for claim in claims] == [1, 1, 1]
    found = waits.find({"vision": chunk().fingerprint})
    assert found is not None and found.attempts == 1
    assert waits.parked("vision", chunk().fingerprint) == 3
    assert aside(waits, claims[0]) is None  # it holds no chunk any more
    # who has worked on a chunk before may have left computed rows: the next holder is told, and a later one too
    waits.end("vision", chunk().fingerprint)
    back = broker.claim("vision", "w", 3)
    assert [(claim.chunk.number, claim.returned) for claim in back] == [(0, True), (1, True), (2, True)]
    assert all(claim.returned for claim in broker.reclaim("vision", "w2", idle=0.0, count=3))


def test_a_trial_whose_worker_died_is_taken_over(queue: Queue, broker: Broker, waits: Waits) -> None:
    broker.enqueue_all((chunk(number) for number in range(2)), "one", "lo")
    aside(waits, claim_one(broker))
    lost = claim_one(broker, "dead")
    assert lost.trial
    (taken,) = broker.reclaim("vision", "w", idle=0.0)
    assert (taken.trial, taken.message, taken.deliveries) == (True, lost.message, 2)
    assert waits.step_aside(lost, "dead", "captioner", "away") is None
    assert aside(waits, taken) == 0
    assert claim_one(broker).chunk.number == 0


def test_a_trial_that_is_dropped_is_followed_by_another(queue: Queue, broker: Broker, waits: Waits) -> None:
    broker.enqueue(chunk(0), "one", "lo")
    broker.enqueue(chunk(1), "two", "lo")
    aside(waits, claim_one(broker))
    trial = claim_one(broker)
    broker.withdraw("one")
    assert broker.drop(trial, "w")
    (second,) = broker.claim("vision", "w", 1)
    assert second.trial and second.chunk.number == 1


def test_parked_chunks_of_cancelled_jobs_are_removed_and_nothing_waits_any_more(
    queue: Queue, broker: Broker, waits: Waits
) -> None:
    broker.enqueue_all((chunk(number) for number in range(3)), "one", "lo")
    aside(waits, claim_one(broker), pause=60)
    assert broker.claim("vision", "w", 1) == []
    assert waits.jobs("vision", chunk().fingerprint) == {"one"}
    broker.withdraw("one")
    make_due(queue)
    assert broker.claim("vision", "w", 1) == []
    assert waits.find({"vision": chunk().fingerprint}) is None
    assert raw_redis(queue).hlen(keys.QUEUED) == 0
    assert broker.enqueue(chunk(0), "two", "lo")
    assert numbers(broker.claim("vision", "w", 1)) == [0]


def cpu_seconds(queue: Queue) -> float:
    """The processor time that the server has used so far."""
    used: Any = raw_redis(queue).info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def test_two_thousand_parked_chunks_cost_little_and_all_return(queue: Queue, broker: Broker, waits: Waits) -> None:
    broker.enqueue_all((chunk(number) for number in range(2001)), "one", "lo")
    broker.enqueue(other(5000), "two", "lo")
    aside(waits, claim_one(broker), pause=60)
    before = cpu_seconds(queue)
    assert claim_one(broker).chunk.number == 5000
    assert cpu_seconds(queue) - before < 2.0  # about 0.1 s
    assert waits.parked("vision", chunk().fingerprint) == 2001
    waits.end("vision", chunk().fingerprint)
    found = [claim_one(broker).chunk.number for _ in range(2001)]
    assert sorted(found) == list(range(2001)) and broker.claim("vision", "w", 1) == []


def test_waiting_again_while_chunks_return_loses_none(queue: Queue, broker: Broker, waits: Waits) -> None:
    broker.enqueue_all((chunk(number) for number in range(2500)), "one", "lo")
    aside(waits, claim_one(broker), pause=60)
    while waits.parked("vision", chunk().fingerprint) < 2500:
        assert broker.claim("vision", "w", 1) == []
    waits.end("vision", chunk().fingerprint)
    aside(waits, claim_one(broker), pause=60)
    assert broker.claim("vision", "w", 1) == []
    waits.end("vision", chunk().fingerprint)
    assert sorted(claim_one(broker).chunk.number for _ in range(2500)) == list(range(2500))


def test_what_waits_is_gone_with_redis_data(queue: Queue, broker: Broker, waits: Waits) -> None:
    broker.enqueue(chunk(), "one", "lo")
    claim = claim_one(broker)
    raw_redis(queue).flushall()
    assert aside(waits, claim) is None
    assert broker.enqueue(chunk(), "one", "lo")
    assert not claim_one(broker).trial
