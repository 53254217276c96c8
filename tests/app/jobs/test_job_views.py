"""Envelopes for many requests at once: they share reads, see all changes before them, and share no error."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from app.jobs.views import MOST, JobViews
from app.server import _bind
from strata.core.schemas import JobStatus, JobView
from strata.errors import QueueUnavailable
from strata.jobs.jobs import Jobs, UnknownJob
from strata.queue import keys
from strata.queue.queue import Queue
from tests.fakes import FAKE_PROFILE
from tests.raw_redis import raw_redis
from tests.service import Service


class HeldJobs:
    """Jobs whose first read waits until it is let go; each read is noted."""

    def __init__(self, view: JobView) -> None:
        self.view, self.reads = view, list[list[str]]()
        self.go_on = threading.Event()

    def views(self, job_ids: Sequence[str]) -> list[JobView]:
        """The same envelope for each."""
        self.reads.append(list(job_ids))
        assert self.go_on.wait(60)
        return [self.view for _ in job_ids]


def new_job(jobs: Jobs) -> str:
    """A job of one shard that nobody works on."""
    return jobs.new.create("batch", ["/a.tar"], FAKE_PROFILE, "lo").id


def test_requests_that_come_during_a_read_are_answered_by_the_next_one(jobs: Jobs) -> None:
    held = HeldJobs(jobs.view(new_job(jobs)))
    views = JobViews(cast(Jobs, held))

    async def ask() -> None:
        first = asyncio.create_task(views.find("first"))
        while not held.reads:
            await asyncio.sleep(0.001)
        # `first` is asked for once more: its running read began before this request, and may be out of date
        others = [asyncio.create_task(views.find(name)) for name in ["first", "second"] * 100]
        await asyncio.sleep(0)
        held.go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(ask())
    assert held.reads == [["first"], ["first", "second"]]


def test_one_read_has_a_bounded_number_of_jobs(jobs: Jobs) -> None:
    held = HeldJobs(jobs.view(new_job(jobs)))
    held.go_on.set()

    async def ask() -> None:
        views = JobViews(cast(Jobs, held))
        await asyncio.gather(*(views.find(f"job{number}") for number in range(2 * MOST + 1)))

    asyncio.run(ask())
    assert [len(read) for read in held.reads] == [MOST, MOST, 1]


def test_a_request_that_is_given_up_does_not_disturb_the_others(jobs: Jobs) -> None:
    job = new_job(jobs)

    async def ask() -> JobStatus:
        views = JobViews(jobs)
        given_up, kept = asyncio.create_task(views.find(job)), asyncio.create_task(views.find(job))
        await asyncio.sleep(0)
        given_up.cancel()
        return (await kept).view.status

    assert asyncio.run(ask()) is JobStatus.VALIDATING


def test_an_error_is_that_of_its_own_job(queue: Queue, jobs: Jobs) -> None:
    good, bad = new_job(jobs), new_job(jobs)
    raw_redis(queue).hset(keys.job(bad), "request", "{")

    async def ask() -> list[Any]:
        views = JobViews(jobs)
        names = [good, bad, "0" * 22, f"{good}:events", "*"]
        return list(await asyncio.gather(*(views.find(name) for name in names), return_exceptions=True))

    found = asyncio.run(ask())
    assert found[0].view.id == good
    assert found[1].view.status is JobStatus.FAILED and "cannot be read" in found[1].view.error
    assert all(isinstance(error, UnknownJob) for error in found[2:])


def test_without_redis_every_request_gets_the_error(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(job_ids: Sequence[str]) -> list[JobView]:
        raise QueueUnavailable("away")

    monkeypatch.setattr(jobs, "views", away)

    async def ask() -> list[Any]:
        views = JobViews(jobs)
        return list(await asyncio.gather(views.find("a"), views.find("b"), return_exceptions=True))

    assert [type(error) for error in asyncio.run(ask())] == [QueueUnavailable, QueueUnavailable]


def test_who_cancels_reads_it_at_once(idle_service: Service) -> None:
    service = idle_service  # a worker could end the job before it is read
    for _ in range(20):
        job = new_job(service.jobs)
        assert service.client.get(f"/v1/jobs/{job}").json()["status"] == "validating"
        assert service.client.post(f"/v1/jobs/{job}/cancel").is_success
        assert service.client.get(f"/v1/jobs/{job}").json()["status"] in ("cancelling", "finalizing", "cancelled")


def test_the_response_is_the_envelope(service: Service) -> None:
    job = new_job(service.jobs)
    response = service.client.get(f"/v1/jobs/{job}")
    assert response.headers["content-type"] == "application/json"
    assert JobView.model_validate_json(response.content).id == job


def test_accepted_connections_do_not_wait_for_acknowledgements() -> None:
    with _bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
