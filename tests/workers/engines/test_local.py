"""`strata run --engine local`: a job without a server, a queue or Redis."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from strata.core import Cancellation, JobEnd, JobRun, JobSample, JobStatus, load_profile
from strata.errors import Conflict, NotFound
from strata.estimates import NoSample, Workers, estimate
from strata.jobs.jobs import Jobs
from strata.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, wait_for, wait_for_end
from tests.service import write_profile
from tests.workers.engines.runs import options, rows_of, run_here, settings_of, shards_of, started
from workers.engines.job import Asked, known_job
from workers.engines.start import computed, opened
from workers.retry import WorkInterrupted


def test_a_run_describes_every_image_once_and_a_service_reads_it(jobs: Jobs, tmp_path: Path) -> None:
    settings, shards = settings_of(tmp_path), shards_of(tmp_path / "shards", 2, 300)
    request, view = run_here(settings, shards, options())
    # a bad image is a failed row
    assert view.status is JobStatus.COMPLETED
    assert (view.request_counts.total, view.request_counts.succeeded, view.request_counts.failed) == (600, 598, 2)
    store = Store(settings.store_uri)
    assert Counter(key for key, _ in rows_of(store, request)) == {f"{i:09d}": 1 for i in range(600)}
    # its files are those of any job that has ended
    assert store.parse_job_file(request.id, "end", JobEnd) is not None
    assert store.open_jobs() == [] and store.parse_job_file(request.id, "run", JobRun) is None
    # a service over the same store, whose Redis has never seen the job
    seen = Jobs(jobs.queue, store).view(request.id)
    assert seen.status is JobStatus.COMPLETED and seen.request_counts == view.request_counts


def test_rows_and_parts_are_those_of_the_service(jobs: Jobs, tmp_path: Path) -> None:
    shards = shards_of(tmp_path / "shards", 2, 15)
    with FakeMachine(jobs):
        job = jobs.new.create("batch", shards, FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
    write_profile(tmp_path)
    settings = settings_of(tmp_path / "run", profiles_dir=tmp_path)
    groups: tuple[str, dict[str, object]] = ("tests.workers.engines.runs:fake_machine_group", {})
    request, _ = run_here(settings, shards, options(groups=groups))
    here = Store(settings.store_uri)
    rows = rows_of(jobs.store, job)
    assert rows == rows_of(here, request) and len(rows) == 30
    assert sorted(here.find("parts")) == sorted(jobs.store.find("parts"))


def test_a_second_job_computes_nothing_and_groups_in_turn_give_the_same(tmp_path: Path) -> None:
    settings, shards = settings_of(tmp_path / "a"), shards_of(tmp_path / "shards", 1, 300)
    request, _ = run_here(settings, shards, options())
    _, again = run_here(settings, shards, options())
    assert again.groups["llm"].reused == again.groups["vision"].reused == 300
    turns = settings_of(tmp_path / "b")
    in_turn, view = run_here(turns, shards, options(in_turn=True))
    assert view.status is JobStatus.COMPLETED
    rows = rows_of(Store(settings.store_uri), request)
    assert rows == rows_of(Store(turns.store_uri), in_turn) and len(rows) == 300


def test_a_run_that_was_ended_goes_on_with_what_lacks(tmp_path: Path) -> None:
    settings, shards = settings_of(tmp_path), shards_of(tmp_path / "shards", 3, 256)
    how = options(seconds=0.002)
    job = started(settings, shards, how)

    # Ctrl-C when the first chunk of the last group has its part
    def interrupt() -> None:
        wait_for(lambda: job.counts.numbers["llm:chunks"])
        job.stop.set()

    threading.Thread(target=interrupt).start()
    with pytest.raises(WorkInterrupted):
        computed(job, settings, how)
    store = Store(settings.store_uri)
    assert store.parse_job_file(job.request.id, "end", JobEnd) is None and store.open_jobs() == [job.request.id]
    computed_before = job.counts.numbers["llm:images"]
    assert computed_before < 768
    request, view = run_here(settings, job.request.id, options())
    assert view.groups["llm"].reused >= computed_before
    assert view.status is JobStatus.COMPLETED
    assert Counter(key for key, _ in rows_of(store, request)) == {f"{i:09d}": 1 for i in range(768)}


def test_a_run_shows_itself_in_the_store_and_can_be_cancelled(jobs: Jobs, tmp_path: Path) -> None:
    settings, shards = settings_of(tmp_path), shards_of(tmp_path / "shards", 2, 256)
    how, store = options(seconds=0.02), Store(settings.store_uri)
    job = started(settings, shards, how)
    thread = threading.Thread(target=computed, args=(job, settings, how))
    thread.start()
    wait_for(lambda: store.parse_job_file(job.request.id, "run", JobRun))
    # a service does not take the job over; it shows it, and passes the cancellation on
    service = Jobs(jobs.queue, store)
    service.restore(job.request.id)
    assert service.status(job.request.id) is None
    assert service.view(job.request.id).id == job.request.id
    assert service.cancel(job.request.id).status is JobStatus.CANCELLING
    assert store.parse_job_file(job.request.id, "cancel", Cancellation) is not None
    thread.join()
    view = service.view(job.request.id)
    assert view.status is JobStatus.CANCELLED and view.request_counts.cancelled > 0
    with pytest.raises(Conflict, match="was cancelled"):
        known_job(store, job.request.id)


def test_a_job_that_is_not_there_is_told(tmp_path: Path) -> None:
    store = Store(settings_of(tmp_path).store_uri)
    for name in ("none", "0" * 22):
        with pytest.raises(NotFound, match="no job"):
            known_job(store, name)


def test_a_run_of_a_sample_tells_what_all_would_take(tmp_path: Path) -> None:
    settings, shards = settings_of(tmp_path), shards_of(tmp_path / "shards", 3, 100)
    profile = load_profile(settings.profile, settings.profiles_dir)
    sample, how = JobSample(images=80, seed=1), options(seconds=0.002)
    job = opened(settings, Asked(shards, profile, {}, None, sample), how)
    view = computed(job, settings, how)
    assert view.status is JobStatus.COMPLETED and view.request_counts.total == 80
    found = estimate(job.store, view, job.request, Workers({"vision": 1, "llm": 1}))
    assert (found.images, found.to_compute, found.described) == (300, 300, 80)
    # each group sleeps two milliseconds for an image, and does a little besides
    for group in found.groups.values():
        assert group.images_per_second and group.measured and 0 < group.images_per_second.value <= 500
    assert found.seconds and found.seconds.value >= 300 * 0.002
    in_turn = estimate(job.store, view, job.request, Workers({"vision": 1, "llm": 1}, in_turn=True))
    assert in_turn.seconds and in_turn.seconds.value >= 600 * 0.002
    # of other engines it is not known how many workers there would be
    unknown = estimate(job.store, view, job.request, Workers(None))
    assert unknown.seconds is None and unknown.cpu_hours and not any("ready" in note for note in unknown.notes)
    # the job of a sample goes on by its id like any other; of one that describes all nothing is estimated
    request, again = run_here(settings, job.request.id, how)
    assert again.request_counts == view.request_counts and request.sample == job.request.sample
    whole, view = run_here(settings, shards, how)
    with pytest.raises(NoSample, match="describes all its images"):
        estimate(job.store, view, whole, Workers({}))
