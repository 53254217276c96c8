"""A copy of a store, made while jobs ran, is gone on from with an empty Redis: nothing is lost or computed again."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from bench.chaos import read_rows
from strata.core.schemas import JobStatus
from strata.jobs import scheduler
from strata.jobs.jobs import Jobs
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for, wait_for_end, write_shard
from tests.raw_redis import raw_redis

IMAGES = 12  # of a shard: three chunks
FIRST = ("jobs", "open")  # what docs/operations.md copies first


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler compares everything with the store several times a second."""
    monkeypatch.setattr(scheduler, "REVIEW_SECONDS", 0.2)


def copy_files(source: Path, target: Path, *left_out: str) -> None:
    """Copy a folder as rsync does, in the order of names; what vanishes meanwhile is left out."""
    for folder, names, files in os.walk(source):
        names[:] = sorted(name for name in names if folder != str(source) or name not in left_out)
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in sorted(files):
            with suppress(FileNotFoundError):
                shutil.copy2(Path(folder) / name, place / name)


def copy_store(source: Path, target: Path) -> None:
    for name in FIRST:
        copy_files(source / name, target / name)
    copy_files(source, target, "tmp", *FIRST)


def parts_of(store: Path) -> dict[Path, int]:
    """The parts' files with their times."""
    return {path: path.stat().st_mtime_ns for path in store.glob("parts/*/*/*/*.parquet")}


def restored(queue: Queue, store: Path) -> Jobs:
    """The jobs of a store, with nothing in Redis."""
    raw_redis(queue).flushall()
    return Jobs(queue, Store(str(store)))


def test_copies_of_a_working_store_are_gone_on_from(queue: Queue, tmp_path: Path) -> None:
    jobs, ids = Jobs(queue, Store(str(tmp_path / "store"))), list[str]()
    with FakeMachine(jobs, seconds=0.05):
        # each copy has jobs that have ended, and one that is half done
        for number in range(2):
            images = [jpeg(32 + image, 24 + number) for image in range(IMAGES)]
            shard = write_shard(tmp_path / f"{number}.tar", images, number * IMAGES)
            ids.append(jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id)
            wait_for(lambda: jobs.view(ids[-1]).groups["vision"].images >= 4)
            copy_store(tmp_path / "store", tmp_path / f"copy-{number}")
        for job in ids:
            wait_for_end(jobs, job)
        expected = {job: read_rows(jobs.store, jobs.view(job)) for job in ids}
    for number in range(2):
        copy = tmp_path / f"copy-{number}"
        had, again = parts_of(copy), restored(queue, copy)
        assert 0 < len(had) < len(parts_of(tmp_path / "store"))
        with FakeMachine(again) as machine:
            for job in ids[: number + 1]:
                wait_for_end(again, job)
                assert again.view(job).status is JobStatus.COMPLETED
                assert read_rows(again.store, again.view(job)) == expected[job]
            assert machine.vision.images < IMAGES
        assert parts_of(copy).items() >= had.items()  # what was there is not written again


def test_what_a_copy_lacks_of_a_job_does_not_lose_it(queue: Queue, store: Store, tmp_path: Path) -> None:
    jobs = Jobs(queue, store)
    shard = write_shard(tmp_path / "0.tar", [jpeg()] * IMAGES)
    ended, unmarked, begun = (jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id for _ in range(3))
    with FakeMachine(jobs):
        wait_for_end(jobs, ended)
    # the copy has of one the mark and the end, of one no mark though it has not ended, of one nothing but the mark
    store.open_job(ended)
    for job in (unmarked, begun):
        store.remove_job_file(job, "end")
    store.close_job(unmarked)
    store.remove_job(begun)
    store.open_job(begun)
    again = restored(queue, Path(store.root))
    with FakeMachine(again) as machine:
        wait_for(lambda: again.view(unmarked).status is JobStatus.COMPLETED)
        wait_for(lambda: store.open_jobs() == [begun])
        assert again.view(ended).status is JobStatus.COMPLETED and machine.vision.images == 0
