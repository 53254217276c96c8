"""Jobs from request to end through the real scheduler, runner and store, with fake pipelines."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
import redis

from strata.core.schemas import JobStatus
from strata.jobs.jobs import Jobs
from tests.fakes import FAKE_PROFILE, FakeMachine, dead_workers_claim, jpeg, wait_for_end, write_shard
from tests.raw_redis import raw_redis


def rows(jobs: Jobs, job_id: str) -> Counter[str]:
    """How often each key stands in the job's final parts."""
    request = jobs.request(job_id)
    found: Counter[str] = Counter()
    for summary in jobs.summaries(job_id).values():
        for chunk in request.chunks(summary, "llm"):
            found.update(record.key for record in jobs.store.read_records(chunk))
    return found


def test_a_shard_is_described_once_each(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 30)])
    with FakeMachine(jobs) as machine:
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
    view = jobs.view(job.id)
    assert view.status is JobStatus.COMPLETED
    assert view.request_counts.total == view.request_counts.succeeded == 10
    assert rows(jobs, job.id) == {f"{i:09d}": 1 for i in range(10)}
    assert machine.vision.images == machine.llm.images == 10
    record = next(iter(jobs.store.read_records(next(iter(job_chunks(jobs, job.id))))))
    assert record.alt_text == "alt 0"
    assert record.description is not None and record.description.text == "20 by 24"


def job_chunks(jobs: Jobs, job_id: str) -> list:  # type: ignore[type-arg]
    request = jobs.request(job_id)
    return [chunk for summary in jobs.summaries(job_id).values() for chunk in request.chunks(summary, "llm")]


def test_a_second_submission_computes_nothing(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 30)])
    with FakeMachine(jobs) as machine:
        wait_for_end(jobs, jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id)
        again = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, again.id)
    view = jobs.view(again.id)
    assert view.request_counts.succeeded == 10
    assert view.groups["llm"].reused == view.groups["vision"].reused == 10
    assert machine.vision.images == machine.llm.images == 10


def test_a_bad_image_is_a_failed_row_and_its_neighbours_are_whole(jobs: Jobs, tmp_path: Path) -> None:
    images = [jpeg(), b"no image", jpeg()[:300], b"", jpeg()]
    shard = write_shard(tmp_path / "a.tar", images)
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
    counts = jobs.view(job.id).request_counts
    assert (counts.total, counts.succeeded, counts.failed) == (5, 2, 3)
    failures = [
        record.failure
        for chunk in job_chunks(jobs, job.id)
        for record in jobs.store.read_records(chunk)
        if record.failure
    ]
    assert all(failure.detail and failure.stage for failure in failures)


def test_a_shard_that_cannot_be_read_fails_alone(jobs: Jobs, tmp_path: Path) -> None:
    good = write_shard(tmp_path / "a.tar", [jpeg()] * 3)
    (tmp_path / "b.tar").write_bytes(b"this is no tar at all" * 100)
    shards = [good, str(tmp_path / "b.tar"), str(tmp_path / "missing.tar")]
    with FakeMachine(jobs):
        job = jobs.new.create("batch", shards, FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
        bad = jobs.new.create("batch", shards[1:], FAKE_PROFILE, "lo")
        wait_for_end(jobs, bad.id)
    view = jobs.view(job.id)
    assert view.status is JobStatus.COMPLETED
    assert (view.request_counts.succeeded, view.shards.indexed, view.shards.failed) == (3, 1, 2)
    assert jobs.view(bad.id).status is JobStatus.FAILED
    assert "b.tar" in (jobs.view(bad.id).error or "")


def test_a_dead_workers_chunk_is_taken_over(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 28)])
    with FakeMachine(jobs, lease_seconds=0.4) as machine:
        dead_workers_claim(jobs.queue.broker, "vision")
        machine.vision.seconds = 0.05
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        deadline = time.monotonic() + 120
        while not jobs.queue.broker.claim("vision", "dead", 1) and time.monotonic() < deadline:
            if jobs.view(job.id).status.final:  # the machine was quicker
                break
            time.sleep(0.005)
        wait_for_end(jobs, job.id)
    assert rows(jobs, job.id) == {f"{i:09d}": 1 for i in range(8)}


def test_losing_redis_loses_nothing(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 50)])
    with FakeMachine(jobs, seconds=0.02) as machine:
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        while jobs.view(job.id).groups["llm"].chunks < 2:
            time.sleep(0.01)
        raw_redis(jobs.queue).flushall()
        wait_for_end(jobs, job.id)
        first = machine.vision.images
    assert jobs.view(job.id).request_counts.succeeded == 30
    assert rows(jobs, job.id) == {f"{i:09d}": 1 for i in range(30)}
    assert first <= 30 + 3 * FAKE_PROFILE.chunk_size  # nothing twice but what was in hand
    raw_redis(jobs.queue).flushall()
    assert jobs.view(job.id).status is JobStatus.COMPLETED  # its end stands in the store


def test_a_part_that_vanished_is_computed_again(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 32)])
    with FakeMachine(jobs):
        first = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, first.id)
        jobs.store.fs.rm(jobs.store.part_path(job_chunks(jobs, first.id)[1]))
        again = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, again.id)
    assert jobs.view(again.id).request_counts.succeeded == 12
    assert jobs.view(again.id).groups["llm"].reused == 8


def test_a_cancelled_job_ends_and_its_counts_add_up(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 80)])
    with FakeMachine(jobs, seconds=0.05):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        while jobs.view(job.id).groups["llm"].chunks < 1:
            time.sleep(0.01)
        jobs.cancel(job.id)
        wait_for_end(jobs, job.id)
    view = jobs.view(job.id)
    counts = view.request_counts
    assert view.status is JobStatus.CANCELLED
    assert counts.total == 60 == counts.succeeded + counts.failed + counts.filtered + counts.cancelled
    assert counts.cancelled > 0


def test_a_single_image_does_not_wait_for_a_shard(jobs: Jobs, tmp_path: Path) -> None:
    slow = write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 60)])
    quick = write_shard(tmp_path / "b.tar", [jpeg(99)])
    with FakeMachine(jobs, seconds=0.1):
        bulk = jobs.new.create("batch", [slow], FAKE_PROFILE, "lo")
        while not jobs.view(bulk.id).groups["vision"].chunks:
            time.sleep(0.01)
        single = jobs.new.create("batch", [quick], FAKE_PROFILE, "hi")
        wait_for_end(jobs, single.id)
        assert not jobs.view(bulk.id).status.final


def test_a_fault_outside_of_the_stages_is_waited_for(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg()] * 3)
    with FakeMachine(jobs) as machine:

        def broken(*_: object) -> None:
            raise RuntimeError("out of order")

        run = machine.llm.run
        monkeypatch.setattr(machine.llm, "run", broken)
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        while not (waiting := jobs.queue.waits.find({"llm": FAKE_PROFILE.fingerprint("llm")})):
            time.sleep(0.01)
        assert "out of order" in waiting.reason and not jobs.store.find("parts", "llm")
        monkeypatch.setattr(machine.llm, "run", run)
        wait_for_end(jobs, job.id)
    assert jobs.view(job.id).request_counts.succeeded == 3


def test_a_stopped_worker_gives_its_chunks_back_at_once(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 40)])
    with FakeMachine(jobs, seconds=0.05, lease_seconds=60) as first:
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        while not jobs.view(job.id).groups["vision"].chunks:
            time.sleep(0.01)
    assert first.vision.images < 20
    started = time.monotonic()
    with FakeMachine(jobs, name="second", lease_seconds=60):
        wait_for_end(jobs, job.id)
    assert time.monotonic() - started < 50  # and not the lease
    assert rows(jobs, job.id) == {f"{i:09d}": 1 for i in range(20)}


def test_a_redis_that_comes_back_is_gone_on_with(jobs: Jobs, tmp_path: Path, valkey_url: str) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 40)])
    with FakeMachine(jobs, seconds=0.02, lease_seconds=0.5) as machine:
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        while not jobs.view(job.id).groups["vision"].chunks:
            time.sleep(0.01)
        with redis.Redis.from_url(valkey_url, single_connection_client=True) as admin:
            admin.config_set("maxclients", 1)
            admin.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.5)
            admin.config_set("maxclients", 10_000)
        time.sleep(1.5)  # pauses of those that wait for it
        wait_for_end(jobs, job.id)
    assert rows(jobs, job.id) == {f"{i:09d}": 1 for i in range(20)}
    assert machine.llm.images >= 20


def test_a_worker_that_ends_is_not_live_any_more(jobs: Jobs) -> None:
    with FakeMachine(jobs, name="ending") as machine:
        machine.leases.announce_ready()
        assert [heartbeat.name for heartbeat in jobs.queue.heartbeats.live()] == ["ending"]
    assert jobs.queue.heartbeats.live() == []
