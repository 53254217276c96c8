"""The list of jobs in Redis against a model: pages, filters, changes of status, and rebuilding."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strata.core.requests import JobRequest
from strata.core.schemas import JobKind, JobStatus
from strata.queue import job_list
from strata.queue.job_list import JobFilter, ListedJob
from strata.queue.queue import Queue
from tests.queue.requests import job_request
from tests.raw_redis import raw_redis

DIGEST = "0123456789abcdef" * 4


def request_of(number: int, kind: JobKind = "batch", profile: str = "fake") -> JobRequest:
    """A request whose id sorts by its number."""
    shards = [f"uploads/01/{DIGEST}"] if kind == "image" else ["a.tar"]
    return job_request(f"{number:022x}").model_copy(update={"kind": kind, "profile": profile, "shards": shards})


def pages(queue: Queue, chosen: JobFilter, limit: int) -> Iterator[list[str]]:
    """All pages of the list."""
    cursor = None
    while True:
        ids, cursor = queue.job_list.page(chosen, limit, cursor)
        yield ids
        if cursor is None:
            return


JOBS = st.lists(
    st.tuples(
        st.sampled_from(["image", "batch"]), st.sampled_from(["demo", "a:b", "paper"]), st.sampled_from(list(JobStatus))
    ),
    max_size=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(jobs=JOBS, data=st.data())
def test_pages_are_those_of_a_model(
    queue: Queue, jobs: list[tuple[JobKind, str, JobStatus]], data: st.DataObject
) -> None:
    raw_redis(queue).flushall()
    requests = [request_of(number, kind, profile) for number, (kind, profile, _) in enumerate(jobs)]
    for request, (_, _, status) in zip(requests, jobs, strict=True):
        queue.job_states.create(request, status=status.value)
    low, high = (data.draw(st.one_of(st.none(), st.integers(0, 30))) for _ in range(2))
    chosen = JobFilter(
        status=data.draw(st.one_of(st.none(), st.sampled_from(list(JobStatus)))),
        kind=data.draw(st.sampled_from([None, "image", "batch"])),
        profile=data.draw(st.sampled_from([None, "demo", "a:b"])),
        image=data.draw(st.sampled_from([None, DIGEST[:16]])),
        after=None if low is None else f"{low:022x}",
        before=None if high is None else f"{high:022x}",
    )
    expected = [
        f"{number:022x}"
        for number, (kind, profile, status) in reversed(list(enumerate(jobs)))
        if chosen.status in (None, status)
        and chosen.kind in (None, kind)
        and chosen.profile in (None, profile)
        and (chosen.image is None or kind == "image")
        and (low is None or number >= low)
        and (high is None or number < high)
    ]
    limit = data.draw(st.integers(1, 7))
    found = list(pages(queue, chosen, limit))
    assert [job_id for page in found for job_id in page] == expected
    assert all(len(page) <= limit for page in found)


def test_a_page_looks_at_a_bounded_number_of_jobs(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_list, "MAX_SCANNED", 4)
    for number in range(10):
        queue.job_states.create(request_of(number, profile="rare" if number == 1 else "fake"), status="completed")
    found = list(pages(queue, JobFilter(profile="rare"), 5))
    assert found == [[], [], [f"{1:022x}"]]
    assert next(pages(queue, JobFilter(), 4)) == [f"{number:022x}" for number in (9, 8, 7, 6)]


def test_a_job_moves_with_its_status_and_is_removed(queue: Queue) -> None:
    states, listed, request = queue.job_states, queue.job_list, request_of(1)
    states.create(request, status="validating")
    for status in (JobStatus.IN_PROGRESS, JobStatus.FINALIZING, JobStatus.COMPLETED):
        states.set_status(request.id, status)
        assert listed.page(JobFilter(status=status), 5) == ([request.id], None)
        assert listed.page(JobFilter(), 5) == ([request.id], None)
    listed.remove(request.id)
    assert listed.page(JobFilter(), 5) == ([], None)


def test_a_list_is_complete_only_if_nothing_interrupted_its_rebuilding(queue: Queue) -> None:
    listed = queue.job_list
    assert not listed.is_complete()
    listed.begin("one")
    listed.begin("two")
    assert not listed.finish("one") and not listed.is_complete()
    raw_redis(queue).flushall()
    assert not listed.finish("two")
    listed.begin("three")
    assert listed.finish("three") and listed.is_complete()


def test_a_working_copy_counts_more_than_the_files_that_were_read(queue: Queue) -> None:
    request = request_of(1)
    queue.job_states.create(request, status="validating")
    ended = [ListedJob(f"{n:022x}", "batch", JobStatus.COMPLETED, "fake:") for n in (1, 2)]
    queue.job_list.add_missing(ended)
    queue.job_list.add_missing(ended)
    assert queue.job_list.page(JobFilter(status=JobStatus.VALIDATING), 5)[0] == [request.id]
    assert queue.job_list.page(JobFilter(status=JobStatus.COMPLETED), 5)[0] == [f"{2:022x}"]


# the files of refused requests

UPLOAD, INDEX = "uploads/01/a", "parts/index/b"
IMAGE, FILES = DIGEST[:16], {UPLOAD, INDEX}


def complete(queue: Queue) -> None:
    queue.job_list.begin("token")
    assert queue.job_list.finish("token")


def refuse(queue: Queue, job_id: str, *created: str) -> set[str]:
    """What a refused request removes."""
    gone = queue.job_list.begin_removal(IMAGE, job_id, created, UPLOAD)
    queue.job_list.end_removal(IMAGE, job_id, bool(gone))
    return gone


def test_the_last_of_several_refused_requests_removes_the_files_of_all(queue: Queue) -> None:
    complete(queue)
    for name in "abc":
        queue.job_list.announce(IMAGE, name)
    # the first one has created them; the others found them there
    assert refuse(queue, "a", *FILES) == refuse(queue, "b") == set()
    assert refuse(queue, "c") == FILES
    # what is created later is none of them
    queue.job_list.announce(IMAGE, "d")
    assert refuse(queue, "d") == set()


@pytest.mark.parametrize(
    "owner", ["a job that is accepted", "a job that is created", "one who sends it", "a lost list"]
)
def test_files_that_others_may_need_are_not_removed(queue: Queue, owner: str) -> None:
    if owner != "a lost list":
        complete(queue)
    mine = request_of(int(time.time() * 1000) << 40, "image").id
    queue.job_list.announce(IMAGE, mine)
    if owner == "a job that is accepted":
        other = request_of((int(time.time() * 1000) - 60_000) << 40, "image")  # of a machine whose clock is behind
        queue.job_list.announce(IMAGE, other.id)
        queue.job_states.create(other, status="in_progress")
        queue.job_list.withdraw(IMAGE, other.id)
    elif owner == "a job that is created":
        queue.job_list.announce(IMAGE, "other")
    elif owner == "one who sends it":
        queue.job_list.announce(IMAGE, "other", sent=True)
        queue.job_list.withdraw(IMAGE, "other")
    # who sends an upload for a batch needs no index part of it
    assert refuse(queue, mine, *FILES) == ({INDEX} if owner == "one who sends it" else set())


def test_who_needs_a_file_waits_while_it_is_removed(queue: Queue) -> None:
    complete(queue)
    queue.job_list.announce(IMAGE, "a")
    assert queue.job_list.begin_removal(IMAGE, "a", FILES, UPLOAD) == FILES
    announced = threading.Thread(target=queue.job_list.announce, args=(IMAGE, "b"))
    announced.start()
    announced.join(0.2)
    assert announced.is_alive() and queue.job_list.is_announced(IMAGE)
    queue.job_list.end_removal(IMAGE, "a", True)
    announced.join(10)
    assert not announced.is_alive()
