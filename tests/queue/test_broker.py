"""The broker on a real server: once each, hi first, leases, fencing."""

from __future__ import annotations

import time

from strata.core.chunks import Chunk
from strata.queue import keys
from strata.queue.broker import Broker


def chunk(number: int = 0, group: str = "vision") -> Chunk:
    return Chunk(group, "fake", "f" * 16, "a.tar", "i" * 16, number, 4)


def active_job(broker: Broker, job: str) -> None:
    broker.redis.hset(keys.job(job), "status", "in_progress")


def test_a_chunk_is_queued_once_and_every_job_is_counted(broker: Broker) -> None:
    active_job(broker, "one")
    active_job(broker, "two")
    assert broker.enqueue(chunk(), "one", "lo")
    assert not broker.enqueue(chunk(), "two", "hi")
    assert broker.depth("vision") == 1
    assert broker.claim("vision", "w", 2) == []  # the first call makes the consumer groups
    (claim,) = broker.claim("vision", "w", 2)
    assert claim.chunk == chunk()
    assert broker.waiting_jobs(chunk()) == {"one", "two"}
    assert broker.finish(claim, "w", "{}", {"images": 4}, chunk(group="llm"))
    assert broker.redis.hget(keys.job("one"), "vision:images") == "4"
    assert broker.redis.hget(keys.job("two"), "vision:images") == "4"
    assert broker.depth("vision") == 0
    assert broker.depth("llm") == 1
    assert broker.enqueue(chunk(), "one", "lo")  # finished: it may be asked for again


def test_hi_comes_first(broker: Broker) -> None:
    broker.claim("vision", "w", 1)
    broker.enqueue(chunk(0), "one", "lo")
    broker.enqueue(chunk(1), "one", "lo")
    broker.enqueue(chunk(2), "two", "hi")
    assert [claim.chunk.number for claim in broker.claim("vision", "w", 2)] == [2, 0]


def test_blocking_claim_wakes_up(broker: Broker) -> None:
    broker.claim("vision", "w", 1)
    started = time.monotonic()
    assert broker.claim("vision", "w", 1, block=0.2) == []
    assert time.monotonic() - started >= 0.15
    broker.enqueue(chunk(), "one", "hi")
    assert len(broker.claim("vision", "w", 1, block=5.0)) == 1


def test_a_silent_holder_loses_its_chunk_and_cannot_finish_it(broker: Broker) -> None:
    active_job(broker, "one")
    broker.claim("vision", "w", 1)
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "paused", 1)
    time.sleep(0.1)
    assert broker.take_over("vision", "other", idle=5.0) == []
    (taken,) = broker.take_over("vision", "other", idle=0.05)
    assert taken.deliveries == 2
    assert not broker.renew(claim, "paused")
    assert not broker.finish(claim, "paused", "{}", {"images": 4})
    assert broker.renew(taken, "other")
    assert broker.finish(taken, "other", "{}", {"images": 4})
    assert broker.redis.hget(keys.job("one"), "vision:images") == "4"


def test_renewing_keeps_a_chunk(broker: Broker) -> None:
    broker.claim("vision", "w", 1)
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "w", 1)
    for _ in range(3):
        time.sleep(0.1)
        assert broker.renew(claim, "w")
    assert broker.take_over("vision", "other", idle=0.15) == []


def test_what_is_given_back_is_taken_at_once(broker: Broker) -> None:
    broker.claim("vision", "w", 1)
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "w", 1)
    broker.give_back(claim, "w")
    assert len(broker.take_over("vision", "other", idle=60.0)) == 1


def test_a_chunk_is_counted_once_for_a_job(broker: Broker) -> None:
    assert broker.record("one", chunk(), "{}", {"images": 4})
    assert not broker.record("one", chunk(), "{}", {"images": 4})
    assert broker.redis.hget(keys.job("one"), "vision:images") == "4"


def test_an_emptied_server_is_no_error(broker: Broker) -> None:
    broker.claim("vision", "w", 1)
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "w", 1)
    broker.redis.flushall()
    assert not broker.finish(claim, "w", "{}", {})
    assert not broker.renew(claim, "w")
    assert broker.claim("vision", "w", 1) == []
