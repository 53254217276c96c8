"""A bucket as the store and as the source of shards: s3fs over real HTTP to moto's server, fake stages."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem
from torch.utils.data import DataLoader

from strata.core.chunks import Chunk
from strata.core.layers import LAYERS
from strata.core.records import ImageReference, Record
from strata.data.exports import Request, export
from strata.data.mixture_files import Locations, SourceSettings
from strata.data.mixtures import Mixture
from strata.data.reader import Sample, SampleReader
from strata.data.sources.samples import SampleError, TableSource
from strata.data.sources.snapshots import snapshot_source
from strata.data.substitutes import SourceAway
from strata.queue.queue import Queue
from strata.search import Query, Scope, Search, SearchIndex
from strata.shards import SourceError, find_shards, globs, index_shard, read_images
from strata.shards.globs import Effort
from strata.snapshots.cleaning import Cleaning
from strata.snapshots.selection import Selection
from strata.snapshots.snapshots import SnapshotExists, Snapshots
from strata.store.bundles import Busy, Compaction, locks
from strata.store.index_rows import IndexRow
from strata.store.part_format import BrokenPart
from strata.store.part_paths import LOCK, Part
from strata.store.parts import PartsOf
from strata.store.store import Store
from tests.described import FINGERPRINT, described, write_part
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.pinned import pin
from tests.secrets import SECRET
from tests.servers.buckets import end_session, fresh_sessions, s3_server
from tests.service import Service, running_service

SHARD = Path(__file__).resolve().parents[2] / "samples" / "shards" / "00000.tar"
BUCKET = "strata-test"
MISSING = "s3://somebody-elses/00000.tar"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3-compatible server's URL."""
    with s3_server() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Remove all settings of S3, and the instances that fsspec caches with their settings."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with fresh_sessions():
        yield monkeypatch


@pytest.fixture
def bucket(server: str, settings: pytest.MonkeyPatch) -> Iterator[S3FileSystem]:
    """A file system of another client on an empty bucket; the environment names server and keys, as for users."""
    settings.setenv("AWS_ENDPOINT_URL", server)
    settings.setenv("AWS_ACCESS_KEY_ID", "key")
    settings.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    client = S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    client.mkdir(BUCKET)
    yield client
    end_session(client)
    requests.post(f"{server}/moto-api/reset", timeout=10).raise_for_status()


def test_the_sessions_of_a_test_end_with_it(bucket: S3FileSystem, caplog: pytest.LogCaptureFixture) -> None:
    with fresh_sessions():
        Store(f"s3://{BUCKET}/store").names("parts")
        (client,) = S3FileSystem._cache.values()
        assert client._s3._endpoint.http_session._sessions  # one is open
    assert client._s3._endpoint.http_session._sessions is None
    # what s3fs does when the file system is collected while another event loop runs, as in a later test
    session = client._s3creator

    async def collect() -> None:
        client.close_session(client.loop, session)
        await asyncio.sleep(0)

    asyncio.run(collect())
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def finished(service: Service, *shards: str) -> dict[str, Any]:
    """Run a job over shards; return its view after it has ended."""
    answer = service.submit(*shards)
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    wait_for_end(service.jobs, job, 60)
    view: dict[str, Any] = service.client.get(f"/v1/jobs/{job}").json()
    return view


def failures(service: Service, job: str) -> list[dict[str, Any]]:
    """The rows of /failures."""
    return rows(service, f"/v1/jobs/{job}/failures")


def rows(service: Service, path: str) -> list[dict[str, Any]]:
    """Parse a response in JSON Lines."""
    return [json.loads(line) for line in service.client.get(path).text.splitlines()]


def test_a_job_from_bucket_to_bucket(bucket: S3FileSystem, queue: Queue, tmp_path: Path) -> None:
    bucket.put(str(SHARD), f"{BUCKET}/shards/00000.tar")
    locations: dict[str, Any] = {"store": f"s3://{BUCKET}/store", "shard_roots": [f"s3://{BUCKET}/shards"]}
    with running_service(queue, tmp_path, **locations) as service:
        first = finished(service, f"s3://{BUCKET}/shards/00000.tar")
        assert first["status"] == "completed"
        assert first["request_counts"]["total"] == first["request_counts"]["succeeded"] == 64
        again = finished(service, f"s3://{BUCKET}/shards/{{00000..00000}}.tar")
        assert again["groups"]["llm"]["reused"] == 64
        keys = {row["key"] for row in rows(service, f"/v1/jobs/{first['id']}/results?limit=100")}
        assert len(keys) == 64
        assert service.client.get(f"/v1/records/{first['id']}/{min(keys)}/image").content.startswith(b"\xff\xd8")
        assert service.caption(jpeg()).json()["caption"]["text"] == "32 by 24"
    parts = {group: bucket.find(f"{BUCKET}/store/parts/{group}") for group in ("index", "vision", "llm")}
    assert {group: len(names) for group, names in parts.items()} == {"index": 2, "vision": 17, "llm": 17}
    assert not (tmp_path / "data").exists()  # nothing of a bucket's store is kept on disk


@pytest.mark.parametrize(
    "name", ["a//b", "a/./b", "with space", "1+1=2", "100%25", "%20", "😀 漢", "a&b;c,d'e\"f", "[0]"]
)
def test_any_name_of_an_object(bucket: S3FileSystem, name: str) -> None:
    """The key of an object is not changed: it is no path of a file system."""
    top = f"s3://{BUCKET}/{name}"
    bucket.pipe_file(f"{BUCKET}/{name}/0.tar", SHARD.read_bytes())
    bucket.pipe_file(f"{BUCKET}/{name}/x{name.replace('/', '')}.jpg", b"image")
    bucket.pipe_file(f"{BUCKET}/{name}/l.jsonl", json.dumps({"image": f"x{name.replace('/', '')}.jpg"}).encode())
    (tar,) = find_shards([f"{top}/0.tar"], [f"s3://{BUCKET}"])
    index = index_shard(tar)
    assert len(index.rows) == 64 and isinstance(read_images(index.rows[:1])[0], bytes)
    for shard in (f"{top}/l.jsonl", f"{top}/x{name.replace('/', '')}.jpg", f"{top}/"):
        (found,) = find_shards([shard], [f"s3://{BUCKET}/{name}"])
        rows = index_shard(found, [f"s3://{BUCKET}/{name}"]).rows
        assert read_images(rows) == [b"image"], rows


def test_globs_in_a_bucket(bucket: S3FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/0.tar", "a/1.tar", "b/0.tar", "b/[0].tar", "0.tar"):
        bucket.pipe_file(f"{BUCKET}/{name}", b"1")
    bucket.pipe_file(f"{BUCKET}/list.txt", b"a/0.tar\n*/1.tar\n")
    roots = [f"s3://{BUCKET}"]
    for patterns, names in (
        ([f"s3://{BUCKET}/*/*.tar"], ["a/0.tar", "a/1.tar", "b/0.tar", "b/[0].tar"]),
        ([f"s3://{BUCKET}/*/[0].*"], ["b/[0].tar"]),
        ([f"s3://{BUCKET}/*/"], ["a", "b"]),
        ([f"@s3://{BUCKET}/list.txt"], ["a/0.tar", "a/1.tar"]),
    ):
        assert find_shards(patterns, roots) == [f"s3://{BUCKET}/{name}" for name in names]
    # a listing is given up when the time of the request is over
    monkeypatch.setattr(globs, "MAX_SECONDS", 0.01)
    monkeypatch.setattr(Effort, "count", lambda *_: None)
    with pytest.raises(SourceError, match="cannot be listed: FSTimeoutError"):
        find_shards([f"s3://{BUCKET}/*/*.tar"], roots)


def test_a_store_sees_what_others_write_and_remove(bucket: S3FileSystem) -> None:
    store, other = Store(f"s3://{BUCKET}/store"), Store(f"s3://{BUCKET}/store")
    other.fs = bucket
    first, second = (Chunk("llm", "fake", "f" * 16, "shard", "i" * 16, number, 1) for number in (0, 1))
    record = Record(key="a", image=ImageReference(uri="u", offset=0, size=1))
    assert not store.has_part(first)
    other.write_records(first, [record])
    assert store.has_part(first) and store.job_ids() == []
    assert len(store.fs.ls(store.part_path(first).rpartition("/")[0])) == 1  # a listing that could be cached
    other.write_records(second, [record])
    bucket.rm_file(other.part_path(first))
    assert store.has_part(second) and not store.has_part(first)


def test_attempts_and_broken_parts_in_a_bucket(bucket: S3FileSystem) -> None:
    """A bucket copies and deletes where a folder renames, and lists only the files of a chunk."""
    store = Store(f"s3://{BUCKET}/store")
    first = Chunk("llm", "fake", "f" * 16, "shard", "i" * 16, 3, 1)
    second, record = replace(first, attempt=1), Record(key="a", image=ImageReference(uri="u", offset=0, size=1))
    store.write_records(replace(first, number=31), [record])
    store.write_records(first, [record.failed("read", "OSError", "away", transient=True)])
    assert store.newest(first) == first and store.newest(second) is None
    store.write_records(second, [record])
    assert store.newest(first) == second and store.attempts_before(second) == [first]
    path = store.relative(store.part_path(second))
    assert set(store.find("parts")) == {path, path.replace("00003.1", "00031")}
    assert store.read_footer(first).transient == 1 and store.read_records(second) == [record]
    assert store.read_columns(path, ["key", "tags"]).num_rows == 1
    # a first attempt that is written late is moved away by the next who lists the folder
    store.write_records(first, [record])
    store.tidy(Part.of_chunk(first), store.attempts(first))
    assert set(store.find("parts")) == {path, path.replace("00003.1", "00031")}
    assert store.read_footer(first).counts == {"failed": 1}
    # a broken part is set aside, and the attempt is computed again
    data = store.get(store.path(path))
    store.put(store.path(path), data[:200] + b"x" + data[201:])
    for read in (store.read_records, store.read_table):
        with pytest.raises(BrokenPart) as broken:
            read(second)
    assert store.set_aside(broken.value) and store.newest(first) is None
    assert store.attempts(first).needed(first) == second
    assert list(store.find("broken")) == [f"broken/{path}"]
    store.write_records(second, [record])
    store.tidy(Part.of_chunk(first), store.attempts(first))
    assert store.newest(first) == second and not store.attempts(first).broken


def test_snapshots_in_a_bucket(bucket: S3FileSystem) -> None:
    store, other = Store(f"s3://{BUCKET}/store"), Store(f"s3://{BUCKET}/store")
    other.fs = bucket
    assert Snapshots(store).names() == [] and PartsOf(store).data_set(FINGERPRINT) == []
    parts = [write_part(other, [described(f"{n}{m}", ["car"] * m) for m in range(5)], number=n) for n in range(3)]
    assert PartsOf(store).sources([FINGERPRINT]) == parts
    selection = Selection(method="balanced", count=7)
    made = Snapshots(store).create("one", parts, selection)
    found = Snapshots(other).open(made.id)
    assert (found.name, found.parts, found.rows()) == ("one", made.parts, made.rows())
    with pytest.raises(SnapshotExists):
        Snapshots(other).create("one", parts[:1], Selection())
    with pytest.raises(FileExistsError):  # also where both looked before either wrote
        other.put_new(other.path("snapshots", "one.json"), b"{}")
    assert Snapshots(store).open("one").id == made.id
    stray = write_part(other, [described("x")], identity="b" * 16).path
    cleaning = Cleaning(store)
    assert list(cleaning.unreferenced()) == [stray] == cleaning.remove([stray, parts[0].path])
    assert PartsOf(other).sources([FINGERPRINT]) == parts


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_training_reads_a_snapshot_of_a_bucket(bucket: S3FileSystem, tmp_path: Path, start: str) -> None:
    shard = f"s3://{BUCKET}/shards/00000.tar"
    bucket.put(str(SHARD), shard)
    store = Store(f"s3://{BUCKET}/store")
    pin(store, [shard])
    source = snapshot_source(store, Snapshots(store).open("pinned"), "description", tmp_path / "cache")
    mixture = Mixture.of(source, "What is it?")
    reader = SampleReader(mixture, seed=1, batch_size=4)
    first = keys_of(list(reader))
    assert sorted(first) == [f"description {number:09d}" for number in range(64)]
    loader = DataLoader(reader, 4, num_workers=2, collate_fn=keys_of, multiprocessing_context=start)
    assert [key for batch in loader for key in batch] == first
    export(store, Snapshots(store).open("pinned"), Request("webdataset", LAYERS["caption"]), tmp_path / "out")
    assert (tmp_path / "out" / "00000.tar").stat().st_size > 64 * 5000
    assert source.missing().lines == []
    bucket.rm(shard)
    assert source.missing().lines == [f"no such shard: {shard}"]
    with pytest.raises(SourceAway, match=f"no such shard: {shard}$"):
        list(SampleReader(Mixture.of(TableSource(source.identity, source.table), "What is it?"), pauses=()))


def keys_of(samples: Sequence[Sample]) -> list[str]:
    """The texts of samples, each of which has an image."""
    return [sample.conversation[1]["content"] for sample in samples if sample.image.width > 200]


def test_a_mixture_of_files_in_a_bucket(bucket: S3FileSystem, tmp_path: Path) -> None:
    bucket.pipe_file(f"{BUCKET}/data/images/a.jpg", jpeg())
    bucket.put(str(SHARD), f"{BUCKET}/data/00000.tar")
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    entries = [{"image": f"images/{name}.jpg", "conversations": turns} for name in "ab"]
    bucket.pipe_file(f"{BUCKET}/data/train.json", json.dumps(entries).encode())
    locations = Locations(Store(f"s3://{BUCKET}/store"), f"s3://{BUCKET}/data", tmp_path)
    tars = SourceSettings(name="tars", webdataset="{00000..00000}.tar", instruction="?")
    assert len(list(SampleReader(Mixture.of(locations.open(tars), "?")))) == 64
    said = locations.open(SourceSettings(name="said", conversations="train.json"))
    assert said.missing() == ([f"no such image: s3://{BUCKET}/data/images/b.jpg (sample 2)"], 0)
    assert said.read([0])[0].turns == ["q", "a"]
    with pytest.raises(SampleError, match=f"^s3://{BUCKET}/data/images/b.jpg, image 2: no such file$"):
        said.read([1])


def test_a_shard_without_credentials_is_a_failure_with_its_reason(
    settings: pytest.MonkeyPatch, queue: Queue, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # stands for a cloud's metadata server
        settings.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        fails_beside_a_good_shard(queue, tmp_path, "credentials")


def test_a_refused_shard_is_a_failure_with_its_reason(
    server: str, bucket: S3FileSystem, queue: Queue, tmp_path: Path
) -> None:
    bucket.pipe_file(f"{BUCKET}/00000.tar", b"")
    requests.post(f"{server}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
    try:
        fails_beside_a_good_shard(queue, tmp_path, "Forbidden")
    finally:
        requests.post(f"{server}/moto-api/reset-auth", data=b"inf", timeout=10).raise_for_status()


def test_a_shard_whose_server_is_away_is_waited_for(
    server: str, settings: pytest.MonkeyPatch, queue: Queue, tmp_path: Path
) -> None:
    port = away(settings)
    roots = [str(tmp_path / "shards"), "s3://late"]
    with running_service(queue, tmp_path, shard_roots=roots) as service:
        good = write_shard(tmp_path / "shards" / "good.tar", [jpeg()] * 3)
        job = service.submit("s3://late/0.tar", good).json()["id"]
        until = time.monotonic() + 120
        while service.jobs.view(job).request_counts.succeeded < 3:  # the other shard does not wait for this one
            assert time.monotonic() < until
            time.sleep(0.05)
        view = service.jobs.view(job)
        assert view.status == "in_progress" and view.shards.failed == 0
        # the servers of a process have the same buckets: the shard is there when the late one begins to answer
        client = S3FileSystem(endpoint_url=server, skip_instance_cache=True, use_listings_cache=False)
        client.mkdir("late")
        client.pipe_file("late/0.tar", Path(good).read_bytes())
        end_session(client)
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        moto.start()
        try:
            wait_for_end(service.jobs, job, 120)
        finally:
            moto.stop()
            requests.post(f"{server}/moto-api/reset", timeout=10).raise_for_status()
        counts = service.jobs.view(job).request_counts
        assert (counts.succeeded, counts.failed) == (6, 0)


def test_a_store_whose_server_is_away_raises_os_errors(settings: pytest.MonkeyPatch) -> None:
    away(settings)
    store = Store(f"s3://{BUCKET}/store")
    chunk = Chunk("llm", "fake", "f" * 16, "shard", "i" * 16, 0, 1)
    for act in (
        lambda: store.put(store.path("a"), b""),
        lambda: store.has_part(chunk),
        lambda: store.read_footer(chunk),
    ):
        with pytest.raises(OSError, match="Could not connect"):
            act()


def away(settings: pytest.MonkeyPatch) -> int:
    """Set an endpoint without a server, and short timeouts; returns its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    settings.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    settings.setenv("AWS_ACCESS_KEY_ID", "key")
    settings.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    settings.setenv("AWS_MAX_ATTEMPTS", "1")
    return port


def fails_beside_a_good_shard(queue: Queue, folder: Path, reason: str) -> None:
    """Run a job of a good local shard and one in a bucket: it completes soon, and reports the reason."""
    roots = [str(folder / "shards"), "s3://somebody-elses", f"s3://{BUCKET}"]
    with running_service(queue, folder, shard_roots=roots) as service:
        good = write_shard(folder / "shards" / "good.tar", [jpeg()] * 3)
        started = time.monotonic()
        end = finished(service, good, MISSING)
        assert time.monotonic() - started < 15
        assert end["status"] == "completed"
        assert end["request_counts"]["total"] == end["request_counts"]["succeeded"] == 3
        (told,) = failures(service, end["id"])
        assert told["shard"] == MISSING and reason in told["failure"]["detail"], told


def test_a_bucket_is_searched_like_a_folder(bucket: S3FileSystem, tmp_path: Path) -> None:
    store = Store(f"s3://{BUCKET}/store")
    for number in range(3):
        write_part(store, [described(f"{number}", things=["dog"])], number=number)
    index = SearchIndex(store, tmp_path / "index")
    index.refresh()
    bucket.rm(f"{BUCKET}/store/parts/llm/{FINGERPRINT}/{'a' * 16}/00001.parquet")
    index.refresh()
    with index.cursor() as cursor:
        found = Search(cursor, Scope.everything(), Query(thing=("dog",))).page("store", 10, None)
    index.close()
    assert [hit.key for hit in found.hits] == ["0", "2"]


def test_parts_are_bundled_in_a_bucket_too(bucket: S3FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    store, records = Store(f"s3://{BUCKET}/store"), [described("a", ["dog"]), described("b")]
    for number in range(3):
        write_part(store, records, number=number)
    chunk = Chunk("llm", "fake", FINGERPRINT, "a.tar", "a" * 16, 1, 2)
    expected = store.read_records(chunk)
    compaction = Compaction(store)
    assert compaction.run(list(compaction.plans()), False, lambda _: None).files == 3
    (path,) = store.find("parts")
    for reader in (store, Store(store.uri)):
        assert reader.read_records(chunk) == expected and reader.read_footer(chunk).counts == {"succeeded": 2}
        keys = reader.read_columns(Part.of_chunk(replace(chunk, number=2)).path, ["key"]).column("key")
        assert keys.to_pylist() == ["a", "b"]
    # the lock of another is respected, and that of a dead one passes on after a while
    folder = path.rpartition("/")[0]
    bucket.pipe_file(f"{BUCKET}/store/{folder}/{LOCK}", b"another")
    assert compaction.run(list(compaction.plans()), True, lambda _: None).busy == 1
    with pytest.raises(Busy):
        store.write_records(replace(chunk, attempt=1), expected)
    monkeypatch.setattr(locks, "LOCK_SECONDS", -1.0)
    store.tidy(Part.of_chunk(chunk), store.attempts(chunk))
    assert LOCK not in store.names(folder)
    monkeypatch.setattr(locks, "LOCK_SECONDS", 600.0)
    store.write_records(replace(chunk, attempt=1), expected)
    assert len(store.find("parts")) == 3 and store.read_records(chunk) == expected


def test_several_images_are_requested_at_once(bucket: S3FileSystem) -> None:
    bucket.pipe_file(f"{BUCKET}/a.tar", bytes(range(256)) * 8000)
    bucket.pipe_file(f"{BUCKET}/b.jpg", b"b" * 10)
    tar, image = f"s3://{BUCKET}/a.tar", f"s3://{BUCKET}/b.jpg"
    rows = [IndexRow("a", tar, 512, 256), IndexRow("b", tar, 1_024_000, 3), IndexRow("c", image, 0, 10)]
    rows += [IndexRow("d", image, 0, 9), IndexRow("e", f"s3://{BUCKET}/none.jpg", 0, 5), IndexRow("f", tar, 256, 0)]
    first, second, third, *wrong = read_images(rows)
    assert (first, second, third) == (bytes(range(256)), bytes(range(3)), b"b" * 10)
    assert [type(one).__name__ for one in wrong] == ["ShardChanged", "FileNotFoundError", "SourceError"]
