"""The broker on a real server: each chunk once, hi first, leases, fencing."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from strata.core.chunks import Chunk
from strata.errors import QueueUnavailable
from strata.processes import process_identity
from strata.queue import keys
from strata.queue.broker import Broker, Claim
from strata.queue.heartbeats import Heartbeat
from strata.queue.queue import Queue
from tests.queue.requests import chunk, job_request
from tests.raw_redis import raw_redis


@pytest.fixture
def broker(queue: Queue) -> Broker:
    """The broker of an empty queue whose consumer groups of `vision` exist."""
    assert queue.broker.claim("vision", "w", 1) == []  # the first call creates the consumer groups
    return queue.broker


def active_job(queue: Queue, job_id: str) -> None:
    queue.job_states.create(job_request(job_id), status="in_progress")


def test_a_chunk_is_queued_once_and_every_job_is_counted(queue: Queue, broker: Broker) -> None:
    active_job(queue, "one")
    active_job(queue, "two")
    assert broker.enqueue(chunk(), "one", "lo")
    assert not broker.enqueue(chunk(), "two", "hi")
    assert broker.depth("vision") == 1
    (claim,) = broker.claim("vision", "w", 2)
    assert (claim.chunk, claim.priority, claim.deliveries) == (chunk(), "lo", 1)
    assert broker.waiting_jobs(chunk()) == {"one", "two"}
    assert broker.finish(claim, "w", "{}", {"images": 4}, chunk(group="llm"))
    for job_id in ("one", "two"):
        assert queue.job_states.counts(job_id, "vision:images") == [4]
    assert broker.depth("vision") == 0
    assert broker.depth("llm") == 1
    assert broker.waiting_jobs(chunk(group="llm")) == {"one", "two"}
    assert broker.enqueue(chunk(), "one", "lo")  # finished: it may be asked for again


def test_what_a_later_version_adds_to_a_message_is_passed_over() -> None:
    fields = chunk().to_fields() | {"added": "later", keys.CALLER: "c"}
    claim = Claim.of("strata:stream:vision:lo", "1-0", fields)
    assert (claim.chunk, claim.caller, claim.returned) == (chunk(), "c", False)


def test_jobs_with_other_texts_share_the_layers_and_each_gets_its_own_next_chunk(queue: Queue, broker: Broker) -> None:
    wanted = {"one": "a" * 16, "two": "b" * 16, "three": "a" * 16}
    for job_id, fingerprint in wanted.items():
        request = job_request(job_id)
        queue.job_states.create(
            request.model_copy(update={"fingerprints": request.fingerprints | {"llm": fingerprint}})
        )
        broker.enqueue(chunk(), job_id, "lo")
    (claim,) = broker.claim("vision", "w", 1)
    assert broker.finish(claim, "w", "", {"images": 4}, claim.chunk.of_group("llm", "c" * 16))
    assert broker.claim("llm", "w", 5) == []  # the first call creates the consumer groups
    following = [claim.chunk for claim in broker.claim("llm", "w", 5)]
    assert sorted(following, key=lambda one: one.fingerprint) == [
        claim.chunk.of_group("llm", fingerprint) for fingerprint in ("a" * 16, "b" * 16)
    ]
    for one in following:
        assert broker.waiting_jobs(one) == {
            job for job, fingerprint in wanted.items() if fingerprint == one.fingerprint
        }


def test_many_chunks_are_queued_in_order(broker: Broker) -> None:
    broker.enqueue_all((chunk(number) for number in range(3)), "one", "lo")
    assert [claim.chunk.number for claim in broker.claim("vision", "w", 5)] == [0, 1, 2]


def test_hi_comes_first(broker: Broker) -> None:
    broker.enqueue(chunk(0), "one", "lo")
    broker.enqueue(chunk(1), "one", "lo")
    broker.enqueue(chunk(2), "two", "hi")
    assert [claim.chunk.number for claim in broker.claim("vision", "w", 2)] == [2, 0]


def test_blocking_claim_wakes_up(broker: Broker) -> None:
    started = time.monotonic()
    assert broker.claim("vision", "w", 1, block=0.2) == []
    assert time.monotonic() - started >= 0.15
    broker.enqueue(chunk(), "one", "hi")
    assert len(broker.claim("vision", "w", 1, block=5.0)) == 1


def test_a_silent_holder_loses_its_chunk_and_cannot_finish_it(queue: Queue, broker: Broker) -> None:
    active_job(queue, "one")
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "paused", 1)
    time.sleep(0.1)
    assert broker.reclaim("vision", "other", idle=5.0) == []
    (reclaimed,) = broker.reclaim("vision", "other", idle=0.05)
    assert reclaimed.deliveries == 2
    assert not broker.renew(claim, "paused")
    sums = {"strata_rows|vision|succeeded|": 4.0, "strata_money|demo": 0.25}
    assert not broker.finish(claim, "paused", "{}", {"images": 4}, sums=sums)
    assert broker.renew(reclaimed, "other")
    assert broker.finish(reclaimed, "other", "{}", {"images": 4}, sums=sums)
    # what metrics count of the chunk is added by the one who finishes it
    assert queue.sums.read() == sums
    assert queue.job_states.counts("one", "vision:images") == [4]


def test_renewing_keeps_a_chunk(broker: Broker) -> None:
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "w", 1)
    for _ in range(3):
        time.sleep(0.1)
        assert broker.renew(claim, "w")
    assert broker.reclaim("vision", "other", idle=0.15) == []


def test_a_released_chunk_is_reclaimed_at_once_and_its_delivery_is_not_counted(broker: Broker) -> None:
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "w", 1)
    broker.release(claim, "w")
    (reclaimed,) = broker.reclaim("vision", "other", idle=60.0)
    assert reclaimed.deliveries == 1
    broker.release(claim, "w")  # it is no longer the holder
    assert broker.reclaim("vision", "third", idle=60.0) == []


def _beats(name: str, process: str) -> Heartbeat:
    return Heartbeat(name=name, pid=1, process=process, groups=["vision"], ready=True, chunks=[])


def test_the_chunks_of_a_worker_that_was_killed_are_released_at_once(queue: Queue, broker: Broker) -> None:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]) as process:
        killed, lives = process_identity(process.pid), process_identity()
        holders = {"killed": killed, "lives": lives, "elsewhere": killed.replace("/", "0/", 1), "old": ""}
        for number, (name, identity) in enumerate(holders.items()):
            queue.heartbeats.publish(_beats(name, identity), 60.0)
            for chunk_number in (2 * number, 2 * number + 1):
                broker.enqueue(chunk(chunk_number), "one", "hi" if chunk_number % 2 else "lo")
                assert broker.claim("vision", name, 1)
        queue.isolation_notes.mark(chunk(0).id, 3)
        # nobody has ended yet
        queue.release_ended()
        assert broker.reclaim("vision", "w", idle=60.0, count=10) == []
        process.kill()
    # the chunks of one alone, as after the end of its lease: with a delivery more, and the note of what was in flight
    queue.release_ended()
    claims = broker.reclaim("vision", "w", idle=60.0, count=10)
    assert {(claim.chunk.number, claim.deliveries) for claim in claims} == {(0, 2), (1, 2)}
    assert queue.isolation_notes.take_over(chunk(0).id).deaths == {3: 1}
    assert [beat.name for beat in queue.heartbeats.live()] == ["elsewhere", "lives", "old"]


def test_more_chunks_than_one_page_are_released(queue: Queue, broker: Broker) -> None:
    broker.enqueue_all((chunk(number) for number in range(2500)), "one", "hi")
    while len(broker.claim("vision", "gone", 500)) == 500:
        pass
    broker.release_all("gone")
    assert {claim.chunk.number for claim in broker.reclaim("vision", "w", 60.0, 3000)} == set(range(2500))


def test_a_chunk_of_withdrawn_jobs_alone_is_never_claimed(queue: Queue, broker: Broker) -> None:
    for number, job_ids in enumerate((["one"], ["one", "two"], ["one"])):
        for job_id in job_ids:
            broker.enqueue(chunk(number), job_id, "lo")
    (first,) = broker.claim("vision", "dead", 1)
    assert first.chunk.number == 0
    time.sleep(0.05)
    broker.withdraw("one")
    assert broker.waiting_jobs(chunk(1)) == {"two"}
    assert broker.reclaim("vision", "w", idle=0.02) == []
    assert [claim.chunk.number for claim in broker.claim("vision", "w", 3)] == [1]
    assert broker.depth("vision") == 1  # the other two are removed


def test_a_dead_claim_behind_many_live_ones_is_found(queue: Queue, broker: Broker) -> None:
    broker.enqueue_all((chunk(number) for number in range(300)), "one", "lo")
    live = broker.claim("vision", "live", 299)
    (dead,) = broker.claim("vision", "dead", 1)
    # the server counts an hour since the last renewal of the dead worker's lease, and far less for the others
    server: Any = raw_redis(queue)
    server.xclaim(dead.stream, keys.CONSUMER_GROUP, "dead", 0, [dead.message], idle=3_600_000, justid=True)
    for claim in live:
        assert broker.renew(claim, "live")
    assert [found.message for found in broker.reclaim("vision", "w", idle=1800)] == [dead.message]
    assert broker.reclaim("vision", "w", idle=1800) == []


def test_a_chunk_with_nine_thousand_waiting_jobs_is_finished_for_all(queue: Queue, broker: Broker) -> None:
    job_ids = [f"job{number}" for number in range(9000)]
    for job_id in job_ids[::1000]:
        active_job(queue, job_id)
    broker.enqueue(chunk(), job_ids[0], "lo")
    raw_redis(queue).sadd(keys.waiters(chunk().id), *job_ids)
    (claim,) = broker.claim("vision", "w", 1)
    assert broker.finish(claim, "w", "", {"images": 4}, chunk(group="llm"))
    assert broker.waiting_jobs(chunk(group="llm")) == set(job_ids)
    assert [queue.job_states.counts(job_id, "vision:images") for job_id in job_ids[::1000]] == [[4]] * 9
    assert broker.depth("llm") == 1 and broker.depth("vision") == 0


def test_a_chunk_that_cannot_be_finished_stays_with_its_holder(queue: Queue, broker: Broker) -> None:
    active_job(queue, "one")
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "w", 1)
    raw_redis(queue).set(keys.events("one"), "no stream")
    with pytest.raises(QueueUnavailable, match="WRONGTYPE"):
        broker.finish(claim, "w", "", {"images": 4}, chunk(group="llm"))
    assert broker.renew(claim, "w") and broker.waiting_jobs(chunk()) == {"one"}
    raw_redis(queue).delete(keys.events("one"))
    assert broker.finish(claim, "w", "", {"images": 4}, chunk(group="llm"))
    assert broker.depth("llm") == 1


def test_who_lost_a_chunk_cannot_drop_it_nor_its_waiting_jobs(queue: Queue, broker: Broker) -> None:
    active_job(queue, "one")
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "paused", 1)
    (taken,) = broker.reclaim("vision", "w", idle=0.0)
    assert not broker.drop(claim, "paused")
    assert broker.waiting_jobs(chunk()) == {"one"}
    assert broker.finish(taken, "w", "", {"images": 4})
    assert queue.job_states.counts("one", "vision:images") == [4]


def test_a_dropped_chunk_is_counted_for_nobody(queue: Queue, broker: Broker) -> None:
    active_job(queue, "one")
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "w", 1)
    assert broker.drop(claim, "w")
    assert not broker.drop(claim, "w")
    assert (queue.job_states.counts("one", "vision:images"), broker.depth("vision")) == ([0], 0)


def test_an_emptied_server_is_no_error(queue: Queue, broker: Broker) -> None:
    broker.enqueue(chunk(), "one", "lo")
    (claim,) = broker.claim("vision", "w", 1)
    raw_redis(queue).flushall()
    assert not broker.finish(claim, "w", "{}", {})
    assert not broker.renew(claim, "w")
    assert broker.reclaim("vision", "w", idle=0.0) == []
    assert broker.claim("vision", "w", 1) == []
    assert broker.enqueue(chunk(), "one", "lo")
    assert [found.chunk for found in broker.claim("vision", "w", 1)] == [Chunk.from_fields(chunk().to_fields())]
