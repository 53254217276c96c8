"""`strata verify`: every part is read; what is broken is named, set aside and computed again."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strata.cli.exits import code_of
from strata.cli.main import app
from strata.core.requests import JobRequest
from strata.core.schemas import JobStatus
from strata.errors import StrataError
from strata.jobs.jobs import Jobs
from strata.snapshots.selection import Selection
from strata.snapshots.snapshots import Snapshots
from strata.store.parts import PartsOf
from strata.store.store import Store
from tests.described import described as record_of
from tests.described import write_part
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from tests.raw_redis import raw_redis

IMAGES = 10
KEPT = Path(__file__).parents[1] / "data_files" / "store-schema-2" / "store"


@pytest.fixture
def described(jobs: Jobs, tmp_path: Path) -> list[JobRequest]:
    """Two completed jobs of a shard of ten images each, in three chunks."""
    images = [jpeg(20 + n) for n in range(IMAGES)]
    shards = [write_shard(tmp_path / f"{first}.tar", images, first) for first in (0, 100)]
    with FakeMachine(jobs):
        requests = [jobs.new.create("batch", [shard], FAKE_PROFILE, "lo") for shard in shards]
        for request in requests:
            wait_for_end(jobs, request.id)
    return requests


def verify(store: Store, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code of the command, and its report."""
    result = CliRunner().invoke(app, ["verify", *arguments, "--json", "--store", store.uri])
    code = code_of(result.exception) if isinstance(result.exception, StrataError) else result.exit_code
    assert code is not None, result.output
    return code, json.loads(result.stdout.splitlines()[0]) if result.stdout else {}


def part_of(store: Store, request: JobRequest, group: str, jobs: Jobs) -> str:
    """The path of a job's second part of a group, or of its index."""
    (summary,) = jobs.summaries(request.id).values()
    if group == "index":
        return f"parts/index/{request.fingerprints['index']}/{summary.identity}/00000.parquet"
    (chunk,) = request.chunks(summary, group, [1])
    return store.relative(store.part_path(chunk))


def test_an_intact_store(jobs: Jobs, described: list[JobRequest]) -> None:
    Snapshots(jobs.store).create("one", PartsOf(jobs.store).sources([described[0].id]), Selection(count=3))
    before = jobs.store.find()
    code, report = verify(jobs.store, "--all")
    assert (code, report["parts"], report["rows"]) == (0, 2 * 7, 2 * 3 * IMAGES)
    assert not any(report[name] for name in ("broken", "missing", "damaged", "jobs"))
    code, report = verify(jobs.store, described[0].id)
    assert (code, report["parts"], report["rows"]) == (0, 7, 3 * IMAGES)
    assert jobs.store.find() == before


def test_a_store_of_an_earlier_version_is_intact(tmp_path: Path) -> None:
    shutil.copytree(KEPT, tmp_path / "store")
    code, report = verify(Store(str(tmp_path / "store")), "--all")
    assert (code, report["broken"], report["missing"], report["damaged"]) == (0, {}, [], [])
    assert report["parts"] == sum(1 for _ in (KEPT / "parts").rglob("*.parquet"))


@pytest.mark.parametrize("redis", ["kept", "emptied"])
@pytest.mark.parametrize("scope", ["job", "all"])
@pytest.mark.parametrize("group", ["index", "llm"])
def test_what_is_broken_is_set_aside_and_computed_again(
    jobs: Jobs, described: list[JobRequest], group: str, scope: str, redis: str
) -> None:
    store, request = jobs.store, described[1]
    path = part_of(store, request, group, jobs)
    whole = Path(store.path(path)).read_bytes()
    Path(store.path(path)).write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    if redis == "emptied":
        raw_redis(jobs.queue).flushall()
    code, report = verify(store, request.id if scope == "job" else "--all")
    assert code == 14 and list(report["broken"]) == [path] and report["jobs"] == [request.id]
    assert Path(store.path("broken", path)).is_file() and not Path(store.path(path)).exists()
    # the scheduler finds the open job, and the other one stays as it ended
    with FakeMachine(jobs):
        until = time.monotonic() + 120
        while store.open_jobs() or not store.exists(store.path(path)):
            assert time.monotonic() < until
            time.sleep(0.02)
        wait_for_end(jobs, request.id)
    assert jobs.view(request.id).status is JobStatus.COMPLETED
    assert jobs.view(request.id).request_counts.succeeded == IMAGES
    assert verify(store, "--all")[0] == 0


def test_a_broken_vision_part_of_a_completed_job_is_set_aside_only(jobs: Jobs, described: list[JobRequest]) -> None:
    path = part_of(jobs.store, described[0], "vision", jobs)
    Path(jobs.store.path(path)).write_bytes(b"")
    code, report = verify(jobs.store, "--all")
    assert (code, list(report["broken"]), report["jobs"]) == (14, [path], [])


def test_a_missing_part_and_rows_of_another_shard(jobs: Jobs, described: list[JobRequest]) -> None:
    store = jobs.store
    missing, other = (part_of(store, request, "llm", jobs) for request in described)
    store.remove(store.path(missing))
    # a part that is intact in itself, but whose rows are not those of the index
    (summary,) = jobs.summaries(described[1].id).values()
    first, second, _ = described[1].chunks(summary, "llm")
    store.write_records(second, store.read_records(first))
    code, report = verify(store, "--all")
    assert (code, report["missing"]) == (14, [missing])
    assert report["broken"] == {other: "its rows are not those of its shard's index"}
    assert sorted(report["jobs"]) == sorted(request.id for request in described)


@pytest.mark.parametrize("name", ["jobs/JOB/end.json", "jobs/JOB/request.json", "snapshots/one.json", "profiles"])
def test_damaged_files_are_named(jobs: Jobs, described: list[JobRequest], name: str) -> None:
    store = jobs.store
    Snapshots(store).create("one", PartsOf(store).sources([described[0].id]), Selection(count=3))
    found = next(path for path in store.find() if path.startswith(name.replace("JOB", described[0].id)))
    Path(store.path(found)).write_bytes(b"{")
    code, report = verify(store, "--all")
    assert code == 14 and [line.split(" is ")[0] for line in report["damaged"]] == [found]


def test_the_rows_of_a_snapshot_are_compared_with_its_id(jobs: Jobs, described: list[JobRequest]) -> None:
    store = jobs.store
    parts = PartsOf(store).sources([described[0].id])
    one, two = (Snapshots(store).create(f"s{n}", parts, Selection(count=3, seed=n)) for n in range(2))
    folder = Path(store.path("snapshots", "objects"))
    shutil.copy(folder / f"{one.id}.parquet", folder / f"{two.id}.parquet")
    code, report = verify(store, "--all")
    assert code == 14 and "the id is that of other rows" in report["damaged"][0] and two.id in report["damaged"][0]


@pytest.mark.parametrize("kept", [60, 0])
def test_damaged_rows_of_a_snapshot_are_named(store: Store, kept: int) -> None:
    """A footer that cannot be decoded, of which Arrow tells by an OSError, and a file that is no Parquet."""
    made = Snapshots(store).create("one", [write_part(store, [record_of(key) for key in "abc"])], Selection())
    path = f"snapshots/objects/{made.id}.parquet"
    content = store.get(store.path(path))
    store.put(store.path(path), content[:kept] + bytes(len(content) - kept - 8) + content[-8:] if kept else b"{")
    code, report = verify(store, "--all")
    assert code == 14 and [line.split(" is ")[0] for line in report["damaged"]] == [path]
    shown = CliRunner().invoke(app, ["snapshot", "diff", "one", "one", "--store", store.uri])
    assert shown.exit_code == 10 and len(shown.stderr.splitlines()) == 1
    assert shown.stderr.startswith(f"strata: {path} is damaged: ")


def test_arguments(store: Store) -> None:
    assert verify(store, "nojob")[0] == 10
    assert verify(store)[0] == verify(store, "ajob", "--all")[0] == 2
    assert verify(store, "--all") == (
        0,
        {"parts": 0, "rows": 0, "broken": {}, "missing": [], "damaged": [], "jobs": []},
    )
