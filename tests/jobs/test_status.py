"""The status of a job under races: a cancellation at any moment, a death between any two steps, a damaged job."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from strata.core.chunks import Chunk
from strata.core.records import Record
from strata.core.requests import JobEnd, JobRequest, ShardSummary
from strata.core.schemas import JobStatus, JobView
from strata.jobs import feeder, review
from strata.jobs.jobs import Jobs, NotFinished
from strata.jobs.results import Results
from strata.jobs.scheduler import Scheduler
from strata.queue import JobFilter, keys
from strata.store.parts import PartsOf
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from tests.jobs.hand_worker import HandWorker, batch, identity_of
from tests.jobs.interruption import Died, mortal_scheduler
from tests.raw_redis import raw_redis


@pytest.fixture
def scheduler(jobs: Jobs) -> Scheduler:
    """A scheduler whose ticks are called by hand."""
    return Scheduler(jobs.queue, jobs.store, high_water=100)


def turns(scheduler: Scheduler, jobs: Jobs, job_id: str, worker: HandWorker | None = None, most: int = 500) -> JobView:
    """Let the scheduler and the worker take turns until the job has ended. Raises TimeoutError."""
    for _ in range(most):
        scheduler.tick()
        if worker is not None:
            worker.work_all()
        view = jobs.view(job_id)
        if view.status.final:
            return view
    raise TimeoutError(jobs.view(job_id).model_dump_json())


def rows_of(jobs: Jobs, job_id: str) -> list[Record]:
    """A job's results, as the API reads them."""
    view = jobs.view(job_id)
    results = Results(jobs.request(job_id), jobs.summaries(job_id), jobs.store, view.status, jobs.written(view))
    return [row for row in results.page(None, 10_000).rows if isinstance(row, Record)]


def end_of(jobs: Jobs, job_id: str) -> JobEnd:
    """The end of a job in the store."""
    text = jobs.store.read_job_file(job_id, "end")
    assert text is not None
    return JobEnd.model_validate_json(text)


def check_end(jobs: Jobs, job_id: str, status: JobStatus) -> JobView:
    """Check that a job has ended so in Redis and in the store, and that its counts are those of its results."""
    view, end = jobs.view(job_id), end_of(jobs, job_id)
    assert view.status is end.status is status
    assert view.request_counts == end.request_counts
    rows = rows_of(jobs, job_id)
    assert len(rows) == view.request_counts.succeeded + view.request_counts.failed
    assert job_id not in jobs.store.open_jobs() and not jobs.queue.job_states.is_active(job_id)
    # the same from the store alone
    raw_redis(jobs.queue).flushall()
    assert jobs.view(job_id) == JobView.model_validate(view.model_dump())
    assert rows_of(jobs, job_id) == rows
    return view


def before(monkeypatch: pytest.MonkeyPatch, target: object, name: str, act: Callable[[], object]) -> None:
    """Call act once, just before the next call of a method: what another process does in this moment."""
    method, left = getattr(target, name), [act]

    def call(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()()
        return method(*args, **kwargs)

    monkeypatch.setattr(target, name, call)


# a cancellation at any moment


def test_a_cancellation_during_a_tick_is_not_overwritten(
    jobs: Jobs, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = batch(jobs, "a.tar"), HandWorker(jobs)
    scheduler.tick()
    worker.work("index")
    # the scheduler has read `validating`, and is about to set `in_progress`
    before(monkeypatch, scheduler.jobs, "set_status", lambda: jobs.cancel(job.id))
    scheduler.tick()
    assert jobs.status(job.id) is JobStatus.CANCELLING
    assert jobs.queue.broker.depth("vision") == 0
    assert turns(scheduler, jobs, job.id).status is JobStatus.CANCELLED
    check_end(jobs, job.id, JobStatus.CANCELLED)


@pytest.mark.parametrize(
    ("owner", "method"),
    [("finalizer", "begin"), ("finalizer", "advance"), ("jobs", "set_status"), ("jobs", "write_end")],
)
def test_a_cancellation_during_the_end_has_one_outcome(
    jobs: Jobs, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, owner: str, method: str
) -> None:
    job, worker = batch(jobs, "a.tar"), HandWorker(jobs)
    scheduler.tick()
    worker.work("index")
    scheduler.tick()
    worker.work_all()
    before(monkeypatch, getattr(scheduler, owner), method, lambda: jobs.cancel(job.id))
    view = turns(scheduler, jobs, job.id)
    # once `completed` was decided, a cancellation changes nothing
    expected = JobStatus.COMPLETED if method == "write_end" else JobStatus.CANCELLED
    assert view.status is expected
    assert check_end(jobs, job.id, expected).request_counts.succeeded == 10


def test_the_counts_of_a_cancelled_job_are_its_results(jobs: Jobs, scheduler: Scheduler) -> None:
    job, worker, slow = batch(jobs, "a.tar"), HandWorker(jobs), HandWorker(jobs, "slow")
    scheduler.tick()
    worker.work("index")
    scheduler.tick()
    worker.work("vision", 3)
    worker.work("llm", 1)
    # one chunk was written but is not finished yet, and one is in flight
    written, in_flight = slow.claim("llm"), slow.claim("llm")
    assert written is not None and in_flight is not None
    slow.write(written)
    jobs.cancel(job.id)
    assert turns(scheduler, jobs, job.id).request_counts.succeeded == 8
    # what is finished and written after the end is not the job's
    slow.finish(written)
    slow.write(in_flight)
    slow.finish(in_flight)
    view = check_end(jobs, job.id, JobStatus.CANCELLED)
    assert (view.request_counts.total, view.request_counts.succeeded, view.request_counts.cancelled) == (10, 8, 2)
    assert end_of(jobs, job.id).written == {identity_of("a.tar"): [0, 1]}
    # nor is it part of a snapshot or an export of the job
    assert [part.number for part in PartsOf(jobs.store).sources([job.id])] == [0, 1]


def test_a_cancellation_survives_the_loss_of_redis(jobs: Jobs, scheduler: Scheduler) -> None:
    job, worker = batch(jobs, "a.tar"), HandWorker(jobs)
    scheduler.tick()
    worker.work("index")
    scheduler.tick()
    worker.work("vision", 1)
    worker.work("llm", 1)
    assert jobs.cancel(job.id).status is JobStatus.CANCELLING
    raw_redis(jobs.queue).flushall()
    assert jobs.view(job.id).status is JobStatus.CANCELLING
    assert turns(scheduler, jobs, job.id, worker).request_counts.succeeded == 4
    check_end(jobs, job.id, JobStatus.CANCELLED)
    with pytest.raises(NotFinished):
        jobs.retry(job.id)


# failures


def test_the_first_failure_of_a_job_is_kept(jobs: Jobs, scheduler: Scheduler) -> None:
    job = batch(jobs, "a.tar")
    assert jobs.set_status(job.id, JobStatus.FAILED, error="the first") is JobStatus.FAILED
    assert jobs.set_status(job.id, JobStatus.FAILED, error="the second") is JobStatus.FAILED
    assert jobs.view(job.id).status is JobStatus.FINALIZING  # until its end is written
    assert turns(scheduler, jobs, job.id).error == "the first"
    assert check_end(jobs, job.id, JobStatus.FAILED).error == "the first"


def test_a_failure_does_not_overwrite_a_cancellation(jobs: Jobs, scheduler: Scheduler) -> None:
    job = batch(jobs, "a.tar")
    jobs.cancel(job.id)
    assert jobs.set_status(job.id, JobStatus.FAILED, error="too late") is JobStatus.CANCELLING
    assert turns(scheduler, jobs, job.id).error is None
    check_end(jobs, job.id, JobStatus.CANCELLED)


def test_a_job_that_lives_again_does_not_expire(jobs: Jobs, scheduler: Scheduler) -> None:
    job, worker = batch(jobs, "a.tar"), HandWorker(jobs)
    scheduler.tick()
    worker.work("index")
    scheduler.tick()
    worker.work("vision", 9)
    worker.work("llm", 9, failed=1)
    turns(scheduler, jobs, job.id)
    server: Any = raw_redis(jobs.queue)
    assert server.ttl(keys.events(job.id)) > 0
    jobs.retry(job.id)
    names = [name for name in server.keys("*") if job.id in name]
    assert keys.events(job.id) in names and all(server.ttl(name) == -1 for name in names)
    view = turns(scheduler, jobs, job.id, worker)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (10, 0)
    check_end(jobs, job.id, JobStatus.COMPLETED)


# a scheduler that dies anywhere


@pytest.mark.parametrize("how", ["completed", "cancelled", "failed"])
def test_the_next_scheduler_goes_on_after_a_death_at_any_step_of_the_end(jobs: Jobs, how: str) -> None:
    worker, deaths = HandWorker(jobs, images=4), 0
    for left in range(200):
        # everything is computed, or the job is to end before that
        job = batch(jobs, f"{left}.tar")
        first = Scheduler(jobs.queue, jobs.store, high_water=100)
        for group in ("index", "vision", "llm"):
            first.tick()
            worker.work(group)
        if how == "cancelled":
            jobs.cancel(job.id)
        if how == "failed":
            jobs.set_status(job.id, JobStatus.FAILED, error="why")
        raw_redis(jobs.queue).delete(keys.SCHEDULER)
        dying, countdown = mortal_scheduler(jobs.queue, jobs.store)
        try:
            with countdown.dying(left):
                turns(dying, jobs, job.id)
            break  # it did not die: every step was tried
        except Died:
            deaths += 1
        # after every second death Redis is lost too
        seen = jobs.view(job.id).status
        raw_redis(jobs.queue).flushall() if left % 2 else raw_redis(jobs.queue).delete(keys.SCHEDULER)
        view = turns(Scheduler(jobs.queue, jobs.store, high_water=100), jobs, job.id, worker)
        # what was shown as ended stays so; a failure that was not shown yet may be lost with Redis
        assert view.status is seen if seen.final else view.status is JobStatus(how) or (how == "failed" and left % 2)
        check_end(jobs, job.id, view.status)
    assert deaths > 10


# faults of one job do not stop the others


def test_an_id_without_a_request_is_removed_once(
    jobs: Jobs, scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.queue.job_states.activate("0" * 22)  # sorts before every job
    job, worker = batch(jobs, "a.tar"), HandWorker(jobs)
    with caplog.at_level(logging.WARNING):
        view = turns(scheduler, jobs, job.id, worker)
    assert view.status is JobStatus.COMPLETED
    assert jobs.queue.job_states.active() == set()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"job {'0' * 22} is not planned: neither Redis nor the store has its request"
    ]


def test_a_job_whose_files_are_damaged_does_not_stop_others(jobs: Jobs, scheduler: Scheduler) -> None:
    damaged, good, worker = batch(jobs, "a.tar"), batch(jobs, "b.tar"), HandWorker(jobs)
    foreign = "f" * 22  # as an id it would be of the year 10889, for which Python has no date
    for job_id in (damaged.id, foreign):
        jobs.store.put(jobs.store.path("jobs", job_id, "request.json"), b'{"id": ')
    raw_redis(jobs.queue).flushall()
    assert turns(scheduler, jobs, good.id, worker).status is JobStatus.COMPLETED
    for job_id in (damaged.id, foreign):
        assert "request.json" in (jobs.view(job_id).error or "")


def test_a_job_whose_planning_raises_says_so_and_is_tried_again(
    jobs: Jobs, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, worker = batch(jobs, "bad.tar"), batch(jobs, "good.tar"), HandWorker(jobs)
    original = scheduler.parts.missing

    def fails(request: JobRequest, summary: ShardSummary, numbers: Iterable[int]) -> Any:
        if request.id == bad.id:
            raise PermissionError(13, "Permission denied", "/srv/secret/place")
        return original(request, summary, numbers)

    monkeypatch.setattr(scheduler.parts, "missing", fails)
    assert turns(scheduler, jobs, good.id, worker).status is JobStatus.COMPLETED
    waiting = jobs.view(bad.id).waiting
    assert waiting is not None and waiting.attempts == 1
    assert (waiting.stage, waiting.reason) == ("scheduler", "PermissionError: Permission denied")
    # it is not tried again before its pause is over
    before_pause = waiting
    scheduler.tick()
    assert jobs.view(bad.id).waiting == before_pause
    # after the pause it goes on, and nothing that was to be queued is lost
    monkeypatch.undo()
    monkeypatch.setattr(scheduler.troubles, "is_due", lambda *_: True)
    assert turns(scheduler, jobs, bad.id, worker).waiting is None
    check_end(jobs, bad.id, JobStatus.COMPLETED)


def test_one_tick_restores_and_compares_a_bounded_number(
    jobs: Jobs, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review, "RESTORED_JOBS", 2)
    monkeypatch.setattr(feeder, "COMPARED_SHARDS", 3)
    ids = [batch(jobs, *(f"{shard}.tar" for shard in range(8))).id for _ in range(5)]
    raw_redis(jobs.queue).flushall()
    restored = []
    for _ in range(3):
        scheduler.tick()
        restored.append(len(jobs.queue.job_states.active()))
    assert restored == [2, 4, 5]
    scheduler.tick()
    HandWorker(jobs).work("index", 40)
    listed, method = Counter[str](), scheduler.parts.missing

    def missing(request: JobRequest, summary: ShardSummary, numbers: Iterable[int]) -> tuple[JobRequest, list[Chunk]]:
        listed[summary.shard] += 1
        return method(request, summary, numbers)

    monkeypatch.setattr(scheduler.parts, "missing", missing)
    scheduler.tick()
    assert listed == dict.fromkeys(("0.tar", "1.tar", "2.tar"), len(ids))


def test_a_watcher_sees_the_end(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [jpeg()])
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
    events = [fields for _, fields in jobs.queue.job_events.after(job.id, "0-0") if fields["event"] == "status"]
    assert [fields["status"] for fields in events] == ["in_progress", "finalizing", "completed", "completed"]


@pytest.mark.parametrize(("field", "value"), [("status", "later"), ("request", "{"), ("request", '{"id": "a1"}')])
@pytest.mark.parametrize("kind", ["batch", "image"])
def test_a_working_copy_that_cannot_be_read_stops_only_its_job(
    jobs: Jobs, scheduler: Scheduler, caplog: pytest.LogCaptureFixture, field: str, value: str, kind: str
) -> None:
    worker = HandWorker(jobs)
    bad = batch(jobs, "a.tar") if kind == "batch" else jobs.new.create_image(jpeg(), None, FAKE_PROFILE)
    good = batch(jobs, "b.tar")
    raw_redis(jobs.queue).hset(keys.job(bad.id), field, value)
    raw_redis(jobs.queue).hset(keys.ACTIVE, "a:events", "batch:1:")
    raw_redis(jobs.queue).sadd(keys.CHANGED, bad.id, "a:events", "no job's id")
    raw_redis(jobs.queue).set(keys.worker("later"), '{"name": "later", "version": 99}')
    raw_redis(jobs.queue).sadd(keys.WORKERS, "later")
    assert turns(scheduler, jobs, good.id, worker).status is JobStatus.COMPLETED
    views, _ = scheduler.review.listing.page(JobFilter(), 10)
    assert good.id in {view.id for view in views}
    assert "cannot be read" in (jobs.view(bad.id).error or "")
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) <= 4, lines
