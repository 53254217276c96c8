"""What counts afterwards: the newest attempt for every job; failures that may pass; broken parts are computed again."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from strata.core.chunks import Chunk
from strata.core.records import Record, Status
from strata.core.requests import JobRequest
from strata.core.schemas import JobStatus
from strata.jobs.job_parts import JobParts
from strata.jobs.jobs import Jobs
from strata.jobs.results import Results
from strata.queue.queue import Queue
from strata.snapshots.selection import Selection
from strata.snapshots.snapshots import Snapshots
from strata.store import part_format
from strata.store.part_format import Source
from strata.store.part_paths import Part
from strata.store.parts import PartsOf
from tests.fakes import FAKE_PROFILE, FakeMachine, FakeVision, jpeg, wait_for_end, write_shard
from tests.jobs.hand_worker import HandWorker
from tests.raw_redis import raw_redis
from tests.service import running_service
from tests.store.test_parts import PLAIN_READERS

IMAGES = 10


@pytest.fixture
def shard(tmp_path: Path) -> str:
    return write_shard(tmp_path / "a.tar", [jpeg(20 + number) for number in range(IMAGES)])


class Faults:
    """Images that fail in the vision stages, by their keys, and how; every computed image is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transient: set[str] = set()
        self.lasting: set[str] = set()
        self.computed: list[str] = []
        run = FakeVision.run

        def flaky(vision: FakeVision, batch: list[Any]) -> list[Record]:
            records = run(vision, batch)
            self.computed += [record.key for record in records]
            return [self._failed(record) for record in records]

        monkeypatch.setattr(FakeVision, "run", flaky)

    def _failed(self, record: Record) -> Record:
        if record.key in self.transient:
            return record.failed("detector", "OutOfMemory", "no memory", transient=True)
        return record.failed("detector", "Odd", "an odd image") if record.key in self.lasting else record


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def key(number: int) -> str:
    return f"{number:09d}"


def submit(jobs: Jobs, shard: str) -> JobRequest:
    request = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
    wait_for_end(jobs, request.id)
    return jobs.request(request.id)


def rows_of(jobs: Jobs, job_id: str) -> list[Record]:
    view = jobs.view(job_id)
    page = Results(jobs.request(job_id), jobs.summaries(job_id), jobs.store, view.status).page(None, 1000)
    return [row for row in page.rows if isinstance(row, Record)]


def failed(jobs: Jobs, job_id: str) -> list[str]:
    return [row.key for row in rows_of(jobs, job_id) if row.status is Status.FAILED]


def chunks(jobs: Jobs, request: JobRequest, group: str = "llm") -> list[Chunk]:
    return [chunk for summary in jobs.summaries(request.id).values() for chunk in request.chunks(summary, group)]


def flip(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 3] ^= 4
    Path(path).write_bytes(data)


# the newest attempt


def test_a_retry_that_succeeded_counts_for_jobs_before_and_after_it(jobs: Jobs, shard: str, faults: Faults) -> None:
    faults.lasting = {key(1)}
    with FakeMachine(jobs):
        first, second = submit(jobs, shard), submit(jobs, shard)
        faults.lasting = set()
        jobs.retry(first.id)
        wait_for_end(jobs, first.id)
        computed = len(faults.computed)
        third = submit(jobs, shard)
    counts = jobs.view(third.id).request_counts
    assert (counts.succeeded, counts.failed) == (IMAGES, 0) and len(faults.computed) == computed
    assert jobs.view(third.id).groups["llm"].reused == IMAGES and third.retries == {}
    for request in (first, second, third):
        assert failed(jobs, request.id) == [] and len(rows_of(jobs, request.id)) == IMAGES
        parts = PartsOf(jobs.store).sources([request.id])
        assert [part.attempt for part in parts] == [1, 0, 0]
    # a retry of the job that still says that an image failed finds nothing to do
    with FakeMachine(jobs):
        assert jobs.view(second.id).request_counts.failed == 1
        jobs.retry(second.id)
        wait_for_end(jobs, second.id)
    assert jobs.view(second.id).request_counts.failed == 0 and len(faults.computed) == computed


def test_plain_readers_see_every_row_once_after_a_retry_of_a_job(jobs: Jobs, shard: str, faults: Faults) -> None:
    faults.lasting = {key(1), key(6)}
    with FakeMachine(jobs):
        request = submit(jobs, shard)
        assert len(failed(jobs, request.id)) == 2
        faults.lasting = set()
        jobs.retry(request.id)
        wait_for_end(jobs, request.id)
    assert failed(jobs, request.id) == []
    folder = jobs.store.path("parts", "llm", request.fingerprints["llm"])
    for reader in PLAIN_READERS:
        assert sorted(reader(folder)) == [key(number) for number in range(IMAGES)], reader.__name__


def test_a_snapshot_reads_the_attempt_that_it_pins(jobs: Jobs, shard: str, faults: Faults) -> None:
    faults.lasting = {key(1)}
    snapshots = Snapshots(jobs.store)
    with FakeMachine(jobs):
        request = submit(jobs, shard)
        before = snapshots.create("before", PartsOf(jobs.store).sources([request.id]), Selection())
        faults.lasting = set()
        jobs.retry(request.id)
        wait_for_end(jobs, request.id)
    after = snapshots.create("after", PartsOf(jobs.store).sources([request.id]), Selection())
    again = snapshots.open("before")
    assert again.rows() == before.rows() and again.rows().num_rows == IMAGES - 1
    assert after.rows().num_rows == IMAGES
    statuses = [jobs.store.read_columns(part, ["status"]).column("status").to_pylist() for part in again.parts]
    assert sum(status.count("failed") for status in statuses) == 1


# failures that may pass


def test_a_new_job_computes_transient_failures_anew_and_no_others(jobs: Jobs, shard: str, faults: Faults) -> None:
    faults.transient, faults.lasting = {key(1)}, {key(6)}
    with FakeMachine(jobs):
        first = submit(jobs, shard)
        assert failed(jobs, first.id) == [key(1), key(6)]
        notes = [row.failure.transient for row in rows_of(jobs, first.id) if row.failure]
        assert notes == [True, False] and jobs.store.read_footer(chunks(jobs, first)[0]).transient == 1
        faults.transient, faults.computed = set(), []
        second = submit(jobs, shard)
    assert faults.computed == [key(1)]
    assert failed(jobs, second.id) == [key(6)] == failed(jobs, first.id)
    assert second.retries == {chunks(jobs, second)[0].field: 1}
    assert JobRequest.model_validate_json(jobs.store.read_job_file(second.id, "request") or b"") == second


def test_a_job_asks_for_a_transient_failure_once(jobs: Jobs, shard: str, faults: Faults) -> None:
    faults.transient = {key(1)}
    with FakeMachine(jobs) as machine:
        submit(jobs, shard)
        for attempt in (1, 2):
            faults.computed = []
            request = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
            machine.scheduler.reviewed = -1e9  # compare every plan with the store again
            wait_for_end(jobs, request.id)
            assert faults.computed == [key(1)]
            assert set(jobs.request(request.id).retries.values()) == {attempt}
            assert jobs.view(request.id).request_counts.failed == 1


def test_transient_failures_of_a_vision_part_alone_are_computed_anew(jobs: Jobs, shard: str, faults: Faults) -> None:
    """A job was cancelled between the groups: the next job must not describe what failed for a while."""
    faults.transient = {key(1)}
    with FakeMachine(jobs):
        first = submit(jobs, shard)
    for chunk in chunks(jobs, first):
        jobs.store.remove(jobs.store.part_path(chunk))
    faults.transient = set()
    with FakeMachine(jobs):
        second = submit(jobs, shard)
    assert failed(jobs, second.id) == [] and jobs.view(second.id).request_counts.succeeded == IMAGES


def test_a_plan_is_the_same_after_redis_was_emptied(jobs: Jobs, shard: str, faults: Faults) -> None:
    faults.transient = {key(1)}
    with FakeMachine(jobs):
        submit(jobs, shard)
    request = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
    (summary,) = [replace_shard(jobs, shard)]
    parts = JobParts(jobs.queue.job_states, jobs.store)
    raised, missing = parts.missing(request, summary)
    assert [(chunk.group, chunk.attempt) for chunk in missing] == [("vision", 1)]
    raw_redis(jobs.queue).flushall()
    again = jobs.request(request.id)
    assert again == raised and again.retries
    jobs.activate(again)
    assert parts.missing(again, summary) == (raised, missing)


def replace_shard(jobs: Jobs, shard: str) -> Any:
    done = next(job for job in jobs.store.job_ids() if jobs.summaries(job))
    return jobs.summaries(done)[shard]


# an attempt in flight while others come


def test_a_worker_that_holds_an_older_attempt_finds_the_newer_part(jobs: Jobs, shard: str, faults: Faults) -> None:
    with FakeMachine(jobs):
        request = submit(jobs, shard)
    first = chunks(jobs, request, "vision")[0]
    records = jobs.store.read_records(first)
    jobs.store.write_records(replace(first, attempt=1), records)
    faults.computed = []
    late = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
    jobs.queue.broker.enqueue(first, late.id, "lo")
    with FakeMachine(jobs):
        wait_for_end(jobs, late.id)
    assert faults.computed == [] and jobs.store.newest(first) == replace(first, attempt=1)


def test_llm_reads_the_newest_vision_part_that_is_at_least_its_attempt(jobs: Jobs, shard: str, faults: Faults) -> None:
    faults.lasting = {key(1)}
    with FakeMachine(jobs):
        first = submit(jobs, shard)
        faults.lasting = set()
        jobs.retry(first.id)
        wait_for_end(jobs, first.id)
    # the final parts are lost: an attempt 0 at them is made of attempt 1 of vision
    for path in [*jobs.store.find("parts", "llm"), *jobs.store.find("superseded", "llm")]:
        jobs.store.remove(jobs.store.path(path))
    faults.computed = []
    with FakeMachine(jobs):
        second = submit(jobs, shard)
    assert failed(jobs, second.id) == [] and faults.computed == [] and second.retries == {}


def test_a_retry_without_the_attempt_before_computes_everything(jobs: Jobs, shard: str, faults: Faults) -> None:
    faults.lasting = {key(1)}
    with FakeMachine(jobs):
        request = submit(jobs, shard)
    jobs.retry(request.id)
    for path in jobs.store.find("parts", "llm") | jobs.store.find("parts", "vision"):
        jobs.store.remove(jobs.store.path(path))
    faults.lasting, faults.computed = set(), []
    with FakeMachine(jobs):
        wait_for_end(jobs, request.id)
    assert jobs.view(request.id).request_counts.succeeded == IMAGES and len(set(faults.computed)) == IMAGES


# broken parts


def exchange(path: str) -> None:
    """Put the bytes of another part at the path of a part."""
    parts = Path(path).parents[3].rglob("*.parquet")
    Path(path).write_bytes(next(part for part in parts if part != Path(path)).read_bytes())


def fold(path: str) -> None:
    """Put a folder at the path of a part."""
    Path(path).unlink()
    Path(path).mkdir()


def resize(path: str, rows: Callable[[pa.Table], pa.Table]) -> None:
    """Write a part with other rows, whose checksums and counts are right for them, as a fault of a writer would."""
    part = Part.parse(path[path.index("parts/") :])
    table, footer = part_format.decode(Path(path).read_bytes(), Source(part, part.path))
    changed = rows(table)
    if part.group != "index":
        footer = footer._replace(counts=Counter(changed["status"].to_pylist()))
    Path(path).write_bytes(part_format.encode(changed, part, footer, "zstd"))


DAMAGES: dict[str, Callable[[str], object]] = {
    "a row less": lambda path: resize(path, lambda table: table.slice(1)),
    "a row twice": lambda path: resize(path, lambda table: pa.concat_tables([table, table.slice(0, 1)])),
    "no row": lambda path: resize(path, lambda table: table.slice(0, 0)),
    "flipped": flip,
    "cut off": lambda path: Path(path).write_bytes(Path(path).read_bytes()[:-100]),
    "empty": lambda path: Path(path).write_bytes(b""),
    "deleted": lambda path: Path(path).unlink(),
    "halved": lambda path: Path(path).write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2]),
    "longer": lambda path: Path(path).write_bytes(Path(path).read_bytes() + b"PAR1"),
    "another part": exchange,
    "a text": lambda path: Path(path).write_bytes(b"PAR1 is no part" * 20),
    "a folder": fold,
}


BROKEN = [(group, damage) for group in ("index", "vision", "llm") for damage in DAMAGES]


@pytest.mark.parametrize(("group", "damage"), BROKEN)
def test_a_new_job_computes_what_is_broken(jobs: Jobs, shard: str, faults: Faults, damage: str, group: str) -> None:
    with FakeMachine(jobs):
        first = submit(jobs, shard)
        expected = rows_of(jobs, first.id)
        for path in [path for path in jobs.store.find("parts") if path.startswith(f"parts/{group}/")]:
            DAMAGES[damage](jobs.store.path(path))
        # without final parts, the vision parts have to be read
        if group == "vision":
            for path in jobs.store.find("parts", "llm"):
                jobs.store.remove(jobs.store.path(path))
        second = submit(jobs, shard)
    assert jobs.view(second.id).request_counts.succeeded == IMAGES
    plain: dict[str, object] = {"seconds": {}}
    assert [row.model_copy(update=plain) for row in rows_of(jobs, second.id)] == [
        row.model_copy(update=plain) for row in expected
    ]
    left = jobs.store.find("broken")
    assert bool(left) == (damage not in ("deleted", "a folder")), (group, left)
    for chunk in chunks(jobs, second):
        assert jobs.store.read_table(chunk).num_rows == chunk.images


@pytest.mark.parametrize("damage", ["flipped", "cut off", "deleted", "a row twice"])
def test_a_part_that_breaks_before_the_end_of_its_job_is_computed_again(
    jobs: Jobs, shard: str, faults: Faults, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finalizer finds it. Before, the plan was restarted again and again without an end."""
    broke = threading.Event()
    with FakeMachine(jobs) as machine:
        begin = machine.scheduler.finalizer.begin

        def break_first(request: JobRequest) -> None:
            if not broke.is_set():
                broke.set()
                DAMAGES[damage](jobs.store.part_path(chunks(jobs, request)[1]))
            begin(request)

        monkeypatch.setattr(machine.scheduler.finalizer, "begin", break_first)
        request = submit(jobs, shard)
    assert broke.is_set() and jobs.view(request.id).status is JobStatus.COMPLETED
    assert jobs.view(request.id).request_counts.succeeded == IMAGES
    assert len(jobs.store.find("broken")) == (damage != "deleted")


def test_a_broken_retry_is_computed_as_that_retry_again(jobs: Jobs, shard: str, faults: Faults) -> None:
    """The attempt before does not count in its place, also for a job that did not ask for the retry."""
    faults.lasting = {key(1)}
    with FakeMachine(jobs):
        first = submit(jobs, shard)
        faults.lasting = set()
        jobs.retry(first.id)
        wait_for_end(jobs, first.id)
        flip(jobs.store.part_path(replace(chunks(jobs, first)[0], attempt=1)))
        faults.computed = []
        second = submit(jobs, shard)
    assert failed(jobs, second.id) == [] and faults.computed == []  # the rows of vision are intact
    (newest,) = [jobs.store.newest(chunk) for chunk in chunks(jobs, second)[:1]]
    assert newest is not None and newest.attempt == 1
    assert not [path for path in jobs.store.find("parts") if path.endswith(".broken")]


def test_results_of_a_broken_part_are_answered_with_503_and_computed_again(
    queue: Queue, tmp_path: Path, shard: str
) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        jobs = service.jobs
        with FakeMachine(jobs):
            request = submit(jobs, shard)
        for damage in ("flipped", "empty", "deleted", "a row less"):
            part = jobs.store.part_path(chunks(jobs, request)[1])
            for path in (f"/v1/jobs/{request.id}/results", f"/v1/records/{request.id}/{key(5)}"):
                DAMAGES[damage](part)
                answer = service.client.get(path)
                assert answer.status_code == 503 and answer.headers["Retry-After"], answer.text
                assert answer.json()["type"] == "/problems/part-broken"
                assert Part.of_chunk(chunks(jobs, request)[1]).path in answer.json()["detail"]
                with FakeMachine(jobs):
                    wait_for_end(jobs, request.id)
                answer = service.client.get(path)
                assert answer.status_code == 200 and len(answer.text.splitlines()) in (1, IMAGES)


def test_a_cancelled_job_is_not_run_again_for_a_broken_part(jobs: Jobs, shard: str) -> None:
    with FakeMachine(jobs, seconds=0.05):
        request = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        until = time.monotonic() + 120
        while not jobs.store.find("parts", "llm") and time.monotonic() < until:
            time.sleep(0.01)
        jobs.cancel(request.id)
        wait_for_end(jobs, request.id)
    (path, *_) = jobs.store.find("parts", "llm")
    part = Part.parse(path)
    flip(jobs.store.path(path))
    (chunk,) = [chunk for chunk in chunks(jobs, request) if Part.of_chunk(chunk) == part]
    with pytest.raises(Exception, match="is broken") as error:
        jobs.store.read_table(chunk)
    jobs.repair(request.id, error.value)  # type: ignore[arg-type]
    assert jobs.view(request.id).status is JobStatus.CANCELLED and part.path not in jobs.store.find("parts")


@pytest.mark.parametrize("damage", ["flipped", "another part", "deleted", "a folder"])
def test_a_lost_part_of_a_cancelled_job_is_told_and_found_again_by_another_job(
    queue: Queue, tmp_path: Path, shard: str, damage: str
) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        jobs = service.jobs
        # the job is cancelled when two of its three parts are there
        request, worker = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo"), HandWorker(jobs, images=IMAGES)
        while len(jobs.store.find("parts", "llm")) < 2:
            worker.work("index")
            worker.work("vision", 2)
            worker.work("llm")
        service.client.post(f"/v1/jobs/{request.id}/cancel")
        wait_for_end(jobs, request.id)
        address = f"/v1/jobs/{request.id}/results"
        rows = service.client.get(address).text
        assert len(rows.splitlines()) == 8
        (path, *_) = jobs.store.find("parts", "llm")
        DAMAGES[damage](jobs.store.path(path))
        # it is told for good, and never as a page with fewer rows
        for _ in range(2):
            answer = service.client.get(address)
            assert answer.status_code == 410 and answer.json()["type"] == "/problems/part-lost", answer.text
            assert path in answer.json()["detail"]
        again = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
        until = time.monotonic() + 120
        while not jobs.view(again).status.final and time.monotonic() < until:
            worker.work_all()
        assert service.client.get(address).text == rows


def test_of_a_chunk_with_a_final_part_no_vision_part_is_needed(jobs: Jobs, shard: str, faults: Faults) -> None:
    with FakeMachine(jobs):
        submit(jobs, shard)
        for path in jobs.store.find("parts", "vision"):
            jobs.store.remove(jobs.store.path(path))
        faults.computed = []
        second = submit(jobs, shard)
    view = jobs.view(second.id)
    assert faults.computed == [] and view.request_counts.succeeded == IMAGES
    assert [view.groups[group].reused for group in ("vision", "llm")] == [IMAGES, IMAGES]


def test_an_index_that_breaks_before_its_images_are_read_is_made_again(jobs: Jobs, shard: str, faults: Faults) -> None:
    """A worker finds it while it prepares a chunk: the shard is indexed again, then the chunk is queued anew."""
    request = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
    until = time.monotonic() + 120
    with FakeMachine(jobs, vision=False):
        while not jobs.queue.broker.depth("vision"):
            assert time.monotonic() < until
            time.sleep(0.02)
    (path,) = jobs.store.find("parts", "index")
    flip(jobs.store.path(path))
    with FakeMachine(jobs) as machine:
        while not jobs.view(request.id).status.final:
            assert time.monotonic() < until
            machine.scheduler.reviewed = -1e9  # compare the plan with the store again, without waiting for its time
            time.sleep(0.1)
    assert jobs.view(request.id).request_counts.succeeded == IMAGES
    assert list(jobs.store.find("broken")) == [f"broken/{path}"] and path in jobs.store.find("parts")


@pytest.mark.parametrize("group", ["index", "vision", "llm"])
def test_an_image_whose_parts_are_broken_is_described_again(queue: Queue, tmp_path: Path, group: str) -> None:
    with running_service(queue, tmp_path) as service:
        first = service.caption(jpeg()).json()
        for path in service.jobs.store.find("parts"):
            if path.startswith(f"parts/{group}/") or (group == "vision" and path.startswith("parts/llm/")):
                flip(service.jobs.store.path(path))
        again = service.caption(jpeg()).json()
        plain: dict[str, object] = {"seconds": {}}
        assert again | plain == first | plain
        (job, *_) = service.jobs.store.job_ids()
        wait_for_end(service.jobs, job)
        found = service.client.get(f"/v1/records/{job}/{first['key']}")
        assert found.status_code == 200 and found.json() | plain == first | plain


def test_a_record_of_an_image_whose_part_breaks_later_is_made_again(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path) as service:
        first = service.caption(jpeg()).json()
        (job,) = service.jobs.store.job_ids()
        wait_for_end(service.jobs, job)
        (path,) = service.jobs.store.find("parts", "llm")
        flip(service.jobs.store.path(path))
        address = f"/v1/records/{job}/{first['key']}"
        assert service.client.get(address).status_code == 503
        until = time.monotonic() + 120
        while (answer := service.client.get(address)).status_code != 200:
            assert time.monotonic() < until, answer.text
            time.sleep(0.05)
        wait_for_end(service.jobs, job)
        assert service.jobs.view(job).status is JobStatus.COMPLETED and answer.json()["key"] == first["key"]


def test_a_caption_with_a_transient_failure_is_computed_anew(queue: Queue, tmp_path: Path, faults: Faults) -> None:
    with running_service(queue, tmp_path) as service:
        first = service.caption(jpeg()).json()
        # the same image failed for a while, as a worker without memory would have written it
        (path,) = service.jobs.store.find("parts", "vision")
        part = Part.parse(path)
        chunk = Chunk("vision", "fake", part.fingerprint, "", part.identity, 0, 1)
        record = service.jobs.store.read_record(chunk, 0).failed("detector", "OutOfMemory", "no memory", True)
        for group in ("vision", "llm"):
            written = replace(chunk, group=group, fingerprint=FAKE_PROFILE.fingerprint(group))
            service.jobs.store.write_records(written, [record])
        again = service.caption(jpeg()).json()
        assert again["status"] == "succeeded" and again["caption"] == first["caption"]
        assert len(faults.computed) == 2
