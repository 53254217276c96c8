"""What goes wrong at night: deadly images, killed and paused workers, a full disk, a Redis that forgot all."""

from __future__ import annotations

import errno
import math
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.fakes.worker import DEADLY
from strata.core.profiles import Profile
from strata.core.records import Record, Status
from strata.core.schemas import JobStatus
from strata.jobs.jobs import Jobs, NotFinished
from strata.queue import keys
from strata.queue.broker import Claim
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, FakeVision, jpeg, wait_for, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from tests.workers.programs.machines import fake_profile, machine, run_to_end
from workers import handover, items
from workers.isolation import KILLED, Isolation, Verdict


def records(jobs: Jobs, job_id: str) -> list[Record]:
    """All rows of a job's final parts."""
    request = jobs.request(job_id)
    chunks = [chunk for one in jobs.summaries(job_id).values() for chunk in request.chunks(one, "llm")]
    return [record for chunk in chunks for record in jobs.store.read_records(chunk)]


def holders_of(jobs: Jobs, group: str) -> list[int]:
    """The processes that hold chunks of a group."""
    heartbeats = jobs.queue.heartbeats.live()
    return [heartbeat.pid for heartbeat in heartbeats if any(chunk.group == group for chunk in heartbeat.chunks)]


def expiry(jobs: Jobs, job_id: str) -> int:
    """The seconds after which a job's working copy expires; below 0 if it does not."""
    server: Any = raw_redis(jobs.queue)
    return int(server.ttl(keys.job(job_id)))


def test_an_image_that_ends_workers_is_passed_over(jobs: Jobs, valkey_url: str, tmp_path: Path) -> None:
    deadly = jpeg(colour=f"rgb{DEADLY}")
    shard = write_shard(tmp_path / "a.tar", [jpeg(), jpeg(), deadly, jpeg(), jpeg()])
    with machine(jobs, valkey_url) as workers:
        job = jobs.new.create("batch", [shard], fake_profile(), "lo")
        run_to_end(jobs, job.id, workers)
    assert workers[0].deaths == [-signal.SIGKILL] * 3  # with its neighbours, then twice alone
    rows = records(jobs, job.id)
    assert [row.status for row in rows] == [Status.SUCCEEDED] * 2 + [Status.FAILED] + [Status.SUCCEEDED] * 2
    assert rows[2].failure is not None and rows[2].failure.error_type == "poison"
    assert not raw_redis(jobs.queue).keys(keys.in_flight("*"))


def test_a_paused_worker_that_wakes_up_does_not_count_twice(jobs: Jobs, valkey_url: str, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(40)])
    with machine(jobs, valkey_url, workers=2, seconds=0.02) as workers:
        job = jobs.new.create("batch", [shard], fake_profile(), "lo")
        while not (holders := holders_of(jobs, "vision")):
            time.sleep(0.01)
        holder = next(worker for worker in workers if worker.process.pid == holders[0])
        holder.send(signal.SIGSTOP)
        run_to_end(jobs, job.id, [w for w in workers if w is not holder])
        holder.send(signal.SIGCONT)
        time.sleep(1.0)  # it finishes its chunk now, and nobody cares
    view = jobs.view(job.id)
    assert view.status is JobStatus.COMPLETED
    assert view.request_counts.succeeded == view.groups["vision"].images == view.groups["llm"].images == 40
    assert Counter(row.key for row in records(jobs, job.id)) == {f"{n:09d}": 1 for n in range(40)}
    assert not holder.deaths


def test_nobody_waits_for_the_lease_of_a_worker_that_was_killed(jobs: Jobs, valkey_url: str, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(64)])
    with machine(jobs, valkey_url, workers=2, seconds=0.02, lease=600.0) as workers:
        job = jobs.new.create("batch", [shard], fake_profile(), "lo")
        wait_for(lambda: raw_redis(jobs.queue).keys(keys.in_flight("*")))
        for worker in workers:
            worker.send(signal.SIGKILL)
        run_to_end(jobs, job.id, workers, 400.0)  # not when the leases of ten minutes lapse
    assert [worker.deaths for worker in workers] == [[-signal.SIGKILL]] * 2
    assert jobs.view(job.id).request_counts.succeeded == 64
    assert Counter(row.key for row in records(jobs, job.id)) == {f"{n:09d}": 1 for n in range(64)}


def test_sigterm_gives_back_within_seconds(jobs: Jobs, valkey_url: str, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg()] * 64)
    with machine(jobs, valkey_url, seconds=0.05, lease=600.0) as workers:
        job = jobs.new.create("batch", [shard], fake_profile(), "lo")
        while not jobs.queue.broker.depth("vision"):
            time.sleep(0.01)
        time.sleep(0.5)
        workers[0].send(signal.SIGTERM)
        assert workers[0].process.wait(120) == 0
        workers[0].look_after()
        run_to_end(jobs, job.id, workers)  # soon, not when the lease of ten minutes lapses
    assert jobs.view(job.id).request_counts.succeeded == 64
    assert not raw_redis(jobs.queue).keys(keys.in_flight("*"))  # nothing died


def test_rows_of_a_long_chunk_are_not_computed_again(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(handover, "KEEP_SHARE", math.inf)
    shard, profile = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(64)]), one_chunk_profile()
    with FakeMachine(jobs, seconds=0.02, profile=profile) as first:
        job = jobs.new.create("batch", [shard], profile, "lo")
        wait_for(lambda: first.vision.images >= 6)
    done = first.vision.images
    assert done < 64
    # what Redis knew of the chunk is lost too
    server: Any = raw_redis(jobs.queue)
    server.flushdb()
    with FakeMachine(jobs, name="second", profile=profile) as second:
        wait_for_end(jobs, job.id)
    # no row is computed twice
    assert done + second.vision.images == 64
    assert Counter(row.key for row in records(jobs, job.id)) == {f"{n:09d}": 1 for n in range(64)}
    assert not list((tmp_path / "store" / "progress").rglob("*.json"))


def one_chunk_profile() -> Profile:
    """A profile with one chunk a shard, of micro-batches of two images."""
    return FAKE_PROFILE.model_copy(update={"chunk_size": 64})


def test_an_emptied_redis_is_filled_again_at_once(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(40)])
    with FakeMachine(jobs, seconds=0.02) as running:
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        while jobs.view(job.id).request_counts.succeeded < 8:
            time.sleep(0.01)
        raw_redis(jobs.queue).flushall()
        wait_for_end(jobs, job.id, seconds=20)  # less than the review of plans takes to come round
    assert jobs.view(job.id).request_counts.succeeded == 40
    in_flight = 2 * FAKE_PROFILE.chunk_size  # one being computed, one opened ahead
    assert running.vision.images <= 40 + in_flight and running.llm.images <= 40 + in_flight


def test_a_full_disk_is_waited_for(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(10)])
    put, until = Store.put, time.monotonic() + 1.5
    refused: list[str] = []

    def full(self: Store, path: str, data: bytes, private: bool = False) -> None:
        if time.monotonic() < until and "/parts/" in path:
            refused.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, path, data, private)

    monkeypatch.setattr(Store, "put", full)
    with FakeMachine(jobs) as running:
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
    view = jobs.view(job.id)
    assert refused and view.status is JobStatus.COMPLETED
    assert view.request_counts.succeeded == running.vision.images == 10
    assert view.shards.failed == 0


def test_half_written_files_are_removed(store: Store, tmp_path: Path) -> None:
    folder = Path(store.path("tmp"))
    with pytest.raises(OSError):
        store.put(store.path("uploads"), b"x") or store.put(store.path("uploads", "a"), b"x")
    assert not list(folder.iterdir())
    (folder / "left").write_bytes(b"half")
    assert store.sweep(age=60) == 0 and store.sweep(age=-1) == 1
    assert not list(folder.iterdir())


def test_retry_tries_the_failed_images_only(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(6)] + [b"no image"])
    bad = {"000000001", "000000005"}
    run = FakeVision.run

    def flaky(self: FakeVision, batch: list) -> list[Record]:  # type: ignore[type-arg]
        done = run(self, batch)
        return [one.failed("captioner", "Flaky", "a bad day") if one.key in bad else one for one in done]

    monkeypatch.setattr(FakeVision, "run", flaky)
    with FakeMachine(jobs) as running:
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
        assert jobs.view(job.id).request_counts.failed == 3
        before = {row.key: row for row in records(jobs, job.id)}
        bad.clear()
        computed = running.vision.images, running.llm.images
        assert not jobs.retry(job.id).status.final
        with pytest.raises(NotFinished):
            jobs.retry(job.id)
        wait_for_end(jobs, job.id)
        view = jobs.view(job.id)
        assert (view.request_counts.succeeded, view.request_counts.failed) == (6, 1)  # what is no image stays none
        assert (running.vision.images, running.llm.images) == (computed[0] + 2, computed[1] + 2)
        after = {row.key: row for row in records(jobs, job.id)}
        assert all(after[key] == row for key, row in before.items() if row.status is Status.SUCCEEDED)
        raw_redis(jobs.queue).flushall()  # the attempts are in the store
        assert {row.key: row for row in records(jobs, job.id)} == after
        again = jobs.retry(job.id)
        wait_for_end(jobs, again.id)
        assert jobs.view(job.id).request_counts.failed == 1


def test_retry_reads_a_shard_that_was_away(jobs: Jobs, tmp_path: Path) -> None:
    path = tmp_path / "late.tar"
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [str(path)], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
        assert jobs.view(job.id).status is JobStatus.FAILED
        write_shard(path, [jpeg()] * 3)
        jobs.retry(job.id)
        wait_for_end(jobs, job.id)
    assert jobs.view(job.id).status is JobStatus.COMPLETED
    assert jobs.view(job.id).error is None
    assert jobs.view(job.id).request_counts.succeeded == 3


def test_single_images_do_not_starve_a_job(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(8)])
    stop = threading.Event()

    def flood() -> None:
        width = 100
        while not stop.is_set():
            if jobs.queue.broker.depth("vision") < 30:
                for _ in range(10):
                    width += 1
                    jobs.new.create_image(jpeg(width, 10), None, FAKE_PROFILE)
            else:
                time.sleep(0.02)

    with FakeMachine(jobs, seconds=0.005):
        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            time.sleep(0.3)
            job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
            wait_for_end(jobs, job.id)
            waiting = raw_redis(jobs.queue).xlen(keys.stream("vision", "hi"))
        finally:
            stop.set()
            flooding.join()
    assert waiting > 0  # there were always single images in front of it
    assert jobs.view(job.id).request_counts.succeeded == 8


def test_a_cancelled_chunk_is_left_between_two_micro_batches(jobs: Jobs, valkey_url: str, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg()] * 256)
    with machine(jobs, valkey_url, seconds=0.1, lease=30.0) as workers:  # a micro-batch is 3 seconds, the chunk 26
        job = jobs.new.create("batch", [shard], fake_profile(), "lo")
        wait_for(lambda: jobs.view(job.id).status is JobStatus.IN_PROGRESS)
        time.sleep(0.5)
        jobs.cancel(job.id)
        started = time.monotonic()
        run_to_end(jobs, job.id, workers)
        wait_for(lambda: jobs.queue.broker.depth("vision") == 0)
        assert time.monotonic() - started < 24
    counts = jobs.view(job.id).request_counts
    assert counts.total == counts.cancelled == 256


def test_deaths_without_a_single_image_in_flight_poison_a_small_chunk(jobs: Jobs) -> None:
    chunk = next(iter(jobs_chunks(jobs)))
    isolation = Isolation(jobs.queue.isolation_notes, Claim(chunk, "strata:stream:vision:lo", "1-0", deliveries=2))
    assert isolation.begin() == Verdict()
    isolation.prepared()
    assert isolation.begin() == Verdict()  # whoever held it died over something else
    for _ in range(3):
        assert isolation.begin() == Verdict(alone=None)
    assert isolation.begin() == Verdict(alone=None, condemned={0: KILLED})
    raw_redis(jobs.queue).delete(keys.in_flight(chunk.id))
    isolation.mark(0)
    assert isolation.begin() == Verdict(alone=frozenset({0}), deaths={0: 1})
    isolation.mark(0)
    assert isolation.begin() == Verdict(frozenset({0}), {0: 2}, {0: KILLED}, unproved=True)
    # a chunk of many images is not given up because workers were killed while they read it
    large = replace(chunk, images=64, number=1)
    isolation = Isolation(jobs.queue.isolation_notes, Claim(large, "strata:stream:vision:lo", "2-0", deliveries=2))
    for _ in range(4):
        assert not isolation.begin().doubt
    assert isolation.begin().doubt == "4 processes were killed while they worked on 64 images"
    assert isolation.begin() == Verdict(alone=None)  # it is tried once more when its pause is over
    assert isolation.begin().doubt


def jobs_chunks(jobs: Jobs) -> list:  # type: ignore[type-arg]
    request = jobs.new.create_image(jpeg(), None, FAKE_PROFILE)
    return list(request.chunks(request.indexed[0], "vision"))


def test_the_working_copy_of_an_ended_job_expires(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg()])
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
        until = time.monotonic() + 120
        while expiry(jobs, job.id) < 0 and time.monotonic() < until:
            time.sleep(0.02)
    assert expiry(jobs, job.id) > 0
    view = jobs.view(job.id)
    raw_redis(jobs.queue).delete(keys.job(job.id))
    assert jobs.view(job.id) == view


def test_a_shard_that_changed_or_went_is_said_so(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "GONE_SECONDS", 0.5)
    for name in ("changed", "gone"):
        write_shard(tmp_path / f"{name}.tar", [jpeg(20 + n, 10 + len(name)) for n in range(4)])
    job = jobs.new.create("batch", [str(tmp_path / f"{name}.tar") for name in ("changed", "gone")], FAKE_PROFILE, "lo")
    with FakeMachine(jobs, vision=False):
        wait_for(lambda: jobs.queue.broker.depth("vision") == 2)
    write_shard(tmp_path / "changed.tar", [jpeg(90 + n) for n in range(4)])
    (tmp_path / "gone.tar").unlink()
    with FakeMachine(jobs) as running:
        wait_for_end(jobs, job.id)
        assert running.vision.images == 0
        kinds = [row.failure.error_type for row in records(jobs, job.id) if row.failure]
        assert kinds == ["ShardChanged"] * 4 + ["ShardMissing"] * 4
        jobs.retry(job.id)  # a job keeps its index
        wait_for_end(jobs, job.id)
        assert jobs.view(job.id).request_counts.failed == 8
        again = jobs.new.create("batch", job.shards, FAKE_PROFILE, "lo")  # what lies there now is read
        wait_for_end(jobs, again.id)
    counts = jobs.view(again.id).request_counts
    assert (counts.total, counts.succeeded, jobs.view(again.id).shards.failed) == (4, 4, 1)
