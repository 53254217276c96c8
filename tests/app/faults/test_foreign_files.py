"""Foreign files in the folders of the store stop nothing, stay where they are, and are told of in the log once."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from strata.cli.main import app
from strata.jobs import scheduler as scheduler_module
from strata.jobs.jobs import Jobs
from strata.jobs.retention import Retention
from strata.jobs.review import Review
from strata.jobs.scheduler import Scheduler
from strata.queue.job_list import JobFilter
from strata.queue.queue import Queue
from strata.snapshots.cleaning import Cleaning
from strata.snapshots.selection import Selection
from strata.snapshots.snapshots import Snapshots
from strata.store.part_paths import Part
from strata.store.parts import PartsOf
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from tests.jobs.hand_worker import HandWorker, batch
from tests.raw_redis import raw_redis
from tests.service import Service, running_service

LISTED = ("jobs", "open", "snapshots", "snapshots/objects", "profiles", "progress", "uploads", "tmp", "broken/parts")
ID = "0123456789abcdef012345"  # has the form of a job's id
NAMES = ("notes.txt", ".DS_Store", "a b", "lost", ID, "00000.parquet", "٣.parquet", f"{ID}.json", "\udcff", "x" * 250)


@pytest.fixture
def service(queue: Queue, tmp_path: Path) -> Iterator[Service]:
    with running_service(queue, tmp_path) as running:
        yield running


def litter(root: Path, *folders: str) -> dict[Path, str]:
    """Put empty files, files with content, folders, and links that lead nowhere or in circles into folders."""
    made: dict[Path, str] = {}
    for folder, (number, name) in itertools.product(folders, enumerate(NAMES)):
        for kind in ("empty", "text", "folder", "nowhere", "circle"):
            # the form of the name stays that of NAMES for one kind of each
            path = root / folder / (name if number % 5 == len(kind) % 5 else f"{kind}-{name}"[:250])
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
            if path.is_symlink() or path.exists():
                continue
            if kind == "folder":
                (path / "inner").mkdir(parents=True)
            elif kind in ("nowhere", "circle"):
                path.symlink_to(path.name if kind == "circle" else "/nonexistent/file")
            else:
                path.write_bytes(b"" if kind == "empty" else b'{"a": [')
            made[path] = kind
    return made


def age(paths: dict[Path, str]) -> None:
    """Make files older than any that is kept for a while."""
    for path in paths:
        os.utime(path, (1e9, 1e9), follow_symlinks=False)


def shards_in(jobs: Jobs) -> list[str]:
    """The folders of the parts of one shard."""
    return sorted({path.rpartition("/")[0] for path in jobs.store.find("parts")})


def test_foreign_files_stop_nothing(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scheduler_module, "REVIEW_SECONDS", 0.1)  # every plan and folder is looked at all the time
    jobs, root = service.jobs, Path(service.jobs.store.uri)
    first = jobs.new.create("batch", [write_shard(tmp_path / "shards/a.tar", [jpeg(20)])], FAKE_PROFILE, "lo").id
    wait_for_end(jobs, first)
    made = litter(root, *LISTED, *shards_in(jobs), "identities", "families")
    age(made)
    reviews = Counter[str]()
    original = Review.begin

    def begin(self: Review) -> None:
        original(self)
        reviews["whole"] += 1

    monkeypatch.setattr(Review, "begin", begin)
    # once with all that Redis knows, once after it was emptied
    with caplog.at_level(logging.WARNING):
        for number in range(2):
            shard = write_shard(tmp_path / "shards" / f"{number}.tar", [jpeg(30 + number), jpeg(40)])
            job = service.submit(shard).json()["id"]
            wait_for_end(jobs, job)
            assert len(service.client.get(f"/v1/jobs/{job}/results").text.splitlines()) == 2
            listed = service.client.get("/v1/jobs")
            assert listed.status_code == 200 and {job, first} <= {one["id"] for one in listed.json()["jobs"]}
            assert not {ID, "lost"} & {one["id"] for one in listed.json()["jobs"]}
            assert service.client.get(f"/v1/jobs/{ID}").status_code == 404
            assert service.caption(jpeg(50 + number)).status_code == 200
            raw_redis(jobs.queue).flushall()
        seen, until = reviews["whole"], time.monotonic() + 120
        while reviews["whole"] < seen + 4 and time.monotonic() < until:
            time.sleep(0.02)
    assert reviews["whole"] >= seen + 4
    lines = Counter(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    told = [line for line in lines if "foreign" in line]
    assert any(line.startswith("jobs/ has ") for line in told) and any(line.startswith("open/ has ") for line in told)
    assert not [line for line in lines if "failed" in line or "waits" in line], lines
    # the API and the machine have a scheduler each
    assert max(lines.values()) <= 3, lines
    gone = [path for path in made if not (path.is_symlink() or path.exists()) and path.parent.name != "tmp"]
    assert not gone, gone


def test_foreign_objects_of_a_bucket(caplog: pytest.LogCaptureFixture) -> None:
    store = Store("memory://foreign")
    for job in ("a1", "b2"):
        store.put(store.path("jobs", job, "request.json"), b"{}")
        store.open_job(job)
    # an object in place of a folder, the object by which some programs mark a folder, and others
    for name in ("jobs/c3", "jobs/notes.txt", "jobs/d4/", "open/x y", "jobs/A/request.json"):
        store.put(store.path(name), b"")
    for _ in range(3):
        assert [job for job in store.job_ids() if job != "d4"] == store.open_jobs() == ["a1", "b2"]
    assert len([record for record in caplog.records if "foreign" in record.getMessage()]) == 2


def test_retention_cleaning_and_verifying_leave_foreign_files(jobs: Jobs, tmp_path: Path) -> None:
    root = Path(jobs.store.uri)
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [write_shard(tmp_path / "a.tar", [jpeg()])], FAKE_PROFILE, "lo").id
        image = jobs.new.create_image(jpeg(21), None, FAKE_PROFILE).id
        for each in (job, image):
            wait_for_end(jobs, each)
    Snapshots(jobs.store).create("good", PartsOf(jobs.store).sources([job]), Selection())
    made = litter(root, *LISTED, *shards_in(jobs), "parts/llm", "superseded")
    age(made)
    # an upload is removed, and nothing else
    retention = Retention(jobs, 1.0)
    assert retention.sweep(1.0) == 0
    (upload,) = [path for path in jobs.store.find("uploads") if Path(root, path) not in made]
    os.utime(root / upload, (1e9, 1e9))
    jobs.queue.job_list.begin("a")
    assert jobs.queue.job_list.finish("a") and retention.sweep(1.0) == 1
    retention.close()
    cleaning = Cleaning(jobs.store, [image])
    paths = [Path(root, path) for path in cleaning.unreferenced()]
    # a damaged manifest of a snapshot may pin parts; what has the name of a part is a part
    ours = [path for path in made if Part.find(str(path.relative_to(root)).removeprefix("broken/"))]
    assert not (set(paths) & set(made)) - set(ours)
    assert [snapshot.name for snapshot in Snapshots(jobs.store).all()] == ["good"]
    assert len(PartsOf(jobs.store).sources([FAKE_PROFILE.fingerprint("llm")], single_images=True)) >= 2
    for arguments in (["verify"], ["verify", job], ["snapshot", "list"], ["snapshot", "show", "good"]):
        result = CliRunner().invoke(app, [*arguments, "--store", jobs.store.uri])
        assert "Traceback" not in result.output and (result.exception is None or result.exit_code), (arguments, result)


@pytest.mark.parametrize("name", ["request.json", "end.json", "shards.json", "cancel.json"])
def test_a_folder_at_the_place_of_a_job_s_file_stops_only_this_job(jobs: Jobs, tmp_path: Path, name: str) -> None:
    scheduler, worker = Scheduler(jobs.queue, jobs.store, high_water=100), HandWorker(jobs)
    bad, good = batch(jobs, "a.tar"), batch(jobs, "b.tar")
    path = Path(jobs.store.path("jobs", bad.id, name))
    path.unlink(missing_ok=True)
    path.mkdir()
    raw_redis(jobs.queue).flushall()
    for _ in range(60):
        scheduler.tick()
        worker.work_all()
    assert jobs.view(good.id).status == "completed"
    assert scheduler.review.listing.page(JobFilter(), 10)[0]


def test_what_is_kept_to_save_work_may_be_damaged(service: Service, tmp_path: Path) -> None:
    root, folder = Path(service.jobs.store.uri), tmp_path / "shards/pictures"
    folder.mkdir()
    for number, damage in enumerate((b"", b"\xff\xfe", b"[[[", b'{"a": 1}', b'["../../x", 1]', b"../../../etc/passwd")):
        (folder / f"{number}.jpg").write_bytes(jpeg(30 + number))
        job = service.submit(str(folder)).json()["id"]
        wait_for_end(service.jobs, job)
        view = service.client.get(f"/v1/jobs/{job}").json()
        assert view["request_counts"]["succeeded"] == number + 1 and not view["shards"]["failed"], view
        for kept in (path for name in ("families", "identities") for path in (root / name).iterdir()):
            kept.write_bytes(damage)
