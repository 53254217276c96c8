"""`POST /v1/batches/preview` tells what a submission would compute, and creates nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import batch_preview
from strata.core import BatchPreview, JobEnd
from strata.jobs.plans import Plan
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.queue.requests import job_request
from tests.service import Service, problem


def _preview(service: Service, *shards: str) -> BatchPreview:
    answer = service.client.post("/v1/batches/preview", json={"input": {"shards": list(shards)}})
    assert answer.status_code == 200, answer.text
    return BatchPreview.model_validate_json(answer.content)


def _shards(service: Service, *sizes: int) -> Path:
    folder = Path(service.settings.shard_roots[0])
    for number, size in enumerate(sizes):
        write_shard(folder / f"{number}.tar", [jpeg(20 + number, 20 + index) for index in range(size)])
    return folder


def test_it_counts_what_is_new_and_what_exists(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _shards(service, 5, 6)
    found = _preview(service, f"{folder}/{{0..1}}.tar")
    assert (found.shards, found.looked_at, found.images, found.reused) == (2, 2, 11, 0)
    assert found.seconds is None and found.money is None and found.like is None
    assert found.first == [f"{folder}/0.tar", f"{folder}/1.tar"]
    assert service.client.get("/v1/jobs").json()["jobs"] == []
    # after a job of one of them its images are reused, and the time of the others is known from it
    job = service.submit(f"{folder}/0.tar").json()["id"]
    wait_for_end(service.jobs, job)
    found = _preview(service, f"{folder}/{{0..1}}.tar")
    assert (found.images, found.reused, found.seconds, found.like) == (11, 5, None, None)  # five images tell no rate
    monkeypatch.setattr(batch_preview, "LEAST_COMPUTED", 5)
    found = _preview(service, f"{folder}/{{0..1}}.tar")
    assert (found.images, found.reused, found.like) == (11, 5, job)
    view = service.jobs.view(job)
    assert view.finished_at and view.started_at and found.seconds is not None
    assert found.seconds == pytest.approx(6 / 5 * (view.finished_at - view.started_at).total_seconds(), rel=0.05)


def test_a_retry_of_a_few_images_tells_no_rate(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_preview, "LEAST_COMPUTED", 1)
    folder = _shards(service, 5)
    write_shard(folder / "1.tar", [*(jpeg(60, 20 + index) for index in range(6)), b"no image"])
    first, second = (service.submit(f"{folder}/{number}.tar").json()["id"] for number in range(2))
    for job in (first, second):
        wait_for_end(service.jobs, job)
    assert _preview(service, f"{folder}/0.tar").like == second
    service.jobs.retry(second)
    wait_for_end(service.jobs, second)
    view = service.jobs.view(second)
    assert view.computed == 1 and view.groups["llm"].images == 7
    # its rate is that of the retry, and says nothing of other jobs
    assert view.finished_at and view.started_at
    seconds = (view.finished_at - view.started_at).total_seconds()
    assert view.images_per_second == pytest.approx(1 / seconds, abs=0.001)
    assert _preview(service, f"{folder}/0.tar").like == first


def test_the_rate_of_an_ended_job_is_that_of_its_run(service: Service) -> None:
    folder, store = _shards(service, 5), service.jobs.store
    job = service.submit(f"{folder}/0.tar").json()["id"]
    wait_for_end(service.jobs, job)
    view = service.jobs.view(job)
    assert view.finished_at and view.started_at
    seconds = (view.finished_at - view.started_at).total_seconds()
    assert view.images_per_second == pytest.approx(5 / seconds, rel=0.01)
    end = store.parse_job_file(job, "end", JobEnd)
    assert end is not None and end.images_per_second == view.images_per_second
    # an earlier version has written the rate of the last second
    store.write_job_file(job, "end", end.model_copy(update={"images_per_second": 999.0}))
    assert service.client.get(f"/v1/jobs/{job}").json()["images_per_second"] == view.images_per_second
    # what computes nothing has no rate
    again = service.submit(f"{folder}/0.tar").json()["id"]
    wait_for_end(service.jobs, again)
    assert service.jobs.view(again).images_per_second is None


def test_a_plan_tells_no_rate_of_a_moment() -> None:
    plan = Plan(job_request("a" * 22))
    assert [plan.rate(now, done) for now, done in ((100.0, 16), (100.9, 32), (109.9, 32))] == [None] * 3
    assert plan.rate(110.0, 36) == pytest.approx(2.0)
    assert plan.rate(130.9, 52) == pytest.approx(20 / 30)
    assert plan.rate(200.0, 52) is None


def test_only_some_of_many_shards_are_looked_at(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _shards(service, 4, 4, 4, 4, 4, 4)
    monkeypatch.setattr(batch_preview, "MOST_SHARDS", 3)
    found = _preview(service, f"{folder}/*.tar")
    assert (found.shards, found.looked_at, found.images) == (6, 3, 24)
    # without time no shard is read to its end
    monkeypatch.setattr(batch_preview, "SECONDS", 0.0)
    found = _preview(service, f"{folder}/*.tar")
    assert (found.shards, found.looked_at, found.images, found.reused, found.seconds) == (6, 0, None, None, None)


def test_a_shard_that_cannot_be_read_is_named(service: Service) -> None:
    folder = _shards(service, 3)
    (folder / "bad.parquet").write_bytes(b"no parquet")
    found = _preview(service, f"{folder}/0.tar", f"{folder}/bad.parquet")
    assert (found.shards, found.images) == (2, 3)
    assert [one.shard for one in found.unread] == [f"{folder}/bad.parquet"] and found.unread[0].reason
    answer = service.client.post("/v1/batches/preview", json={"input": {"shards": [f"{folder}/nothing.tar"]}})
    problem(answer, 422, "shard-not-found")
    answer = service.client.post("/v1/batches/preview", json={"input": {"shards": ["/etc/hosts"]}})
    problem(answer, 422, "shard-outside-roots")
    answer = service.client.post("/v1/batches/preview", json={"input": {"shards": [str(folder)]}, "profile": "none"})
    assert answer.status_code == 422
