"""Deleting jobs for good, and the retention of uploads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.core.schemas import JobStatus
from strata.jobs import retention as sweeping
from strata.jobs.jobs import Jobs
from strata.jobs.retention import Retention
from strata.queue.job_list import JobFilter, image_of
from strata.queue.queue import Queue
from strata.snapshots import Selection, Snapshots
from strata.store import PartsOf
from tests.app.jobs.test_job_list import wait_for_list
from tests.cli.test_cli import code_of
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from tests.service import Service, problem, running_service


@pytest.fixture
def listed(service: Service) -> Iterator[Service]:
    """A service whose list of jobs is complete."""
    wait_for_list(service.jobs)
    yield service


def described(service: Service, data: bytes, **fields: str) -> str:
    """The id of the ended job of an image."""
    job = str(service.caption(data, wait=None, **fields).json()["id"])
    wait_for_end(service.jobs, job)
    return job


def delete(service: Service, job: str, way: str) -> None:
    """Delete a job by a request, or by the command that needs no service."""
    if way == "delete":
        assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    else:
        assert code_of("clean", "--forget", job, "--yes", "--store", service.jobs.store.uri) == 0


def files(service: Service, *folders: str) -> list[str]:
    """The files of the store below some folders."""
    return [path for folder in folders for path in service.jobs.store.find(folder)]


def assert_gone(service: Service, job: str, key: str) -> None:
    """Nothing is known of a job any more."""
    for path in (f"jobs/{job}", f"jobs/{job}/results", f"jobs/{job}/failures", f"records/{job}/{key}"):
        problem(service.client.get(f"/v1/{path}"), 404, "unknown-job")
    problem(service.client.get(f"/v1/records/{job}/{key}/image"), 404, "unknown-job")
    problem(service.client.delete(f"/v1/jobs/{job}"), 404, "unknown-job")
    assert job not in [view["id"] for view in service.client.get("/v1/jobs").json()["jobs"]]
    assert job not in service.jobs.queue.job_list.page(JobFilter(), 100)[0]


@pytest.mark.parametrize("way", ["delete", "clean"])
def test_nothing_of_a_deleted_image_stays(listed: Service, way: str) -> None:
    job = described(listed, jpeg(), alt_text="secret")
    key = listed.client.get(f"/v1/jobs/{job}/results").json()["key"]
    delete(listed, job, way)
    assert_gone(listed, job, key)
    assert files(listed, "parts", "superseded", "broken", "uploads", "jobs", "open") == []
    # the same image is described anew
    again = described(listed, jpeg(), alt_text="secret")
    assert listed.client.get(f"/v1/jobs/{again}").json()["groups"]["llm"]["reused"] == 0


@pytest.mark.parametrize("way", ["delete", "clean"])
def test_what_another_job_uses_stays(listed: Service, way: str) -> None:
    first, again, other_text = (described(listed, jpeg(), alt_text=text) for text in ("a", "a", "b"))
    before = files(listed, "parts")
    delete(listed, first, way)
    assert files(listed, "parts") == before and len(files(listed, "uploads")) == 1
    row = listed.client.get(f"/v1/jobs/{again}/results").json()
    assert listed.client.get(f"/v1/records/{again}/{row['key']}/image").content == jpeg()
    delete(listed, again, way)
    # the third job has other rows, because its text is another, but the same image
    assert len(files(listed, "parts")) == len(before) / 2 and len(files(listed, "uploads")) == 1
    delete(listed, other_text, way)
    assert files(listed, "parts", "uploads", "jobs") == []


def test_a_shard_of_two_jobs_and_a_snapshot(listed: Service) -> None:
    shards = Path(listed.settings.shard_roots[0])
    write_shard(shards / "a.tar", [jpeg(20 + n) for n in range(6)])
    write_shard(shards / "b.tar", [jpeg(40 + n) for n in range(3)])
    both, one = (listed.submit(*paths).json()["id"] for paths in ([f"{shards}/{{a,b}}.tar"], [f"{shards}/a.tar"]))
    for job in (both, one):
        wait_for_end(listed.jobs, job)
    store = listed.jobs.store
    assert listed.client.delete(f"/v1/jobs/{both}").status_code == 204
    # b.tar was used by the deleted job alone
    assert len({path.split("/")[3] for path in files(listed, "parts")}) == 1
    assert len(listed.client.get(f"/v1/jobs/{one}/results").text.splitlines()) == 6
    Snapshots(store).create("kept", PartsOf(store).sources([one]), Selection(), [one])
    assert listed.client.delete(f"/v1/jobs/{one}").status_code == 204
    # the snapshot keeps the rows that training reads; what is needed only to compute them is gone
    assert {path.split("/")[1] for path in files(listed, "parts")} == {"llm"}
    kept = Snapshots(store).open("kept").manifest.parts
    assert kept and set(kept) == set(files(listed, "parts"))


def test_a_running_job_is_not_deleted(listed: Service) -> None:
    assert listed.machine is not None
    listed.machine.vision.seconds = 0.5
    job = listed.caption(jpeg(), wait=None).json()["id"]
    problem(listed.client.delete(f"/v1/jobs/{job}"), 409, "job-not-ended")
    listed.machine.vision.seconds = 0.0
    wait_for_end(listed.jobs, job)
    raw_redis(listed.jobs.queue).delete("strata:list:complete")
    problem(listed.client.delete(f"/v1/jobs/{job}"), 503, "not-ready")
    problem(listed.client.delete("/v1/jobs/nojob"), 404, "unknown-job")


def test_an_image_that_is_sent_in_this_moment_keeps_its_upload(listed: Service) -> None:
    job = described(listed, jpeg())
    image = image_of(listed.jobs.request(job).shards[0])
    listed.jobs.queue.job_list.announce(image, "new")
    assert listed.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert len(files(listed, "uploads")) == 1


# retention


def age_uploads(jobs: Jobs, days: float) -> None:
    """Make all uploads older."""
    for path in jobs.store.find("uploads"):
        stamp = time.time() - days * 86_400
        os.utime(jobs.store.path(path), (stamp, stamp))


def test_old_uploads_are_removed_and_their_records_stay(listed: Service) -> None:
    old, sent_again = described(listed, jpeg(20)), described(listed, jpeg(30))
    age_uploads(listed.jobs, 8)
    described(listed, jpeg(30))
    retention = Retention(listed.jobs, 7)
    assert retention.sweep(7) == 1 and retention.sweep(7) == 0
    rows = {job: listed.client.get(f"/v1/jobs/{job}/results").json() for job in (old, sent_again)}
    assert rows[old]["description"] is not None
    for end in ("image", "overlay.png"):
        problem(listed.client.get(f"/v1/records/{old}/{rows[old]['key']}/{end}"), 410, "image-removed")
    assert listed.client.get(f"/v1/records/{sent_again}/{rows[sent_again]['key']}/image").content == jpeg(30)
    retention.close()


def test_a_running_service_removes_old_uploads(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "SWEEP_SECONDS", 0.0)
    with running_service(queue, tmp_path, workers=False, upload_days=7.0) as service:
        digests = ["ab" + "0" * 62, "cd" + "0" * 62]
        for digest in digests:
            service.jobs.store.put_upload(digest, b"an image")
        (old, new) = sorted(service.jobs.store.path(path) for path in files(service, "uploads"))
        stamp = time.time() - 8 * 86_400
        os.utime(old, (stamp, stamp))
        until = time.monotonic() + 120
        while Path(old).exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        assert Path(new).exists()


def test_the_upload_of_a_job_that_has_not_ended_stays(listed: Service) -> None:
    assert listed.machine is not None
    listed.machine.vision.seconds = 1.0
    job = listed.caption(jpeg(), wait=None).json()["id"]
    age_uploads(listed.jobs, 8)
    retention = Retention(listed.jobs, 7)
    assert retention.sweep(7) == 0
    listed.machine.vision.seconds = 0.0
    wait_for_end(listed.jobs, job)
    image = image_of(listed.jobs.request(job).shards[0])
    listed.jobs.queue.job_list.announce(image, "new")
    assert retention.sweep(7) == 0
    listed.jobs.queue.job_list.withdraw(image, "new")
    # while the list of jobs is not complete, it is not known what is needed
    raw_redis(listed.jobs.queue).delete("strata:list:complete")
    assert retention.sweep(7) == 0
    listed.jobs.queue.job_list.begin("token")
    assert listed.jobs.queue.job_list.finish("token") and retention.sweep(7) == 1
    retention.close()


def test_a_failed_image_whose_upload_was_removed_is_not_retried(
    listed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert listed.machine is not None
    monkeypatch.setattr(
        listed.machine.llm, "run", lambda batch, *_: [one.record.failed("llm", "why", "no") for one in batch]
    )
    job = described(listed, jpeg())
    assert listed.client.get(f"/v1/jobs/{job}").json()["request_counts"]["failed"] == 1
    age_uploads(listed.jobs, 8)
    assert Retention(listed.jobs, 7).sweep(7) == 1
    problem(listed.client.post(f"/v1/jobs/{job}/retry"), 410, "image-removed")
    assert JobStatus(listed.client.get(f"/v1/jobs/{job}").json()["status"]) is JobStatus.COMPLETED
