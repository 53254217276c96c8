"""Events of jobs: told by the process that schedules, once for each beginning and each end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.core.schemas import JobStatus
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from strata.lineage import open_receiver
from strata.lineage.jobs import job_watch
from strata.queue.queue import Queue
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from tests.jobs.hand_worker import HandWorker, batch
from tests.jobs.test_status import turns
from tests.lineage.conftest import Event, Received, check, names
from tests.lineage.test_commands import PARENT, lines_of
from tests.secrets import SECRET
from tests.service import running_service


def workers_of(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """Workers whose scheduler does not run, so that the service's does."""
    machine = FakeMachine(jobs, profile=FAKE_PROFILE)
    monkeypatch.setattr(machine.scheduler, "run", lambda stop, interval: None)
    return machine


def test_a_service_tells_jobs_of_shards(
    queue: Queue, tmp_path: Path, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", received.url)
    with running_service(queue, tmp_path, workers=False) as service, workers_of(service.jobs, monkeypatch):
        assert service.caption(jpeg()).status_code == 200  # a single image is not told
        shards = [
            write_shard(tmp_path / "shards" / f"{number:05d}.tar", [jpeg()] * 3, 3 * number) for number in range(2)
        ]
        asked = {"openlineage_parent": f"airflow/dag.task/{PARENT}"}
        job = service.submit(*shards, metadata=asked).json()["id"]
        wait_for_end(service.jobs, job)
    started, ended = received.events
    for event in (started, ended):
        check(event)
        assert event["run"]["facets"]["parent"]["job"]["name"] == "dag.task"
    assert (started["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert started["run"]["runId"] == ended["run"]["runId"]
    assert names(ended["inputs"]) == [("file", str(tmp_path / "shards"))]
    counted = ended["inputs"][0]["inputFacets"]["inputStatistics"]
    assert (counted["rowCount"], counted["fileCount"]) == (6, 2)
    assert names(ended["outputs"])[0][1].endswith(f"/parts/llm/{FAKE_PROFILE.fingerprint('llm')}")
    assert {"key": "strata_job", "value": job, "source": "STRATA"} in ended["run"]["facets"]["tags"]["tags"]


def test_a_service_tells_jobs_of_samples(
    queue: Queue, tmp_path: Path, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", received.url)
    with running_service(queue, tmp_path, workers=False) as service, workers_of(service.jobs, monkeypatch):
        shard = write_shard(tmp_path / "shards" / "00000.tar", [jpeg()] * 3)
        asked = {"input": {"shards": [str(shard)]}, "images": 2}
        wait_for_end(service.jobs, service.client.post("/v1/batches/estimate", json=asked).json()["id"])
    assert [event["eventType"] for event in received.events] == ["START", "COMPLETE"]


@pytest.mark.parametrize(("how", "state"), [("completed", "COMPLETE"), ("failed", "FAIL"), ("cancelled", "ABORT")])
def test_every_end_is_told(how: str, state: str, jobs: Jobs, tmp_path: Path) -> None:
    file, told = tmp_path / "events.jsonl", list[str]()
    receiver = open_receiver(str(file), told.append)
    assert receiver is not None
    scheduler = Scheduler(jobs.queue, jobs.store, 100, watch=job_watch(receiver))
    job, worker = batch(jobs, "s3://bucket/cc3m/00000.tar"), HandWorker(jobs)
    scheduler.tick()
    worker.work("index")
    scheduler.tick()
    if how == "cancelled":
        jobs.cancel(job.id)
    elif how == "failed":
        jobs.set_status(job.id, JobStatus.FAILED, error=f"no answer of s3://key:{SECRET}@bucket/a")
    assert turns(scheduler, jobs, job.id, worker).status.value == how
    receiver.close()
    assert told == []
    started, ended = lines_of(file)
    check(started)
    check(ended)
    assert (started["eventType"], ended["eventType"]) == ("START", state)
    assert names(ended["inputs"]) == [("s3://bucket", "cc3m")]
    assert SECRET not in json.dumps(ended) and ("errorMessage" in ended["run"]["facets"]) is (how == "failed")


def test_a_retry_is_a_run_of_its_own(jobs: Jobs, tmp_path: Path) -> None:
    from strata.lineage import job_run

    job = batch(jobs, "a.tar")
    again = job.model_copy(update={"run": 2})
    assert job_run(jobs.store, job).id == job_run(jobs.store, job).id != job_run(jobs.store, again).id


def test_a_scheduler_does_not_wait_for_a_receiver(jobs: Jobs, tmp_path: Path) -> None:
    """A receiver that takes nothing: what waits is bounded, and it is told once."""
    import threading

    from strata.lineage import receivers

    hold, told = threading.Event(), list[str]()

    class Stuck:
        def emit(self, event: Event) -> None:
            hold.wait()

        def close(self) -> None:
            pass

    receiver = receivers.Receiver(Stuck(), told.append)
    watch = job_watch(receiver)
    job = batch(jobs, "a.tar")
    for _ in range(receivers.MOST_WAITING + 10):
        watch(jobs.store, job, JobStatus.IN_PROGRESS)
    assert len(told) == 1 and "events wait" in told[0]
    hold.set()
