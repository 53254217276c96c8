"""Jobs tell what they wait for: a stage, the store, or a shard; and what waits is not fed without end."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strata.core.schemas import JobStatus, JobView, Waiting
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from strata.queue.job_events import FIRST_EVENT
from strata.queue.queue import Queue
from strata.shards import sources
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from workers.indexer import Indexer
from workers.leases import Leases

SECONDS = 30.0


def wait_until(jobs: Jobs, job_id: str, is_true: Callable[[JobView], bool]) -> JobView:
    """The job once something is true of it."""
    deadline = time.monotonic() + SECONDS
    while not is_true(view := jobs.view(job_id)):
        assert time.monotonic() < deadline, view.model_dump_json()
        time.sleep(0.02)
    return view


def waiting_of(jobs: Jobs, job_id: str) -> Waiting:
    found = wait_until(jobs, job_id, lambda view: view.waiting is not None).waiting
    assert found is not None
    return found


def events_of(jobs: Jobs, job_id: str) -> list[tuple[str, str]]:
    """The events that tell about waiting, with their stages."""
    found = [fields for _, fields in jobs.queue.job_events.after(job_id, FIRST_EVENT)]
    return [(one["event"], one["stage"]) for one in found if one["event"] in ("waiting", "resumed")]


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", "/srv/secret/store")


def test_a_job_tells_that_the_store_is_full(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [True]
    write = Store.write_records

    def write_records(self: Store, *arguments: Any) -> Any:
        if broken:
            raise full()
        return write(self, *arguments)

    monkeypatch.setattr(Store, "write_records", write_records)
    shard = write_shard(tmp_path / "a.tar", [jpeg()] * 2)
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        waiting = waiting_of(jobs, job.id)
        assert (waiting.stage, waiting.reason) == ("store", "No space left on device") and waiting.attempts >= 1
        assert wait_until(jobs, job.id, lambda view: bool(view.waiting and view.waiting.attempts > 1))
        deadline = time.monotonic() + SECONDS
        while not events_of(jobs, job.id) and time.monotonic() < deadline:
            time.sleep(0.02)
        broken.clear()
        wait_for_end(jobs, job.id)
    assert jobs.view(job.id).waiting is None and jobs.view(job.id).status is JobStatus.COMPLETED
    assert events_of(jobs, job.id)[0] == ("waiting", "store")


def test_a_job_tells_that_a_shard_is_away(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [True]

    def index_shard(shard: str, *more: Any, **options: Any) -> Any:
        if broken:
            raise ConnectionError("the bucket does not answer")
        return sources.index_shard(shard, *more, **options)

    monkeypatch.setattr("workers.indexer.index_shard", index_shard)
    shard = write_shard(tmp_path / "a.tar", [jpeg()] * 2)
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        waiting = waiting_of(jobs, job.id)
        assert (waiting.stage, waiting.reason) == ("shard", "the bucket does not answer")
        broken.clear()
        wait_for_end(jobs, job.id)
    assert jobs.view(job.id).waiting is None


def test_what_a_worker_waited_for_is_forgotten_with_the_worker(jobs: Jobs, tmp_path: Path) -> None:
    request = jobs.new.create("batch", [str(tmp_path / "a.tar")], FAKE_PROFILE, "lo")
    chunk = request.index_chunk(request.shards[0])
    jobs.queue.broker.enqueue(chunk, request.id, "lo")
    with Leases(jobs.queue, "w", ["index"], 1.0) as leases:
        leases.hold_up(chunk, "shard", ConnectionError("away"), 1)
        assert waiting_of(jobs, request.id).attempts == 1
        leases.hold_up(chunk, "shard", ConnectionError("still away"), 2)
        assert waiting_of(jobs, request.id).reason == "still away"
        leases.go_on(chunk)
        assert jobs.view(request.id).waiting is None
        leases.hold_up(chunk, "shard", ConnectionError("away"), 1)
    assert jobs.view(request.id).waiting is None


def test_a_waiting_stage_is_told_to_every_job_of_its_fingerprint_and_fed_no_further(
    queue: Queue, store: Store, jobs: Jobs, tmp_path: Path
) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(40)])  # ten chunks
    scheduler = Scheduler(queue, store, high_water=3)
    scheduler.waiting.refresh = _always(scheduler.waiting)  # type: ignore[method-assign]
    job, stop = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo"), threading.Event()
    indexing = threading.Thread(target=Indexer(jobs, Leases(queue, "i", ["index"], 5.0)).run, args=(stop,))
    indexing.start()
    while not (claims := queue.broker.claim("vision", "w", 1)):
        scheduler.tick()
    stop.set()
    indexing.join()
    queue.waits.step_aside(claims[0], "w", "captioner", "server away", pause=600)
    for _ in range(20):
        scheduler.tick()
        assert queue.broker.claim("vision", "w", 10) == []
    fingerprint = FAKE_PROFILE.fingerprint("vision")
    assert queue.waits.parked("vision", fingerprint) <= 2 * scheduler.feeder.high_water
    other = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
    for one in (job, other):
        found = jobs.view(one.id).waiting
        assert found is not None and (found.stage, found.reason, found.attempts) == ("captioner", "server away", 1)
    scheduler.tick()
    queue.waits.end("vision", fingerprint)
    scheduler.tick()
    assert jobs.view(job.id).waiting is None
    assert events_of(jobs, job.id) == [("waiting", "captioner"), ("resumed", "captioner")]


def _always(waiting: Any) -> Callable[[], bool]:
    """A `refresh` that looks each time."""
    refresh = waiting.refresh

    def look() -> bool:
        waiting._refreshed = float("-inf")
        return bool(refresh())

    return look
