"""A damaged JSON file of the store stops only what it belongs to, and is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from strata.cli.main import app
from strata.core.schemas import JobStatus
from strata.errors import DamagedFile
from strata.queue.queue import Queue
from strata.snapshots.cleaning import Cleaning
from strata.snapshots.selection import Selection
from strata.snapshots.snapshots import Snapshots
from strata.store.parts import PartsOf
from strata.store.provenance import keep_profile, provenance_of
from strata.store.store import Store
from tests.described import FINGERPRINT, described, write_part
from tests.fakes import FAKE_PROFILE, jpeg, wait_for, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from tests.service import Service, running_service

DAMAGES = [b"", b'{"id": "half', b"\xff\xfe", b"[]", b"{}"]


@pytest.fixture
def service(queue: Queue, tmp_path: Path) -> Iterator[Service]:
    with running_service(queue, tmp_path) as running:
        yield running


def jobs_of(service: Service, tmp_path: Path, count: int = 3) -> list[str]:
    """The ids of completed jobs of one shard each, of which Redis knows nothing any more."""
    shards = [write_shard(tmp_path / "shards" / f"{number}.tar", [jpeg(20 + number)]) for number in range(count)]
    ids = [service.jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id for shard in shards]
    for job_id in ids:
        wait_for_end(service.jobs, job_id)
    # the status comes before the end in the store, without which the job would be run again
    wait_for(lambda: not set(ids) & set(service.jobs.store.open_jobs()))
    raw_redis(service.jobs.queue).flushall()
    return ids


@pytest.mark.parametrize("name", ["request", "end", "shards"])
def test_a_damaged_file_of_a_job_stops_only_this_job(service: Service, tmp_path: Path, name: str) -> None:
    first, middle, last = jobs_of(service, tmp_path)
    Path(service.jobs.store.path("jobs", middle, f"{name}.json")).write_bytes(b'{"id": "half')
    for _ in range(2):  # while the list is rebuilt, and from the list
        found = {job["id"]: job for job in service.client.get("/v1/jobs").json()["jobs"]}
        assert set(found) == {first, middle, last}
        assert {found[each]["status"] for each in (first, last)} == {"completed"}
        if name == "end":
            assert found[middle]["status"] == "failed" and f"jobs/{middle}/end.json" in found[middle]["error"]
    assert len(service.client.get(f"/v1/jobs/{last}/results").text.splitlines()) == 1
    if name == "end":
        return
    answer = service.client.get(f"/v1/jobs/{middle}/results")
    assert answer.status_code == 500 and answer.json()["type"] == "/problems/damaged-file"
    assert f"jobs/{middle}/{name}.json" in answer.json()["detail"]


def test_a_retry_writes_a_damaged_end_anew(service: Service, tmp_path: Path) -> None:
    (job,) = jobs_of(service, tmp_path, 1)
    Path(service.jobs.store.path("jobs", job, "end.json")).write_bytes(b"")
    assert service.client.post(f"/v1/jobs/{job}/retry").status_code == 200
    wait_for_end(service.jobs, job)
    view = service.client.get(f"/v1/jobs/{job}").json()
    assert (view["status"], view["request_counts"]["succeeded"], view["error"]) == (JobStatus.COMPLETED, 1, None)


def test_an_unfinished_job_with_a_damaged_request_does_not_stop_others(service: Service, tmp_path: Path) -> None:
    store = service.jobs.store
    store.put(store.path("jobs", "0123456789ab", "request.json"), b"{")
    store.open_job("0123456789ab")
    (job,) = jobs_of(service, tmp_path, 1)
    assert service.jobs.view(job).status is JobStatus.COMPLETED
    assert "request.json is damaged" in str(service.client.get("/v1/jobs/0123456789ab").json()["error"])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_stops_only_itself(store: Store, damage: bytes) -> None:
    snapshots, part = Snapshots(store), write_part(store, [described("a"), described("b")])
    snapshots.create("good", [part], Selection())
    snapshots.create("bad", [part], Selection(count=1))
    Path(store.path("snapshots", "bad.json")).write_bytes(damage)
    assert [snapshot.name for snapshot in snapshots.all()] == ["good"]
    with pytest.raises(DamagedFile, match=r"^snapshots/bad.json is damaged: "):
        snapshots.open("bad")
    assert snapshots.open(snapshots.open("good").id[:12]).name == "good"
    assert snapshots.create("later", [part], Selection()).rows().num_rows == 2
    # the command line names it
    for arguments, code in ((["list"], 0), (["list", "--json"], 0), (["show", "good"], 0), (["show", "bad"], 10)):
        result = CliRunner().invoke(app, ["snapshot", *arguments, "--store", store.uri])
        expected = [] if arguments[-1] == "good" else ["snapshots/bad.json is damaged"]
        assert all(line in result.stderr for line in expected) and "Traceback" not in result.output
        assert result.exit_code == code or isinstance(result.exception, DamagedFile)


def test_cleaning_keeps_what_a_damaged_file_may_need(store: Store) -> None:
    for group in ("vision", "llm"):
        for attempt in (0, 1):
            write_part(store, [described("a")], group=group, attempt=attempt)
    assert len(Cleaning(store).unreferenced()) == 4
    # a damaged snapshot may pin any part of llm
    store.put(store.path("snapshots", "bad.json"), b"{")
    cleaning = Cleaning(store)
    assert {path.split("/")[1] for path in cleaning.unreferenced()} == {"vision"}
    assert [line.split(" is ")[0] for line in cleaning.damaged] == ["snapshots/bad.json"]
    store.remove(store.path("snapshots", "bad.json"))
    # a job may need any part, unless it is forgotten
    for name in ("request", "end"):
        store.put(store.path("jobs", "a1", f"{name}.json"), b"{")
    cleaning = Cleaning(store)
    assert not cleaning.unreferenced() and "jobs/a1/request.json" in next(iter(cleaning.damaged))
    assert len(Cleaning(store, ["a1"]).unreferenced()) == 4 + 2


def test_a_damaged_profile_is_written_anew_by_the_next_job(store: Store) -> None:
    keep_profile(store, FAKE_PROFILE)
    fingerprint = FAKE_PROFILE.fingerprint("llm")
    path = Path(store.path("profiles", f"{fingerprint}.json"))
    path.write_bytes(path.read_bytes()[:50])
    write_part(store, [described("a")])
    assert provenance_of(store, fingerprint).profile is None
    assert len(PartsOf(store).sources([FINGERPRINT])) == 1  # all profiles are looked at
    keep_profile(store, FAKE_PROFILE)
    assert provenance_of(store, fingerprint).profile == "fake" and json.loads(path.read_bytes())["profile"] == "fake"
