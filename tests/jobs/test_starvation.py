"""No job waits for another one's work: neither for room in full streams that it does not need, nor for a big plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from strata.core.chunks import Chunk
from strata.core.records import FailureNote
from strata.core.requests import JobRequest, ShardSummary
from strata.core.schemas import JobStatus
from strata.jobs import plans
from strata.jobs import scheduler as scheduler_module
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from tests.jobs.hand_worker import HandWorker, batch


def fail_next_shard(worker: HandWorker) -> None:
    """Index the next shard as one that cannot be read."""
    claim = worker.claim("index")
    assert claim is not None
    failure = FailureNote(stage="index", error_type="SourceError", detail="neither a file nor a folder")
    summary = ShardSummary(shard=claim.chunk.shard, failure=failure)
    assert worker.broker.finish(claim, worker.name, summary.model_dump_json(), summary.counts)


def ticks_until_end(scheduler: Scheduler, jobs: Jobs, job_id: str, most: int = 500) -> int:
    """How many ticks a job takes to its end, while no worker works. Raises TimeoutError."""
    for number in range(1, most + 1):
        scheduler.tick()
        # its parts are counted in a thread
        for future in [*scheduler.finalizer._counting.values()]:
            future.exception(60)
        if jobs.view(job_id).status.final:
            return number
    raise TimeoutError(jobs.view(job_id).model_dump_json())


def computed(scheduler: Scheduler, jobs: Jobs, shard: str, worker: HandWorker) -> None:
    """Let a job compute all parts of a shard."""
    job = batch(jobs, shard)
    for _ in range(500):
        scheduler.tick()
        worker.work_all()
        if jobs.view(job.id).status.final:
            return
    raise TimeoutError(jobs.view(job.id).model_dump_json())


def test_jobs_that_need_no_worker_end_while_the_streams_are_full(jobs: Jobs) -> None:
    scheduler, worker = Scheduler(jobs.queue, jobs.store, high_water=2), HandWorker(jobs, images=40)
    computed(scheduler, jobs, "known.tar", worker)
    big = batch(jobs, "big.tar")
    scheduler.tick()
    worker.work("index")
    scheduler.tick()
    assert jobs.queue.broker.depth("vision") == 2
    # no shard of one job can be read; all parts of the other exist
    unreadable = batch(jobs, "a.tar")
    scheduler.tick()
    fail_next_shard(worker)
    reused = batch(jobs, "known.tar")
    scheduler.tick()
    worker.work("index")
    ticks_until_end(scheduler, jobs, unreadable.id)
    ticks_until_end(scheduler, jobs, reused.id)
    view = jobs.view(unreadable.id)
    assert (view.status, view.error) == (
        JobStatus.FAILED,
        "no shard could be read: a.tar: neither a file nor a folder",
    )
    assert jobs.view(reused.id).request_counts.succeeded == 40
    assert jobs.view(big.id).status is JobStatus.IN_PROGRESS and jobs.queue.broker.depth("vision") == 2


@pytest.mark.parametrize("copies", [0, 2])
def test_a_big_plan_is_worked_on_in_slices_and_others_between_them(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, copies: int
) -> None:
    scheduler, worker = Scheduler(jobs.queue, jobs.store, high_water=100), HandWorker(jobs, images=160)
    computed(scheduler, jobs, "big.tar", worker)
    # a tick is over after the first job that it has advanced
    monkeypatch.setattr(scheduler_module, "TICK_SECONDS", 0.0)
    monkeypatch.setattr(plans, "SLICE_CHUNKS", 2)
    sizes, asked = Counter[int](), scheduler.parts.written

    def written(request: JobRequest, summary: ShardSummary, numbers: Iterable[int] | None = None) -> object:
        if numbers is not None:
            sizes[len(list(numbers))] += 1
        return asked(request, summary, numbers)

    monkeypatch.setattr(scheduler.parts, "written", written)
    compared, missing = Counter[str](), scheduler.parts.missing

    def compare(
        request: JobRequest, summary: ShardSummary, numbers: Iterable[int] | None = None
    ) -> tuple[JobRequest, list[Chunk]]:
        assert numbers is not None and len(list(numbers)) <= 2
        compared[request.id] += 1
        return missing(request, summary, numbers)

    monkeypatch.setattr(scheduler.parts, "missing", compare)
    names = ["big.tar", *(f"{number}.tar" for number in range(copies))]
    monkeypatch.setattr("tests.jobs.hand_worker.identity_of", lambda _: b"big.tar".hex()[:16])
    big, small = batch(jobs, *names), batch(jobs, "small.tar")
    for _ in range(2):
        scheduler.tick()
    worker.work("index", len(names))
    fail_next_shard(worker)
    # of each two ticks one is the small job's
    assert ticks_until_end(scheduler, jobs, small.id) <= 12
    assert jobs.view(small.id).status is JobStatus.FAILED and compared[big.id] <= 12
    ticks_until_end(scheduler, jobs, big.id)
    assert jobs.view(big.id).request_counts.succeeded == 160 * len(names)
    assert compared == {big.id: 20}  # 40 chunks
    assert sizes == ({2: 20 * copies} if copies else {})
