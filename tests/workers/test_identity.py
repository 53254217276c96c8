"""What a shard is: its content, wherever it lies and whenever it was written. Nothing is computed twice for a move."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import workers.indexer
from bench.processes import Process
from strata.cli import main as cli
from strata.cli.rendering import records as render
from strata.core.requests import JobRequest
from strata.data.sources.samples import SampleError
from strata.data.sources.snapshots import snapshot_source
from strata.jobs.jobs import Jobs
from strata.jobs.results import Results
from strata.queue.queue import Queue
from strata.shards import ImageReader
from strata.shards.image_reader import ShardChanged
from strata.shards.sources import index_shard
from strata.shards.stamps import shard_stamp, shard_stamps
from strata.shards.tar.headers import Window
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from tests.pinned import pin, write_shards
from tests.raw_redis import raw_redis
from tests.service import running_service, write_profile


def run(jobs: Jobs, *shards: str) -> tuple[JobRequest, int]:
    """A job over shards that has ended, and the number of images that were computed for it."""
    with FakeMachine(jobs) as machine:
        job = jobs.new.create("batch", list(shards), FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
        return job, machine.vision.images


def keys_of(jobs: Jobs, job: JobRequest) -> list[str]:
    """The keys of a job's rows that succeeded, sorted."""
    rows = Results(job, jobs.summaries(job.id), jobs.store, jobs.view(job.id).status).page(None, 5000).rows
    return sorted(str(row.key) for row in rows if getattr(row, "status", None) == "succeeded")


def pictures(count: int) -> list[bytes]:
    """Different small images."""
    return [jpeg(20 + number, 20 + number // 7) for number in range(count)]


def test_an_identity_is_the_content(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", pictures(5))
    first = index_shard(shard)
    copy = shutil.copy(shard, tmp_path / "copy.tar")
    os.utime(shard, (1, 1))
    assert index_shard(shard).identity == index_shard(str(copy)).identity == first.identity
    assert index_shard(shard).stamp != first.stamp
    # other images of the same sizes under the same names, another text, one image more
    data = Path(shard).read_bytes()
    at = data.find(pictures(5)[2])
    middle = at + len(pictures(5)[2]) // 2
    changed = tmp_path / "changed.tar"
    changed.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    texts = tmp_path / "texts.tar"
    texts.write_bytes(data.replace(b"alt 3", b"alt 9"))
    others = {index_shard(str(path)).identity for path in (changed, texts)}
    others.add(index_shard(write_shard(tmp_path / "six.tar", pictures(6))).identity)
    assert len(others) == 3 and first.identity not in others


def test_an_identity_does_not_depend_on_how_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "0.tar", [os.urandom(3000 + 700 * number) for number in range(40)])
    identities = set()
    for piece in (2 * 2**20, 5000, 1999, 700):
        monkeypatch.setattr(Window, "PIECE", piece)
        identities.add(index_shard(shard).identity)
    assert len(identities) == 1


@pytest.mark.parametrize("float_times", [False, True])
def test_a_large_image_is_told_apart_by_its_headers_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, float_times: bool
) -> None:
    """Of a large member only parts are read: a tar that was written anew with other bytes between them is another."""
    data = [os.urandom(2**20) for _ in range(3)]

    def write(name: str, time: int, changed: bool) -> str:
        with tarfile.open(tmp_path / name, "w", format=tarfile.PAX_FORMAT) as tar:
            for number, image in enumerate(data):
                member = tarfile.TarInfo(f"{number}.jpg")
                member.size, member.mtime = len(image), time + 0.6 if float_times else time
                image = image[:200_000] + b"other" + image[200_005:] if changed else image
                tar.addfile(member, io.BytesIO(image))
        return str(tmp_path / name)

    first = index_shard(write("first.tar", 1000, changed=False)).identity
    again = write("again.tar", 2000, changed=True)
    identities = set()
    for piece in (2 * 2**20, 5000, 1999, 700):
        monkeypatch.setattr(Window, "PIECE", piece)
        identities.add(index_shard(again).identity)
        assert index_shard(str(tmp_path / "first.tar")).identity == first
    assert len(identities) == 1 and first not in identities


def test_a_touched_a_moved_and_a_copied_shard_are_computed_once(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", pictures(10))
    first, computed = run(jobs, shard)
    assert computed == 10
    os.utime(shard, (1, 1))
    touched, computed = run(jobs, shard)
    assert computed == 0 and jobs.view(touched.id).groups["llm"].reused == 10
    moved = str(shutil.move(shard, tmp_path / "moved.tar"))
    again, computed = run(jobs, moved)
    assert computed == 0 and keys_of(jobs, again) == keys_of(jobs, first)


def test_images_in_a_parquet_file_are_computed_once(jobs: Jobs, tmp_path: Path) -> None:
    shard = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": [{"bytes": data, "path": None} for data in pictures(10)]}), shard)
    first, computed = run(jobs, str(shard))
    assert computed == 10 and len(keys_of(jobs, first)) == 10
    os.utime(shard, (1, 1))
    moved = str(shutil.move(shard, tmp_path / "moved.parquet"))
    again, computed = run(jobs, moved)
    assert computed == 0 and keys_of(jobs, again) == keys_of(jobs, first)


def test_an_unchanged_shard_is_read_once(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(uri: str, roots: object, progress: object) -> object:
        read.append(uri)
        return index_shard(uri)

    monkeypatch.setattr(workers.indexer, "index_shard", counted)
    shard = write_shard(tmp_path / "0.tar", pictures(3))
    run(jobs, shard)
    run(jobs, shard)
    assert read == [shard]
    os.utime(shard, (1, 1))
    run(jobs, shard)
    run(jobs, shard)
    assert read == [shard] * 2


def test_a_shard_that_an_earlier_version_has_read_is_read_once_more(jobs: Jobs, tmp_path: Path) -> None:
    """The rules by which shards are read have changed. What they do not concern keeps its identity and its rows."""
    shard = write_shard(tmp_path / "0.tar", pictures(6))
    first, _ = run(jobs, shard)
    stamps, identity = shard_stamps(shard), jobs.summaries(first.id)[shard].identity
    assert stamps.now and stamps.before and jobs.store.read_identity(stamps.now) == identity
    # an earlier version has kept it under the stamp without the rules
    (Path(jobs.store.root) / "identities" / stamps.now).rename(Path(jobs.store.root) / "identities" / stamps.before)
    again, computed = run(jobs, shard)
    assert computed == 0 and jobs.summaries(again.id)[shard].identity == identity
    assert jobs.store.read_identity(stamps.now) == identity
    # a shard of which the rules make other rows: its earlier rows are still those of the same file
    jobs.store.keep_identity(stamps.before, "0" * 16)
    reader = ImageReader(jobs.store)
    # versions before that have noted it under a stamp without the inode
    jobs.store.keep_identity(stamps.earlier, "2" * 16)
    for known in ("0" * 16, identity, "0" * 16, "2" * 16):
        reader.verify(shard, known)
    with pytest.raises(ShardChanged):
        reader.verify(shard, "1" * 16)


def test_a_job_tells_what_is_left_out(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", pictures(3))
    with tarfile.open(shard, "a") as tar:
        for name in ("LICENSE.txt", "dataset.json", "._0.jpg", "notes.md"):
            member = tarfile.TarInfo(name)
            member.size = 20
            tar.addfile(member, io.BytesIO(b'{"caption": "none"} '))
    expected = {"hidden": 1, "no_image": 1, "text_without_image": 2}
    job, _ = run(jobs, shard)
    view = jobs.view(job.id)
    assert view.shards.left_out == expected and view.request_counts.total == view.request_counts.succeeded == 3
    assert "4 files left out" in render.job_line(view)
    details = render.job_details(view).plain
    assert "left out: 1 hidden file, 1 file that is no image, 2 texts without an image" in details
    # the index part tells it to later jobs
    again, computed = run(jobs, shard)
    assert computed == 0 and jobs.view(again.id).shards.left_out == expected


def test_an_index_part_of_an_earlier_version_stays(jobs: Jobs, tmp_path: Path) -> None:
    """Its identity was the stamp of the shard's file: nothing is computed again after the upgrade."""
    shard = write_shard(tmp_path / "0.tar", pictures(6))
    job, _ = run(jobs, shard)
    (summary,) = jobs.summaries(job.id).values()
    stamp = shard_stamps(shard).earlier
    for group in ("vision", "llm"):
        for chunk in job.chunks(summary, group):
            jobs.store.write_records(replace(chunk, identity=stamp), jobs.store.read_records(chunk))
    index = job.index_chunk(shard, stamp)
    jobs.store.write_index(index, jobs.store.read_index(replace(index, identity=summary.identity))[0])
    for folder in (Path(jobs.store.root) / "parts").glob(f"*/*/{summary.identity}"):
        shutil.rmtree(folder)
    shutil.rmtree(Path(jobs.store.root) / "identities")
    raw_redis(jobs.queue).flushall()
    again, computed = run(jobs, shard)
    assert computed == 0 and jobs.summaries(again.id)[shard].identity == stamp


def test_two_shards_of_one_content_in_a_job(jobs: Jobs, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", pictures(9))
    shards = [shard, *(str(shutil.copy(shard, tmp_path / f"{number}.tar")) for number in (1, 2))]
    job, computed = run(jobs, *shards)
    counts = jobs.view(job.id).request_counts
    assert computed == 9 and (counts.total, counts.succeeded) == (27, 27)
    assert len(keys_of(jobs, job)) == 27
    again, computed = run(jobs, *shards)
    assert computed == 0 and jobs.view(again.id).request_counts.succeeded == 27


def test_a_reader_finds_a_touched_shard_unchanged(store: Store, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", pictures(4))
    identity, reader = index_shard(shard).identity, ImageReader(store)
    reader.verify(shard, identity)
    os.utime(shard, (1, 1))
    reader.verify(shard, identity)
    assert store.read_identity(shard_stamp(shard)) == identity
    write_shard(tmp_path / "0.tar", pictures(5))
    with pytest.raises(ShardChanged, match="has changed since it was indexed"):
        reader.verify(shard, identity)


def test_a_store_that_was_moved_has_everything(queue: Queue, tmp_path: Path) -> None:
    """Jobs, rows and pictures of uploads and shards are there, and a second submission computes nothing."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    uploads = [jpeg(40, 30), jpeg(41, 31)]
    with running_service(queue, first) as service:
        shard = write_shard(first / "shards" / "0.tar", pictures(5))
        batch = service.submit(shard).json()["id"]
        wait_for_end(service.jobs, batch)
        answers = [service.caption(data) for data in uploads]
        records = [answer.json() for answer in answers]
        singles = [answer.headers["Location"].rpartition("/")[2] for answer in answers]
    assert all(record["image"]["uri"].startswith("upload:") for record in records)
    assert str(tmp_path) not in "".join(map(str, records))
    # another machine: other paths, an empty Redis, nothing of the first place
    shutil.copytree(first / "data", second / "data")
    (second / "shards").mkdir()
    moved = str(shutil.copy(shard, second / "shards" / "0.tar"))
    shutil.rmtree(first)
    raw_redis(queue).flushall()
    roots = {f"{first}/shards": f"{second}/shards"}
    with running_service(queue, second, moved_roots=roots) as service:
        assert service.client.get(f"/v1/jobs/{batch}").json()["request_counts"]["succeeded"] == 5
        rows = service.client.get(f"/v1/jobs/{batch}/results").text.splitlines()
        assert len(rows) == 5
        assert service.client.get(f"/v1/records/{batch}/000000001/image").content == pictures(5)[1]
        for job in singles:
            key = service.client.get(f"/v1/jobs/{job}/results").json()["key"]
            assert service.client.get(f"/v1/records/{job}/{key}/image").content in uploads
            assert service.client.get(f"/v1/records/{job}/{key}/overlay.png").status_code == 200
        again = service.submit(moved).json()["id"]
        wait_for_end(service.jobs, again)
        assert [service.caption(data).json()["key"] for data in uploads] == [record["key"] for record in records]
        assert service.machine is not None and service.machine.vision.images == 0
        # the second job's shard is where it says, so its pictures need no mapping
        assert service.client.get(f"/v1/records/{again}/000000001/image").content == pictures(5)[1]


def test_uploads_of_an_earlier_version_are_found_in_a_moved_store(store: Store, tmp_path: Path) -> None:
    data = jpeg()
    digest = hashlib.sha256(data).hexdigest()
    uri = store.upload_uri(digest)
    store.put_upload(digest, data)
    assert uri == f"upload:{digest}" and store.read_upload(uri) == data
    old = f"/srv/strata/store/uploads/{digest[:2]}/{digest}"
    for name in (old, f"file://{old}", f"s3://bucket/store/uploads/{digest[:2]}/{digest}"):
        assert Path(store.locate(name)).read_bytes() == data == store.read_upload(name)
    missing = old.replace(digest[2:], "0" * 62)
    assert store.locate(missing) == missing


def test_moves_are_prefixes_of_whole_names(tmp_path: Path) -> None:
    store = Store(str(tmp_path), {"/data": "/new", "/data/deep/": "s3://bucket/deep", "s3://old": "/mnt"})
    assert store.locate("/data/a.tar") == "/new/a.tar"
    assert store.locate("/data/deep/a.tar") == "s3://bucket/deep/a.tar"
    assert store.locate("/database/a.tar") == "/database/a.tar"
    assert store.locate("s3://old/x/a.tar") == "/mnt/x/a.tar" and store.locate("/data") == "/new"


def test_a_worker_reads_images_where_they_lie_now(
    jobs: Jobs, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    with FakeMachine(jobs) as machine:
        run_vision = machine.vision.run

        def fail(batch: Any) -> Any:
            return [one.failed("captioner", "why", "no") for one in run_vision(batch)]

        monkeypatch.setattr(machine.vision, "run", fail)
        job = jobs.new.create("batch", [write_shard(old / "0.tar", pictures(3))], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
    assert jobs.view(job.id).request_counts.failed == 3
    # a real worker computes the images that failed
    old.rename(new)
    jobs.retry(job.id)
    write_profile(tmp_path)
    settings = {
        "REDIS_URL": valkey_url,
        "STRATA_STORE": jobs.store.uri,
        "STRATA_PROFILES_DIR": str(tmp_path),
        "STRATA_PROFILE": "fake",
    }
    command = ["-m", "strata", "worker", "--groups", "vision", "--root", f"{old}={new}"]
    worker = Process(command, settings, tmp_path / "worker.log")
    try:
        with FakeMachine(jobs, vision=False):
            wait_for_end(jobs, job.id)
    finally:
        worker.end()
    assert jobs.view(job.id).request_counts.succeeded == 3, (tmp_path / "worker.log").read_text(encoding="utf-8")


def test_nothing_tells_where_the_store_lies(queue: Queue, tmp_path: Path) -> None:
    """Neither records nor envelopes nor problems, also when files of the store are gone."""
    with running_service(queue, tmp_path) as service:
        answer = service.caption(jpeg())
        bad = write_shard(tmp_path / "shards" / "0.tar", [b"no image", *pictures(3)])
        batch = service.submit(bad).json()["id"]
        wait_for_end(service.jobs, batch)
        job, key = answer.headers["Location"].rpartition("/")[2], answer.json()["key"]
        store = Path(service.jobs.store.root)
        paths = [f"/v1/jobs/{one}{rest}" for one in (job, batch) for rest in ("", "/results", "/failures", "/events")]
        paths += ["/v1/jobs", *(f"/v1/records/{job}/{key}{rest}" for rest in ("", "/image", "/overlay.png"))]

        def told() -> str:
            return "".join(service.client.get(path).text for path in paths)

        assert str(store) not in told()
        for folder in ("uploads", "parts/llm", "parts/index"):
            shutil.rmtree(store / folder)
            text = told()
            assert str(store) not in text and str(tmp_path / "data") not in text
        Path(bad).unlink()
        (tmp_path / "folder").symlink_to(tmp_path / "nothing")
        missing = service.client.get(f"/v1/records/{batch}/000000001/image").text
        assert str(store) not in missing and "Errno" not in missing


def test_images_of_moved_shards_are_read_for_training_and_exports(store: Store, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "old", 2, 4)
    snapshot = pin(store, shards)
    before = [sample.images[0] for sample in snapshot_source(store, snapshot, "caption", tmp_path / "a").read(range(8))]
    shutil.move(tmp_path / "old", tmp_path / "new")
    source = snapshot_source(store, snapshot, "caption", tmp_path / "a")
    assert sorted(source.missing().lines) == [f"no such shard: {shard}" for shard in shards]
    with pytest.raises(SampleError, match="no such shard"):
        source.read(range(8))
    moved = Store(store.uri, {f"{tmp_path}/old": f"{tmp_path}/new"})
    found = snapshot_source(moved, snapshot, "caption", tmp_path / "a")
    assert found.missing().lines == [] and [sample.images[0] for sample in found.read(range(8))] == before
    # readers are copied to the processes of a DataLoader
    assert [sample.images[0] for sample in pickle.loads(pickle.dumps(found)).read(range(8))] == before
    arguments = ["export", "pinned", "--store", store.uri, "--format", "llava", "--layer", "caption"]
    root = f"{tmp_path}/old={tmp_path}/new"
    for more, refused in (["--out", f"{tmp_path}/out0"], True), (["--root", root, "--out", f"{tmp_path}/out1"], False):
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, *more])
        assert bool(ended.value.code) is refused
    assert len(list((tmp_path / "out1").rglob("*.jpg"))) == 8
