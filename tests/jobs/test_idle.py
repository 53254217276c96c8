"""What nothing happens to costs nothing: the scheduler's ticks and waiting requests, whatever their number."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.jobs import prefer
from app.jobs.prefer import Waits
from strata.core.profiles import GROUPS
from strata.core.requests import JobRequest
from strata.core.schemas import JobStatus
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from strata.queue.queue import Queue
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end
from tests.raw_redis import raw_redis


def commands(queue: Queue) -> Callable[[], int]:
    """A function that tells how many commands the server has executed since its last call, without its own."""
    server: Any = raw_redis(queue)
    before = [int(server.info("stats")["total_commands_processed"])]

    def count() -> int:
        now = int(server.info("stats")["total_commands_processed"])
        found, before[0] = now - before[0] - 1, now
        return found

    return count


def settle(scheduler: Scheduler) -> None:
    """Tick until nothing is left to be done."""
    for _ in range(20):
        scheduler.tick()


def idle_ticks(queue: Queue, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> int:
    """The commands of ten ticks in which nothing changes, and nothing is looked at because of the time."""
    monkeypatch.setattr("strata.jobs.waiting.REFRESH_SECONDS", 3600.0)
    for name in ("REVIEW_SECONDS", "RATE_LOOK_SECONDS"):
        monkeypatch.setattr(f"strata.jobs.scheduler.{name}", 3600.0)
    monkeypatch.setattr("strata.jobs.image_jobs.FIRST_LOOK", 3600.0)
    monkeypatch.setattr("strata.queue.scheduler_lock.LOCK_SECONDS", 3600)
    settle(scheduler)
    count = commands(queue)
    for _ in range(10):
        scheduler.tick()
    return count()


def test_ticks_cost_the_same_with_many_queued_images(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, found = jobs.queue, []
    for number in (1, 60):
        for _ in range(number):
            jobs.new.create_image(jpeg(), None, FAKE_PROFILE)
        found.append(idle_ticks(queue, Scheduler(queue, jobs.store, 100), monkeypatch))
        raw_redis(queue).delete("strata:scheduler")
    assert found[0] == found[1] <= 40


def test_ticks_cost_the_same_with_many_batches_that_wait(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    queue, found = jobs.queue, []
    for number in (1, 20):
        for name in range(number):
            jobs.new.create("batch", [f"{tmp_path}/{name}.tar"], FAKE_PROFILE, "lo")
        found.append(idle_ticks(queue, Scheduler(queue, jobs.store, 100), monkeypatch))
        raw_redis(queue).delete("strata:scheduler")
    assert found[0] == found[1] <= 40


def test_ticks_cost_little_with_many_batches_that_have_no_room(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        jobs.new.create("batch", [f"/{number}/{name}.tar" for name in range(5)], FAKE_PROFILE, "lo")
    assert idle_ticks(jobs.queue, Scheduler(jobs.queue, jobs.store, 10), monkeypatch) <= 120
    assert jobs.queue.broker.depth("index") == 10


def test_a_tick_that_fails_is_followed_by_one_that_looks_at_all_jobs(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Scheduler(jobs.queue, jobs.store, 100)
    settle(scheduler)
    job = jobs.new.create("batch", ["/a.tar"], FAKE_PROFILE, "lo")
    with monkeypatch.context() as broken:
        # the news are read, and then lost
        broken.setattr(scheduler.images, "advance", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scheduler.tick()
    assert not raw_redis(jobs.queue).exists("strata:changed") and not jobs.queue.broker.depth("index")
    scheduler.tick()
    assert jobs.queue.broker.is_queued(job.index_chunk("/a.tar"), job.id)


def test_a_second_caller_gets_a_share_while_the_first_has_queued_all_it_may(jobs: Jobs) -> None:
    scheduler = Scheduler(jobs.queue, jobs.store, 100)
    jobs.new.create("batch", [f"/a{number}.tar" for number in range(300)], FAKE_PROFILE, "lo", caller="first")
    settle(scheduler)
    assert jobs.queue.broker.depth("index") == 100
    jobs.new.create("batch", ["/b.tar"], FAKE_PROFILE, "lo", caller="second")
    settle(scheduler)
    found = [jobs.queue.broker.claim("index", "w", 1) for _ in range(5)]
    assert "second" in [claims[0].caller for claims in found if claims]
    # the first caller queues no more until it has less than its share
    assert jobs.queue.broker.depth("index") == 101


def test_waiting_requests_cost_the_same_whatever_their_number(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefer, "ASK_SECONDS", 3600.0)
    monkeypatch.setattr(prefer, "NEWS_SECONDS", 0.1)
    count, asked, progress = commands(jobs.queue), set[str](), jobs.queue.job_states.progress

    def ask(job_ids: list[str]) -> Any:
        found = progress(job_ids)
        asked.update(job_ids)
        return found

    monkeypatch.setattr(jobs.queue.job_states, "progress", ask)

    async def wait(requests: list[JobRequest]) -> int:
        waits = Waits(jobs)
        waiting = [asyncio.create_task(waits.record(request, 600)) for request in requests]
        # each asks once
        while not {request.id for request in requests} <= asked:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(count)
        start = time.monotonic()
        await asyncio.sleep(0.5)
        rate = await asyncio.to_thread(count) / (time.monotonic() - start)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return round(rate)

    requests = [jobs.new.create_image(jpeg(), None, FAKE_PROFILE) for _ in range(41)]
    assert max(asyncio.run(wait(requests[:1])), asyncio.run(wait(requests[1:]))) <= 20  # 10 questions a second


@pytest.mark.parametrize("lost", [False, True])
def test_a_waiting_request_gets_its_record(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    monkeypatch.setattr(prefer, "ASK_SECONDS", 0.2 if lost else 3600.0)
    if lost:
        monkeypatch.setattr(jobs.queue.job_events, "settled_after", lambda entry, seconds: (entry, set()))
    request = jobs.new.create_image(jpeg(), None, FAKE_PROFILE)

    async def wait() -> Any:
        waits = Waits(jobs)
        waiting = asyncio.create_task(waits.record(request, 60))
        await asyncio.sleep(0.1)
        with FakeMachine(jobs):
            return await waiting

    record = asyncio.run(wait())
    assert record is not None and record.caption is not None


def test_a_waiting_request_learns_that_its_job_was_cancelled(jobs: Jobs) -> None:
    request = jobs.new.create_image(jpeg(), None, FAKE_PROFILE)

    async def wait() -> Any:
        waiting = asyncio.create_task(Waits(jobs).record(request, 60))
        await asyncio.sleep(0.1)
        jobs.cancel(request.id)
        with FakeMachine(jobs):
            return await waiting

    start = time.monotonic()
    assert asyncio.run(wait()) is None and time.monotonic() - start < 50
    wait_for_end(jobs, request.id)


def test_waiting_requests_end_when_the_server_stops(jobs: Jobs) -> None:
    request, stopping = jobs.new.create_image(jpeg(), None, FAKE_PROFILE), threading.Event()

    async def wait() -> Any:
        waiting = asyncio.create_task(Waits(jobs).record(request, 600, stopping.is_set))
        await asyncio.sleep(0.1)
        stopping.set()
        return await asyncio.wait_for(waiting, 60)

    assert asyncio.run(wait()) is None


def test_the_news_name_each_image_once(jobs: Jobs) -> None:
    events, queue = jobs.queue.job_events, jobs.queue
    newest = events.newest_settled()
    request = jobs.new.create_image(jpeg(), None, FAKE_PROFILE)
    batch = jobs.new.create("batch", ["/a.tar"], FAKE_PROFILE, "lo")
    with FakeMachine(jobs):
        wait_for_end(jobs, request.id)
    jobs.set_status(batch.id, JobStatus.CANCELLING)
    seen: Counter[str] = Counter()
    while (found := events.settled_after(newest, 0.01))[1]:
        newest = found[0]
        seen.update(found[1])
    assert set(seen) == {request.id}  # the batch is waited for by nobody
    assert [queue.broker.depth(group) for group in GROUPS[1:]] == [0, 0]
