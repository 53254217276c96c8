"""`GET /v1/jobs` with filters: read from Redis, and from the store while Redis has lost the list."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from strata.client import Client
from strata.core.schemas import JobKind, JobPage, JobStatus
from strata.jobs.jobs import Jobs
from strata.jobs.listing import Listing
from strata.queue.job_list import JobFilter
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from tests.service import Service, problem


def wait_for_list(jobs: Jobs) -> None:
    """Wait until Redis has the whole list."""
    until = time.monotonic() + 120
    while not jobs.queue.job_list.is_complete():
        assert time.monotonic() < until
        time.sleep(0.02)


def ids(service: Service, query: str) -> list[str]:
    """The ids of all pages."""
    address, found = f"/v1/jobs?limit=2&{query}", []
    while address:
        answer = service.client.get(address)
        found += [job.id for job in JobPage.model_validate_json(answer.content).jobs]
        address = answer.links.get("next", {}).get("url", "")
    return found


@pytest.mark.parametrize("complete", [True, False])
def test_jobs_are_filtered(service: Service, complete: bool) -> None:
    wait_for_list(service.jobs)
    shards = Path(service.settings.shard_roots[0])
    write_shard(shards / "a.tar", [jpeg()])
    before = datetime.now(UTC) - timedelta(seconds=1)
    images = [service.caption(jpeg(20 + n), wait=None).json()["id"] for n in range(3)]
    batch = service.submit(f"{shards}/a.tar").json()["id"]
    (shards / "b.tar").write_bytes(b"no tar at all" * 99)
    broken = service.submit(f"{shards}/b.tar").json()["id"]
    for job in (*images, batch, broken):
        wait_for_end(service.jobs, job)
    if not complete:
        raw_redis(service.jobs.queue).delete("strata:list:complete")
    newest = [broken, batch, *reversed(images)]
    assert ids(service, "") == newest
    assert ids(service, "status=completed") == newest[1:]
    assert ids(service, "status=failed&kind=batch") == [broken]
    assert ids(service, "kind=image&profile=fake") == newest[2:]
    assert ids(service, "profile=other") == []
    stamp = before.isoformat().replace("+00:00", "Z")
    assert ids(service, f"created_after={stamp}") == newest
    assert ids(service, f"created_before={stamp}") == []
    assert ids(service, f"created_before={before.isoformat()[:19]}") == []
    problem(service.client.get("/v1/jobs?status=done"), 422, "invalid-request")


def test_a_lost_list_is_rebuilt_from_the_store(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg()])
    with FakeMachine(jobs):
        ended = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
        image = jobs.new.create_image(jpeg(30), None, FAKE_PROFILE).id
        for job in (ended, image):
            wait_for_end(jobs, job)
    running = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
    (tmp_path / "store" / "jobs" / "half").mkdir()  # a process died before it wrote the request
    raw_redis(jobs.queue).flushall()
    listing = Listing(jobs)
    listing.rebuild_if_lost()
    wait_for_list(jobs)
    assert [view.id for view in listing.page(JobFilter(), 9)[0]] == [running, image, ended]
    assert [view.id for view in listing.page(JobFilter(status=JobStatus.COMPLETED), 9)[0]] == [image, ended]
    kinds: list[JobKind] = ["image", "batch"]
    assert [len(listing.page(JobFilter(kind=kind), 9)[0]) for kind in kinds] == [1, 2]
    listing.close()


def test_a_job_whose_files_are_gone_leaves_the_list(jobs: Jobs) -> None:
    listing = Listing(jobs)
    listing.rebuild_if_lost()
    wait_for_list(jobs)
    with FakeMachine(jobs):
        gone, kept = (jobs.new.create_image(jpeg(width), None, FAKE_PROFILE).id for width in (20, 30))
        for job in (gone, kept):
            wait_for_end(jobs, job)
    raw_redis(jobs.queue).delete(f"strata:job:{gone}")
    jobs.store.remove_job(gone)
    assert [view.id for view in listing.page(JobFilter(), 9)[0]] == [kept]
    assert jobs.queue.job_list.page(JobFilter(), 9)[0] == [kept]
    listing.close()


def test_the_client_sends_the_filters() -> None:
    sent: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"jobs": [], "next": None})

    moment = datetime(2026, 11, 28, 12, tzinfo=UTC)
    with Client("http://service", transport=httpx.MockTransport(reply)) as client:
        client.jobs(5, status=JobStatus.FAILED, kind="image", profile="x", created_after=moment)
        client.jobs()
    assert dict(sent[0].url.params) == {
        "limit": "5",
        "status": "failed",
        "kind": "image",
        "profile": "x",
        "created_after": "2026-11-28T12:00:00+00:00",
    }
    assert not sent[1].url.query
