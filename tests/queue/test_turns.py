"""Fair turns: callers with queued chunks are served one after another, however many chunks each has."""

from __future__ import annotations

import threading

from strata.queue import keys
from strata.queue.queue import Queue
from tests.queue.requests import chunk, job_request
from tests.raw_redis import raw_redis


def callers_of(queue: Queue, count: int, group: str = "vision") -> list[str]:
    """The callers of the next chunks, claimed one by one."""
    found = [queue.broker.claim(group, "w", 1) for _ in range(count)]
    return [claims[0].caller for claims in found if claims]


def add_jobs(queue: Queue, **callers: str) -> None:
    """Jobs by id, with their callers."""
    for job, caller in callers.items():
        queue.job_states.create(job_request(job, caller=caller))
    queue.broker.claim("vision", "w", 1)  # creates the consumer groups


def test_one_chunk_is_not_behind_two_hundred_of_another_caller(queue: Queue) -> None:
    broker = queue.broker
    add_jobs(queue, many="a", one="b")
    broker.enqueue_all([chunk(number) for number in range(200)], "many", "hi")
    broker.enqueue(chunk(200), "one", "hi")
    assert callers_of(queue, 4) == ["a", "a", "b", "a"]  # one of `a` was in the stream before `b` came
    assert len(callers_of(queue, 250)) == 197
    assert raw_redis(queue).keys("strata:lane:*") == raw_redis(queue).keys("strata:turns:*") == []


def test_a_claim_of_many_takes_one_of_each_caller_in_turn(queue: Queue) -> None:
    broker = queue.broker
    add_jobs(queue, one="a", two="b", three="c")
    for start, job in enumerate(("one", "two", "three")):
        broker.enqueue_all([chunk(100 * start + number) for number in range(10)], job, "lo")
    assert [claim.caller for claim in broker.claim("vision", "w", 9)] == ["a", *"abcabcab"]
    # the chunks of one caller keep their order
    numbers = [claim.chunk.number for claim in broker.claim("vision", "w", 30) if claim.caller == "a"]
    assert numbers == sorted(numbers)


def test_the_next_group_has_the_same_turns(queue: Queue) -> None:
    broker = queue.broker
    add_jobs(queue, many="a", one="b")
    broker.enqueue_all([chunk(number) for number in range(20)], "many", "hi")
    broker.enqueue(chunk(20), "one", "hi")
    for claim in broker.claim("vision", "w", 30):
        following = claim.chunk.of_group("llm", "f" * 16)
        assert broker.finish(claim, "w", "", {"images": 4}, following)
    broker.claim("llm", "w", 1)
    assert "b" in callers_of(queue, 3, "llm")


def test_a_worker_that_waits_gets_a_chunk_at_once(queue: Queue) -> None:
    broker = queue.broker
    add_jobs(queue, one="a")
    found: list[int] = []

    def work() -> None:
        for _ in range(3):
            found.extend(claim.chunk.number for claim in Queue(queue.url).broker.claim("vision", "w", 1, block=60))

    thread = threading.Thread(target=work)
    thread.start()
    # more chunks than there are workers: those that the first claim does not take must not wait for another event
    broker.enqueue_all([chunk(number) for number in range(3)], "one", "hi")
    thread.join(120)
    assert found == [0, 1, 2]


def test_chunks_without_jobs_leave_their_lane(queue: Queue) -> None:
    broker = queue.broker
    add_jobs(queue, one="a", two="b")
    broker.enqueue_all([chunk(number) for number in range(1500)], "one", "lo")
    broker.enqueue(chunk(1500), "two", "lo")
    broker.withdraw("one")
    # one call removes a bounded number of chunks
    assert [len(broker.claim("vision", "w", 1)) for _ in range(3)].count(1) == 1
    assert broker.depth("vision") == 1 and raw_redis(queue).hlen(keys.QUEUED) == 1


def test_a_turn_that_was_lost_is_restored(queue: Queue) -> None:
    broker = queue.broker
    add_jobs(queue, one="a", two="b")
    for job in ("one", "two"):
        queue.job_states.activate(job)
    broker.enqueue_all([chunk(number) for number in range(5)], "one", "lo")
    broker.enqueue_all([chunk(number) for number in range(5, 9)], "two", "lo")
    assert broker.restore_turns() == 0
    # as a damaged append-only file has it
    raw_redis(queue).delete(keys.turns("vision", "lo"))
    assert len(callers_of(queue, 9)) == 1
    assert broker.restore_turns() == 2 and broker.restore_turns() == 0
    assert len(callers_of(queue, 9)) == 8
