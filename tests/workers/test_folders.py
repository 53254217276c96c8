"""Folders and lists keep what they had: a new version computes only what is new, and a job keeps its own version."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strata.core.profiles import Profile
from strata.core.records import Record
from strata.core.requests import JobRequest
from strata.jobs.jobs import Jobs
from strata.jobs.results import Results
from strata.shards.stamps import same_time
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, read_in_pieces, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from workers.items import ItemReader, WorkItem
from workers.prepared import PIECE_BYTES

PROFILE = FAKE_PROFILE.model_copy(update={"chunk_size": 64, "micro_batch": 32})
SMALL_CHUNKS = FAKE_PROFILE.model_copy(update={"chunk_size": 8, "micro_batch": 4})
MANY = 125  # in 16 of the small chunks


class Run(NamedTuple):
    """A job that has ended, and how many images were computed for it by the groups `vision` and `llm`."""

    job: JobRequest
    vision: int
    llm: int


def run(jobs: Jobs, *shards: str, profile: Profile = PROFILE) -> Run:
    """Run a job over shards; the images of a list may lie anywhere."""
    with FakeMachine(jobs, profile=profile, roots=["/"]) as machine:
        job = jobs.new.create("batch", list(shards), profile, "lo")
        wait_for_end(jobs, job.id, 120)
        return Run(job, machine.vision.images, machine.llm.images)


def retried(jobs: Jobs, job: JobRequest) -> None:
    """Retry a job, and wait for its end."""
    jobs.retry(job.id)
    with FakeMachine(jobs, profile=PROFILE):
        wait_for_end(jobs, job.id, 60)


def rows(jobs: Jobs, job: JobRequest) -> dict[str, str]:
    """A job's rows: for each key the description, or the reason of the failure."""
    status = jobs.view(job.id).status
    results = Results(jobs.request(job.id), jobs.summaries(job.id), jobs.store, status)
    found: dict[str, str] = {}
    cursor = None
    while True:
        page = results.page(cursor, 500)
        for row in page.rows:
            text = getattr(row, "description", None)
            found[str(row.key)] = text.text if text else str(row.failure)
        if page.next is None:
            return found
        cursor = page.next


def made(folder: Path, count: int) -> Path:
    """A folder of different images, each with a text."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04d}.jpg").write_bytes(jpeg(10 + number % 40, 10 + number // 40))
        (folder / f"{number:04d}.txt").write_text(f"alt {number}")
    return folder


def test_a_folder_with_one_file_more_touched_or_less(jobs: Jobs, tmp_path: Path) -> None:
    folder = made(tmp_path / "folder", MANY)
    first = run(jobs, str(folder), profile=SMALL_CHUNKS)
    assert (first.vision, first.llm) == (MANY, MANY)
    before = rows(jobs, first.job)
    # one file more, in the middle, so that all later images lie in other chunks or at other places
    (folder / "0062-new.jpg").write_bytes(jpeg(90, 91))
    more = run(jobs, str(folder), profile=SMALL_CHUNKS)
    assert (more.vision, more.llm) == (1, 1)
    view = jobs.view(more.job.id)
    assert view.request_counts.succeeded == MANY + 1
    assert (view.groups["vision"].reused, view.groups["llm"].reused) == (MANY, MANY)
    assert rows(jobs, more.job) == before | {"0062-new": "90 by 91"}
    # one file touched: its bytes are read, and found to be the same
    os.utime(folder / "0007.jpg", (1, 1))
    touched = run(jobs, str(folder), profile=SMALL_CHUNKS)
    assert (touched.vision, touched.llm) == (0, 0)
    assert rows(jobs, touched.job) == rows(jobs, more.job)
    # one file less: the job that had it still has its row
    (folder / "0003.jpg").unlink()
    less = run(jobs, str(folder), profile=SMALL_CHUNKS)
    assert (less.vision, less.llm) == (0, 0)
    assert rows(jobs, less.job) == {key: text for key, text in rows(jobs, more.job).items() if key != "0003"}
    assert rows(jobs, first.job) == before and "0003" in before
    # the same folder once more costs nothing at all
    assert run(jobs, str(folder), profile=SMALL_CHUNKS)[1:] == (0, 0)


def test_what_is_new_in_a_folder_is_computed(jobs: Jobs, tmp_path: Path) -> None:
    folder = made(tmp_path / "folder", 100)
    run(jobs, str(folder))
    # other bytes of the same size, another text, a renamed file
    data = (folder / "0001.jpg").read_bytes()
    (folder / "0001.jpg").write_bytes(data[:-3] + b"\0" + data[-2:])
    (folder / "0002.txt").write_text("another text")
    (folder / "0003.jpg").rename(folder / "renamed.jpg")
    (folder / "0003.txt").rename(folder / "renamed.txt")
    second = run(jobs, str(folder))
    assert (second.vision, second.llm) == (2, 2)
    found = rows(jobs, second.job)
    assert len(found) == 100 and "renamed" in found and "0003" not in found


@pytest.mark.parametrize("piece", [PIECE_BYTES, 4000])
def test_a_copy_of_a_folder_and_a_moved_one(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    folder = made(tmp_path / "folder", 100)
    first = run(jobs, str(folder))
    read_in_pieces(monkeypatch, piece)
    # a copy whose files have other times: the bytes decide
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    second = run(jobs, str(copy))
    assert (second.vision, second.llm) == (0, 0) and rows(jobs, second.job) == rows(jobs, first.job)
    moved = run(jobs, str(shutil.move(folder, tmp_path / "moved")))
    assert (moved.vision, moved.llm) == (0, 0) and rows(jobs, moved.job) == rows(jobs, first.job)


def test_a_failed_row_of_an_earlier_version_is_computed_again(jobs: Jobs, tmp_path: Path) -> None:
    folder = made(tmp_path / "folder", 10)
    (folder / "bad.jpg").write_bytes(b"no image")
    first = run(jobs, str(folder))
    assert jobs.view(first.job.id).request_counts.failed == 1
    (folder / "new.jpg").write_bytes(jpeg())
    second = run(jobs, str(folder))
    assert second.vision == 1 and jobs.view(second.job.id).request_counts.failed == 1
    (folder / "bad.jpg").write_bytes(jpeg(33, 44))
    third = run(jobs, str(folder))
    assert third.vision == 1 and rows(jobs, third.job)["bad"] == "33 by 44"


def test_a_description_is_not_taken_over_for_other_layers(jobs: Jobs, tmp_path: Path) -> None:
    """Vision's part of the new version was computed anew; its layers differ from those of the old description."""
    folder = made(tmp_path / "folder", 8)
    first = run(jobs, str(folder))
    (summary,) = jobs.summaries(first.job.id).values()
    # as if an earlier version had composed from another caption
    (chunk,) = first.job.chunks(summary, "llm")
    records = jobs.store.read_records(chunk)
    caption = records[2].caption
    assert caption is not None
    records[2] = records[2].model_copy(update={"caption": caption.model_copy(update={"text": "another"})})
    jobs.store.write_records(chunk, records)
    (folder / "new.jpg").write_bytes(jpeg())
    second = run(jobs, str(folder))
    assert (second.vision, second.llm) == (1, 2)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_list_with_one_entry_more_and_one_image_changed(jobs: Jobs, tmp_path: Path, kind: str) -> None:
    folder = made(tmp_path / "folder", 60)

    def write(count: int) -> str:
        entries = [{"image": f"folder/{number:04d}.jpg", "caption": f"c {number}"} for number in range(count)]
        path = tmp_path / f"list.{kind}"
        if kind == "jsonl":
            path.write_text("\n".join(map(json.dumps, entries)))
        else:
            pq.write_table(pa.Table.from_pylist(entries), path)
        return str(path)

    job, computed, _ = run(jobs, write(50))
    assert computed == 50 == len(rows(jobs, job))
    more = run(jobs, write(60))
    assert (more.vision, more.llm) == (10, 10) and len(rows(jobs, more.job)) == 60
    # the list's own file is the same, but one of its images is not
    (folder / "0000.jpg").write_bytes(jpeg(99, 98))
    changed = run(jobs, str(tmp_path / f"list.{kind}"))
    assert (changed.vision, changed.llm) == (1, 1) and rows(jobs, changed.job)["0000"] == "99 by 98"
    assert len(rows(jobs, job)) == 50


def test_a_description_is_not_composed_from_another_image_than_the_layers(jobs: Jobs, tmp_path: Path) -> None:
    """A file was replaced by one of equal size after `vision` had read it: a composer that sees images is not asked."""
    folder = made(tmp_path / "folder", 3)
    first = run(jobs, str(folder))
    (summary,) = jobs.summaries(first.job.id).values()
    (chunk,) = first.job.chunks(summary, "vision")
    seen = [WorkItem(record) for record in jobs.store.read_records(chunk)]
    data = (folder / "0001.jpg").read_bytes()
    (folder / "0001.jpg").write_bytes(data[:-3] + b"\0" + data[-2:])
    items = ItemReader(jobs.store).read(chunk, seen)
    assert [item.settled for item in items] == [False, True, False]
    failure = items[1].record.failure
    assert failure is not None and failure.transient and failure.error_type == "ShardChanged"


def test_equal_names_sizes_and_times_at_two_places_are_not_equal_images(jobs: Jobs, tmp_path: Path) -> None:
    """Archives that are made reproducibly give all files one time."""
    folder = made(tmp_path / "folder", 20)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    image = (other / "0001.jpg").read_bytes()
    (other / "0001.jpg").write_bytes(image[:-3] + b"\0" + image[-2:])
    for file in (*folder.iterdir(), *other.iterdir()):
        os.utime(file, (1, 1))
    first, second = run(jobs, str(folder)), run(jobs, str(other))
    assert (first.vision, second.vision) == (20, 1)
    digests = {sha256 for one in (first, second) for sha256 in digests_of(jobs, one.job)}
    assert len(digests) == 21
    assert sorted(digests_of(jobs, second.job)) == sorted(
        hashlib.sha256(file.read_bytes()).hexdigest() for file in other.glob("*.jpg")
    )


def digests_of(jobs: Jobs, job: JobRequest) -> list[str]:
    """The SHA-256 of the images of a job's rows, in order."""
    found = Results(job, jobs.summaries(job.id), jobs.store, jobs.view(job.id).status).page(None, 500).rows
    return [str(row.image.sha256) for row in found if isinstance(row, Record)]


def test_two_files_of_one_size_and_time_that_change_places(jobs: Jobs, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    image = jpeg()
    for name, data in (("a", image), ("b", image[:-3] + b"\0" + image[-2:])):
        (folder / f"{name}.jpg").write_bytes(data)
        os.utime(folder / f"{name}.jpg", (1, 1))
    first = run(jobs, str(folder))
    (folder / "a.jpg").rename(folder / "c.jpg")
    (folder / "b.jpg").rename(folder / "a.jpg")
    (folder / "c.jpg").rename(folder / "b.jpg")
    second = run(jobs, str(folder))
    # both are known by their content
    assert (first.vision, second.vision) == (2, 0)
    assert digests_of(jobs, second.job) == digests_of(jobs, first.job)[::-1]


def test_a_file_that_was_another_while_it_was_read(jobs: Jobs, tmp_path: Path) -> None:
    """A file is replaced by one of equal size between `index` and `vision`, and put back: no row has its pixels."""
    folder = made(tmp_path / "folder", 3)
    file, kept = folder / "0001.jpg", tmp_path / "kept.jpg"
    with FakeMachine(jobs, vision=False, profile=PROFILE):
        job = jobs.new.create("batch", [str(folder)], PROFILE, "lo")
        until = time.monotonic() + 120
        while jobs.store.read_job_file(job.id, "shards") is None:
            assert time.monotonic() < until
            time.sleep(0.02)
    file.rename(kept)
    data = kept.read_bytes()
    file.write_bytes(data[:-3] + b"\0" + data[-2:])
    os.utime(file, ns=(1, 1))
    with FakeMachine(jobs, profile=PROFILE):
        wait_for_end(jobs, job.id, 60)
    assert "no longer the one that was indexed" in rows(jobs, job)["0001"]
    assert jobs.view(job.id).request_counts.succeeded == 2
    kept.rename(file)
    # another machine may number the inodes of a mount in another way, which is no change
    assert same_time("1.5 7", "1.5 8") and not same_time("1.5 7", "2.5 7")
    again = run(jobs, str(folder))
    assert again.vision == 1 and digests_of(jobs, again.job)[1] == hashlib.sha256(data).hexdigest()


# a job keeps its version


def test_a_retry_takes_up_no_new_file_and_loses_no_row(jobs: Jobs, tmp_path: Path) -> None:
    folder = made(tmp_path / "folder", 20)
    (folder / "bad.jpg").write_bytes(b"no image")
    first = run(jobs, str(folder))
    before = rows(jobs, first.job)
    assert len(before) == 21
    (folder / "new.jpg").write_bytes(jpeg())
    (folder / "0004.jpg").unlink()
    retried(jobs, first.job)
    assert rows(jobs, first.job).keys() == before.keys()
    counts = jobs.view(first.job.id).request_counts
    assert (counts.total, counts.succeeded, counts.failed) == (21, 20, 1)
    # what failed is read again: the file is good now, and has the same size
    (folder / "bad.jpg").write_bytes(b"no bytes")
    raw_redis(jobs.queue).flushall()
    retried(jobs, first.job)
    assert rows(jobs, first.job).keys() == before.keys()


def test_an_unfinished_job_keeps_its_version_when_redis_is_emptied(jobs: Jobs, tmp_path: Path) -> None:
    folder = made(tmp_path / "folder", 20)
    with FakeMachine(jobs, vision=False, profile=PROFILE):
        job = jobs.new.create("batch", [str(folder)], PROFILE, "lo")
        until = time.monotonic() + 120
        while jobs.store.read_job_file(job.id, "shards") is None:
            assert time.monotonic() < until
            time.sleep(0.02)
    (folder / "new.jpg").write_bytes(jpeg())
    raw_redis(jobs.queue).flushall()
    with FakeMachine(jobs, profile=PROFILE):
        wait_for_end(jobs, job.id)
    assert len(rows(jobs, job)) == 20 and "new" not in rows(jobs, job)


def test_a_shard_that_could_not_be_read_is_read_by_a_retry(jobs: Jobs, tmp_path: Path) -> None:
    folder = made(tmp_path / "folder", 5)
    missing = tmp_path / "late.tar"
    first = run(jobs, str(folder), str(missing))
    assert jobs.view(first.job.id).shards.failed == 1
    write_shard(missing, [jpeg(), jpeg(50, 50)])
    (folder / "new.jpg").write_bytes(jpeg())
    retried(jobs, first.job)
    view = jobs.view(first.job.id)
    assert (view.shards.failed, view.request_counts.total, view.request_counts.succeeded) == (0, 7, 7)
