"""What is accepted and not described yet is bounded, for one caller and for all, and is told with Retry-After."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from strata.core.settings import Settings
from strata.errors import QueueFull
from strata.jobs.jobs import Jobs
from strata.queue import Bounds, keys
from strata.queue.job_states import LONGEST_RETRY
from strata.queue.queue import Queue
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end
from tests.raw_redis import raw_redis
from tests.service import problem, running_service

BOUNDS = Bounds(images=8, jobs=4, shards=100, share=0.5)


def add_image(jobs: Jobs, caller: str, bounds: Bounds = BOUNDS) -> str:
    """A new job of one image."""
    return jobs.new.create_image(jpeg(), None, FAKE_PROFILE, caller, bounds.limits("image", caller)).id


def add_batch(jobs: Jobs, caller: str, shards: int = 1) -> str:
    """A new job of shards."""
    names = [f"/{number}.tar" for number in range(shards)]
    return jobs.new.create("batch", names, FAKE_PROFILE, "lo", caller=caller, bounds=BOUNDS).id


def sums(jobs: Jobs) -> dict[str, str]:
    """The sums of unfinished jobs."""
    server: Any = raw_redis(jobs.queue)
    return dict(server.hgetall(keys.OPEN))


def nothing_of_it_stays(jobs: Jobs, before: set[str]) -> bool:
    """Whether the store and Redis have only the jobs from before."""
    return set(jobs.store.job_ids()) == set(jobs.store.open_jobs()) == jobs.queue.job_states.active() == before


def test_one_caller_may_use_its_share_and_the_others_the_rest(jobs: Jobs) -> None:
    taken = {add_image(jobs, "a") for _ in range(4)}
    with pytest.raises(QueueFull, match="4 single images of yours have not ended; at most 4") as own:
        add_image(jobs, "a")
    taken |= {add_image(jobs, "b") for _ in range(4)}
    with pytest.raises(QueueFull, match="8 single images of all callers") as full:
        add_image(jobs, "c")
    assert (own.value.own, full.value.own) == (True, False)
    assert nothing_of_it_stays(jobs, taken)
    assert sums(jobs) == {"image": "8", "image:a": "4", "image:b": "4"}


def test_the_bound_is_exact_for_requests_at_the_same_time(jobs: Jobs) -> None:
    def send(_: int) -> str | None:
        try:
            return add_image(jobs, "a")
        except QueueFull:
            return None

    with ThreadPoolExecutor(12) as pool:
        taken = {job for job in pool.map(send, range(24)) if job}
    assert len(taken) == 4 and nothing_of_it_stays(jobs, taken)


def test_jobs_of_shards_and_their_shards(jobs: Jobs) -> None:
    # one that is alone may be larger than the bound, or it could never be described
    large = add_batch(jobs, "a", shards=300)
    with pytest.raises(QueueFull, match="300 shards of yours"):
        add_batch(jobs, "a")
    with pytest.raises(QueueFull, match="300 shards of all callers"):
        add_batch(jobs, "b")
    jobs.cancel(large)
    with FakeMachine(jobs):
        wait_for_end(jobs, large)
        assert sums(jobs) == {}
    for caller in ("a", "a", "b", "b"):
        add_batch(jobs, caller)
    with pytest.raises(QueueFull, match="2 jobs of shards of yours"):
        add_batch(jobs, "a")
    with pytest.raises(QueueFull, match="4 jobs of shards of all callers"):
        add_batch(jobs, "c")


def test_the_default_bounds_take_many_shards_at_once(jobs: Jobs) -> None:
    bounds = Settings()
    given = Bounds(bounds.queue_images, bounds.queue_jobs, bounds.queue_shards, bounds.caller_share)
    for _ in range(2):  # all of CC3M, twice
        names = [f"/{number}.tar" for number in range(332)]
        jobs.new.create("batch", names, FAKE_PROFILE, "lo", caller="a", bounds=given)
    for _ in range(200):
        jobs.queue.job_states.check(given.limits("batch", "a", 332))


def test_the_sums_are_those_of_the_unfinished_jobs(jobs: Jobs) -> None:
    ids = [add_image(jobs, "a"), add_image(jobs, "b"), add_batch(jobs, "a", 3)]
    jobs.cancel(ids[1])
    with FakeMachine(jobs):
        for job in ids:
            wait_for_end(jobs, job)
    assert sums(jobs) == {}
    jobs.retry(ids[2])  # no shard could be read
    assert sums(jobs) == {"batch": "1", "batch:a": "1", "shards": "3", "shards:a": "3"}
    jobs.queue.job_states.delete(ids[2])
    assert sums(jobs) == {}


def test_when_to_try_again_follows_from_the_rate(queue: Queue, jobs: Jobs) -> None:
    for _ in range(4):
        add_image(jobs, "a")
    with pytest.raises(QueueFull) as unknown:
        add_image(jobs, "a")
    server, period = raw_redis(queue), int(time.time()) // 10
    server.set(keys.closed("image", period), 6)  # at most 0.1 a second
    with pytest.raises(QueueFull) as slow:
        add_image(jobs, "a")
    server.set(keys.closed("image", period - 1), 600)
    with pytest.raises(QueueFull) as fast:
        add_image(jobs, "a")
    assert unknown.value.seconds == LONGEST_RETRY
    assert 10 <= slow.value.seconds <= 12 and fast.value.seconds == 1


def test_the_service_refuses_with_429_and_503(queue: Queue, tmp_path: Path) -> None:
    limits: dict[str, Any] = {"queue_images": 3, "queue_jobs": 3, "caller_share": 0.67}
    with running_service(queue, tmp_path, workers=False, **limits) as service:
        for _ in range(2):
            assert service.caption(jpeg(), wait=None).status_code == 202
        refused = service.caption(jpeg(), wait=None)
        assert "single images of yours" in problem(refused, 429, "share-used")["detail"]
        assert 1 <= int(refused.headers["retry-after"]) <= LONGEST_RETRY
        add_image(service.jobs, "other", Bounds(3, 3, 3, 1))
        elsewhere = TestClient(service.client.app, client=("10.9.8.7", 1), raise_server_exceptions=False)
        full = elsewhere.post("/v1/captions", files={"file": ("a.jpg", jpeg())})
        problem(full, 503, "queue-full")
        assert 1 <= int(full.headers["retry-after"]) <= LONGEST_RETRY


def test_many_images_are_bounded_whatever_the_high_water(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False, high_water=1, queue_images=10, caller_share=1) as service:
        statuses = [service.caption(jpeg(), wait=None).status_code for _ in range(15)]
        assert statuses == [202] * 10 + [429] * 5
