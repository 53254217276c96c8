"""The life of jobs against a model of it: any sequence of requests, work, deaths of processes, and losses of Redis.

`python -m tests.jobs.life STEPS` runs at least so many steps on a server of its own, and prints what they were.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from strata.core.profiles import GROUPS
from strata.core.records import Record
from strata.core.requests import JobEnd
from strata.core.schemas import JobStatus, JobView
from strata.core.transitions import TRANSITIONS
from strata.jobs.jobs import Jobs, NotFinished
from strata.jobs.results import Results
from strata.jobs.scheduler import REVIEW_SECONDS, Scheduler
from strata.queue import keys
from strata.queue.broker import Claim
from strata.queue.embedded import EmbeddedServer
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE
from tests.jobs.hand_worker import HandWorker
from tests.jobs.interruption import Countdown, Died, fragile
from tests.raw_redis import raw_redis

SHARDS = ("a.tar", "b.tar")
MOST_JOBS = 4
MOST_TURNS = 60  # of a scheduler and a worker, after which every job must have ended
deaths = st.one_of(st.none(), st.integers(0, 40))  # how many steps a process has left
groups = st.sampled_from(GROUPS)


class InlineExecutor(Executor):
    """Runs each call at once, so that a run can be repeated; a death ends the caller too."""

    def submit(self, act: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The result of the call, which is complete."""
        done: Future[Any] = Future()
        try:
            done.set_result(act(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class FlakyWorker(HandWorker):
    """A worker for which one image of the second chunk of each shard fails at the first attempt."""

    def write(self, claim: Claim, failed: int = 0) -> None:
        """Write the part of a claimed chunk: a function of the chunk, as the parts of real workers are."""
        super().write(claim, int(claim.chunk.number == 1 and claim.chunk.attempt == 0))


@dataclass
class Process:
    """A scheduler, or a process of the API, that can die before any call of its queue or its store."""

    jobs: Jobs
    countdown: Countdown
    scheduler: Scheduler | None = None


@dataclass
class Life:
    """What the model knows of a job: its last status in the events, its end, and what it was told."""

    status: JobStatus = JobStatus.VALIDATING
    end: JobView | None = None
    rows: int = 0
    cancelled: bool = False  # the request was answered
    errors: list[str] = field(default_factory=list)
    event: str = "0-0"
    lost: bool = False  # Redis was emptied since the last event


class LifeMachine(RuleBasedStateMachine):
    """Runs each step on real jobs. queue: set by a derived class; counts: of steps, over all runs."""

    queue: Queue
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="strata-life-")
        self.store = Store(self.folder.name)
        self.jobs = Jobs(self.queue, self.store)
        self.worker, self.late = FlakyWorker(self.jobs, images=6), FlakyWorker(self.jobs, "late", images=6)
        self.lives: dict[str, Life] = {}
        self.held: list[Claim] = []
        self.retried = False
        self.schedulers = [self.process(True) for _ in range(2)]

    @initialize()
    def empty(self) -> None:
        raw_redis(self.queue).flushall()
        self.schedulers = [self.process(True) for _ in range(2)]

    def process(self, schedules: bool = False) -> Process:
        countdown = Countdown()
        queue, store = fragile(self.queue, countdown), fragile(self.store, countdown)
        if not schedules:
            jobs = Jobs(queue, store)
            jobs.new._pool = InlineExecutor()  # type: ignore[assignment]
            return Process(jobs, countdown)
        scheduler = Scheduler(queue, store, high_water=100)
        owners: tuple[Any, ...] = (
            scheduler.finalizer,
            scheduler.images,
            scheduler.review.listing,
            scheduler.billing,
            scheduler.jobs,
        )
        for owner in owners:
            owner._pool = InlineExecutor()
        scheduler.finalizer._quick_pool = InlineExecutor()  # type: ignore[assignment]
        return Process(scheduler.jobs, countdown, scheduler)

    def count(self, name: str) -> None:
        self.counts[name] += 1

    # what processes do

    @rule(which=st.integers(0, 1), left=deaths, review=st.booleans(), takes_over=st.booleans())
    def tick(self, which: int, left: int | None, review: bool, takes_over: bool) -> None:
        """A scheduler's turn; it may die in it, and a new one takes its place."""
        scheduler, countdown = self.schedulers[which].scheduler, self.schedulers[which].countdown
        assert scheduler is not None
        if takes_over:
            raw_redis(self.queue).delete(keys.SCHEDULER)
        if review:
            scheduler.reviewed = -REVIEW_SECONDS
            for plan in scheduler.plans.values():
                plan.reviewed = -REVIEW_SECONDS
        self.count("ticks")
        try:
            with countdown.dying(left):
                scheduler.tick()
        except Died:
            self.count("deaths of a scheduler")
            self.schedulers[which] = self.process(True)
        # an error would be shown on a job, and the job tried again later
        assert not scheduler.troubles._found

    def request(self, left: int | None, act: Callable[[Jobs], JobView | None]) -> JobView | None:
        """A request to the API, whose process may die; None if it did."""
        process = self.process()
        try:
            with process.countdown.dying(left):
                return act(process.jobs)
        except Died:
            self.count("deaths of the API")
            return None

    @precondition(lambda self: len(self.lives) < MOST_JOBS)
    @rule(shards=st.lists(st.sampled_from(SHARDS), min_size=1, max_size=2, unique=True), left=deaths)
    def create(self, shards: list[str], left: int | None) -> None:
        def act(jobs: Jobs) -> JobView:
            return jobs.view(jobs.new.create("batch", shards, FAKE_PROFILE, "lo").id)

        self.count("jobs")
        view = self.request(left, act)
        if view is not None:
            self.lives[view.id] = Life()

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), left=deaths)
    def cancel(self, data: st.DataObject, left: int | None) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.lives)))
        view = self.request(left, lambda jobs: jobs.cancel(job_id))
        self.count("cancellations")
        if view is not None and view.status in (JobStatus.CANCELLING, JobStatus.CANCELLED):
            self.lives[job_id].cancelled = True

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), left=deaths)
    def retry(self, data: st.DataObject, left: int | None) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.lives)))
        life = self.lives[job_id]
        self.count("retries")
        self.retried = True
        gone = life.end is not None and life.end.status is JobStatus.CANCELLED
        try:
            answered = self.request(left, lambda jobs: jobs.retry(job_id))
        except NotFinished:
            assert life.end is None or gone
            return
        # it lives again, or the process died before that was decided; what is cancelled stays so
        assert answered is None or not gone
        if not gone:
            life.end, life.errors = None, []

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """A worker cannot compute a chunk of a job."""
        job_id = data.draw(st.sampled_from(sorted(self.lives)))
        life, error = self.lives[job_id], f"error {self.counts['failures']}"
        self.count("failures")
        before = self.jobs.status(job_id)
        if self.jobs.set_status(job_id, JobStatus.FAILED, error=error) is JobStatus.FAILED and before != "failed":
            life.errors = [error]

    @rule(group=groups, count=st.integers(1, 4))
    def work(self, group: str, count: int) -> None:
        self.counts["chunks"] += self.worker.work(group, count)

    @rule(which=st.integers(0, 1), written=st.booleans(), left=deaths, slow=groups)
    def turn(self, which: int, written: bool, left: int | None, slow: str) -> None:
        """Some work in each group, each after a scheduler's turn; at the end it may die, while a worker is slow."""
        for group in GROUPS:
            self.tick(which, None, False, True)
            if group == slow:
                self.hold(group, written)
            self.work(group, 2)
        self.tick(which, left, False, False)

    @rule(group=groups, written=st.booleans())
    def hold(self, group: str, written: bool) -> None:
        """A worker claims a chunk and is slow; it may have written the part."""
        claim = self.late.claim(group)
        if claim is not None:
            self.held.append(claim)
            if written:
                self.late.write(claim)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish_late(self, data: st.DataObject) -> None:
        """A slow worker writes its part and finishes, whatever has become of the jobs."""
        claim = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.count("late results")
        self.late.write(claim)
        self.late.finish(claim)

    @rule(group=groups)
    def reclaim(self, group: str) -> None:
        for claim in self.worker.broker.reclaim(group, self.worker.name, 0.0, 10):
            self.worker.write(claim)
            self.worker.finish(claim)

    @rule(chance=st.integers(0, 7))
    def lose_redis(self, chance: int) -> None:
        if chance < 7:  # else no job would come far
            return
        self.count("losses of Redis")
        raw_redis(self.queue).flushall()
        for life in self.lives.values():
            # a failure that was not shown yet may be lost, and its job goes on
            life.event, life.status, life.errors, life.lost = "0-0", JobStatus.VALIDATING, [], True

    # what must hold

    @invariant()
    def statuses_follow_the_table(self) -> None:
        self.count("steps")
        for job_id, life in self.lives.items():
            for event, fields in self.queue.job_events.after(job_id, life.event):
                life.event = event
                if fields["event"] != "status":
                    continue
                after = JobStatus(fields["status"])
                # an ended job has one more event when its end is written; a job of which Redis had no copy is retried
                known = after in TRANSITIONS[life.status] or (after is life.status and after.final)
                known = known or (life.lost and after is JobStatus.VALIDATING)
                assert known, f"{job_id}: {life.status} to {after}"
                life.status, life.lost = after, False

    @invariant()
    def ends_stay(self) -> None:
        for job_id, life in self.lives.items():
            view = self.jobs.view(job_id)
            counts = view.request_counts
            done = counts.succeeded + counts.filtered + counts.failed
            assert counts.total == done + counts.cancelled + counts.queued + counts.processing, view
            if not view.status.final:
                assert life.end is None, (life.end, view)
                continue
            if life.end is None:
                life.end, life.rows = view, done
                self.count(view.status)
                self.check_end(job_id, life, view)
            # neither the end nor the number of its rows changes, whatever else happens
            assert view == life.end, (view, life.end)
            assert len(self.rows(job_id, view)) == life.rows

    def check_end(self, job_id: str, life: Life, view: JobView) -> None:
        """A job has just ended: its end in the store is the same, and its rows are its counts."""
        end = self.store.parse_job_file(job_id, "end", JobEnd)
        assert end is not None and JobView.model_validate(dict(end)) == view
        rows = Counter(str(row.status) for row in self.rows(job_id, view))
        counts = view.request_counts
        assert sum(rows.values()) == counts.succeeded + counts.failed, view
        # a later attempt at a chunk counts for every job: after a retry of another job a failed row may have succeeded
        if not self.retried:
            assert (rows["succeeded"], rows["failed"]) == (counts.succeeded, counts.failed), view
        assert view.status is JobStatus.CANCELLED or not life.cancelled
        if view.status is JobStatus.COMPLETED:
            assert counts.cancelled == 0 and counts.total > 0
        if view.status is JobStatus.FAILED and life.errors:
            assert view.error == life.errors[0]

    def rows(self, job_id: str, view: JobView) -> list[Record]:
        request, summaries = self.jobs.request(job_id), self.jobs.summaries(job_id)
        results = Results(request, summaries, self.store, view.status, self.jobs.written(view))
        return [row for row in results.page(None, 1000).rows if isinstance(row, Record)]

    def teardown(self) -> None:
        """Every job ends if a scheduler and a worker go on, also those whose creation was never answered."""
        if not self.lives:
            self.folder.cleanup()
            return
        raw_redis(self.queue).delete(keys.SCHEDULER)
        last = self.process(True).scheduler
        assert last is not None
        for _ in range(MOST_TURNS):
            last.tick()
            self.worker.work_all()
            for group in GROUPS:
                self.reclaim(group)
            self.statuses_follow_the_table()
            self.ends_stay()
            if all(life.end for life in self.lives.values()) and not self.open_jobs():
                break
        else:
            raise AssertionError(f"stuck: {self.open_jobs()}, {[self.jobs.view(job_id) for job_id in self.lives]}")
        self.folder.cleanup()

    def open_jobs(self) -> list[str]:
        """The jobs that have not ended, without marks of jobs whose creator died before it wrote the request."""
        found = self.store.open_jobs()
        return [job_id for job_id in found if self.store.read_job_file(job_id, "request") is not None]


def run_lives(queue: Queue, examples: int, steps: int) -> Counter[str]:
    """Run so many lives with at most so many steps each; returns the numbers of what happened."""
    counts: Counter[str] = Counter()
    machine = type("LifeMachineOnServer", (LifeMachine,), {"queue": queue, "counts": counts})
    checks = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_machine(machine, settings=checks)
    return counts


def main(steps: int) -> None:
    """Run lives until there were so many steps."""
    logging.disable(logging.WARNING)
    total: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        queue = Queue(server.url)
        while total["steps"] < steps:
            total += run_lives(queue, 20, 50)
            print(f"{total['steps']} steps, {time.monotonic() - started:.0f} s", flush=True)
    print(", ".join(f"{count} {name}" for name, count in sorted(total.items())))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
