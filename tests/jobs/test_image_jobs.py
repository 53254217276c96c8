"""Creating the job of one image: few storage calls in a row, and nothing is left of a request that failed."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.fakes.slow_store import SlowFileSystem, calls_in, chain
from strata.core.profiles import GROUPS
from strata.core.schemas import JobStatus, JobView
from strata.errors import QueueUnavailable
from strata.jobs import image_jobs, new_jobs
from strata.jobs.billing import Billing
from strata.jobs.finalizer import Finalizer
from strata.jobs.image_jobs import ImageJobs
from strata.jobs.jobs import Jobs
from strata.jobs.pairing import pair
from strata.jobs.results import Results
from strata.jobs.scheduler import Scheduler
from strata.jobs.waiting import WaitingJobs
from strata.queue.job_list import JobFilter
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end
from tests.raw_redis import raw_redis
from tests.store.slow import slow_store


def new_image() -> bytes:
    """A JPEG that no other call returns."""
    file = io.BytesIO()
    Image.frombytes("RGB", (8, 8), os.urandom(8 * 8 * 3)).save(file, "JPEG")
    return file.getvalue()


def test_two_storage_calls_in_a_row_before_the_work_starts(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = slow_store(tmp_path, monkeypatch, 0.4)
    jobs = Jobs(queue, store)
    pair(queue, store)
    jobs.new.create_image(new_image(), None, FAKE_PROFILE)  # it also writes the profile, and creates folders
    before = len(calls_in(tmp_path / "calls"))
    request = jobs.new.create_image(new_image(), "a text", FAKE_PROFILE)
    calls = calls_in(tmp_path / "calls")[before:]
    assert chain(calls) == 2
    assert sorted(f"{call.name} {call.folder}" for call in calls) == [
        "exists uploads",
        "list parts/index",
        "list parts/llm",
        "list parts/vision",
        "put jobs",
        "put open",
        "put parts/index",
        "put uploads",
    ]
    assert queue.broker.depth("vision") == 2
    assert store.open_jobs()[-1] == request.id


def tick(jobs: Jobs) -> None:
    """One tick of a scheduler, which completes the list of jobs in a new Redis."""
    scheduler = Scheduler(jobs.queue, jobs.store, 100)
    scheduler.tick()
    jobs.queue.scheduler_lock.release(scheduler.name)


FAULTS: dict[str, Callable[[Any], bool]] = {
    "the upload": lambda path: "/uploads/" in path,
    "the index": lambda path: "/parts/index/" in path,
    "the mark": lambda path: "/open/" in path,
    "the profile": lambda path: "/profiles/" in path,
    "the request": lambda path: path.endswith("request.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_leaves_no_half_of_a_job(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, fault: str, tmp_path: Path
) -> None:
    tick(jobs)
    put = Store.put

    def failing(self: Store, path: str, data: bytes, private: bool = False) -> None:
        put(self, path, data, private)  # a write whose answer is lost has taken place
        if FAULTS[fault](path):
            raise OSError("the disk is away")

    monkeypatch.setattr(Store, "put", failing)
    with pytest.raises(OSError, match="the disk is away"):
        jobs.new.create_image(jpeg(), None, FAKE_PROFILE)
    assert_nothing_is_left(jobs)
    # the same image is accepted when the store is there again
    monkeypatch.undo()
    with FakeMachine(jobs):
        job = jobs.new.create_image(jpeg(), None, FAKE_PROFILE).id
        wait_for_end(jobs, job)
    assert jobs.view(job).request_counts.succeeded == 1


@pytest.mark.parametrize("kind", ["image", "batch"])
def test_a_job_that_redis_refuses_is_not_run_later(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    tick(jobs)

    def refused(*_: object) -> None:
        raise QueueUnavailable("READONLY You can't write against a read only replica.")

    monkeypatch.setattr(type(jobs.queue.job_states), "activate", refused)
    with pytest.raises(QueueUnavailable):
        if kind == "image":
            jobs.new.create_image(jpeg(), None, FAKE_PROFILE)
        else:
            jobs.new.create("batch", ["/a.tar"], FAKE_PROFILE, "lo")
    monkeypatch.undo()
    assert_nothing_is_left(jobs)


def assert_nothing_is_left(jobs: Jobs) -> None:
    """No job is known, marked or queued, no file of one is there; a scheduler finds nothing to do."""
    tick(jobs)
    assert jobs.store.find("uploads") == {} == jobs.store.find("parts")
    assert jobs.store.job_ids() == [] == jobs.store.open_jobs()
    assert jobs.queue.job_states.active() == set()
    assert all(jobs.queue.broker.depth(group) == 0 for group in GROUPS)
    assert jobs.queue.job_list.page(JobFilter(), 5)[0] == []
    assert [name for name in raw_redis(jobs.queue).keys("strata:job:*") if ":events" not in name] == []


def test_an_image_that_was_described_is_complete_at_once(jobs: Jobs) -> None:
    with FakeMachine(jobs) as machine:
        wait_for_end(jobs, jobs.new.create_image(jpeg(), None, FAKE_PROFILE).id)
        computed = machine.vision.images
        again = jobs.new.create_image(jpeg(), None, FAKE_PROFILE).id
        assert jobs.queue.job_states.progress([again])[again].images == 1
        wait_for_end(jobs, again)
        view = jobs.view(again)
        assert view.request_counts.succeeded == 1 and view.groups["llm"].reused == 1 == view.groups["vision"].reused
        assert machine.vision.images == computed


def test_the_schedulers_thread_makes_no_storage_call_for_images(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(queue, slow_store(tmp_path, monkeypatch, 0.01))
    machine = FakeMachine(jobs)
    seen: list[tuple[str, str]] = []
    note = SlowFileSystem._note

    def noting(self: SlowFileSystem, name: str, path: str, start: float) -> None:
        seen.append((threading.current_thread().name, f"{name} {Path(path).name}"))
        note(self, name, path, start)

    monkeypatch.setattr(SlowFileSystem, "_note", noting)
    scheduler = machine.threads[-1]
    with machine:
        ids = [jobs.new.create_image(jpeg(20 + n), None, FAKE_PROFILE).id for n in range(6)]
        for job in ids:
            wait_for_end(jobs, job, 60)
        # the end is written before the mark is removed
        until = time.monotonic() + 120
        while jobs.store.open_jobs() and time.monotonic() < until:
            time.sleep(0.05)
    assert jobs.store.open_jobs() == []
    # from time to time it lists the marks of open jobs, and reads those that Redis does not know: one may be new
    calls = {call for name, call in seen if name == scheduler.name}
    assert calls <= {"list open", "list progress", "get end.json", "get request.json", "get cancel.json"}
    ends = [jobs.store.read_job_file(job, "end") for job in ids]
    assert all(end is not None and JobView.model_validate_json(end).request_counts.succeeded == 1 for end in ends)


def test_an_image_that_nobody_queued_is_queued_by_the_scheduler(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_jobs, "FIRST_LOOK", 0.0)
    with monkeypatch.context() as patched:
        # the API process dies before it has queued the chunk
        patched.setattr(type(jobs.queue.broker), "enqueue_all", lambda *_: None)
        job = jobs.new.create_image(jpeg(), None, FAKE_PROFILE).id
    assert jobs.view(job).status is JobStatus.IN_PROGRESS
    with FakeMachine(jobs):
        wait_for_end(jobs, job)
    assert jobs.view(job).request_counts.succeeded == 1


def test_an_image_of_a_machine_whose_clock_is_ahead_is_looked_at_soon(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the id says that the job is created in ten hours
    monkeypatch.setattr(new_jobs, "new_job_id", lambda: f"{int((time.time() + 36_000) * 1000):012x}{'a' * 10}")
    job = jobs.new.create_image(jpeg(), None, FAKE_PROFILE).id
    ending = ImageJobs(jobs, Billing(jobs), Finalizer(jobs), WaitingJobs(jobs.queue))
    try:
        ending.advance({job}, [job])
        assert ending._images[job].due <= time.monotonic() + image_jobs.FIRST_LOOK
    finally:
        ending.close()


def test_a_cancelled_image_ends(jobs: Jobs) -> None:
    job = jobs.new.create_image(jpeg(), None, FAKE_PROFILE).id
    assert jobs.cancel(job).status is JobStatus.CANCELLING
    with FakeMachine(jobs):
        wait_for_end(jobs, job)
    view = jobs.view(job)
    assert view.status is JobStatus.CANCELLED and view.request_counts.total == 1
    assert jobs.store.open_jobs() == []


def test_the_summary_of_an_old_image_job_is_in_its_request(jobs: Jobs) -> None:
    with FakeMachine(jobs):
        job = jobs.new.create_image(jpeg(), None, FAKE_PROFILE).id
        wait_for_end(jobs, job)
    raw_redis(jobs.queue).flushall()
    assert [summary.images for summary in jobs.summaries(job).values()] == [1]
    assert Results(jobs.request(job), jobs.summaries(job), jobs.store, JobStatus.COMPLETED).page(None, 5).rows
