"""A storage that does not answer is waited for: its images do not fail, and neither do its shards."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from yarl import URL

from strata.core.records import Record, Status
from strata.core.schemas import JobStatus
from strata.jobs.jobs import Jobs
from strata.jobs.results import Results
from strata.shards import image_reader
from strata.shards.image_reader import ImageReader, ShardChanged, read_images
from strata.shards.lists import ListReader
from strata.shards.roots import Roots, ShardMissing, SourceError
from strata.shards.sources import index_shard
from strata.shards.stamps import shard_stamp, shard_stamps
from strata.shards.tar import TarReader
from strata.store import is_transient, reason_of
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, read_in_pieces, wait_for_end, write_shard
from tests.secrets import SECRET
from workers import items
from workers.items import ItemReader
from workers.prepared import PIECE_BYTES

Fault = Callable[[], Exception]


def answered(status: int) -> aiohttp.ClientResponseError:
    """The error of aiohttp for a status, with an address that has a signature."""
    about: Any = type("Info", (), {"real_url": URL(f"https://host/a.tar?sig={SECRET}")})
    return aiohttp.ClientResponseError(about, (), status=status, message="Text")


def behind(cause: Exception) -> FileNotFoundError:
    """fsspec's error for a web address whose size could not be asked."""
    error = FileNotFoundError(f"https://host/a.tar?sig={SECRET}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (OSError(errno.EIO, "Input/output error", "/secret/a"), True),
        (OSError(errno.ESTALE, "Stale file handle", "/secret/a"), True),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), True),
        (TimeoutError(), True),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), True),
        (aiohttp.ClientPayloadError("Response payload is not completed"), True),
        (aiohttp.ServerDisconnectedError(), True),
        (answered(500), True),
        (answered(503), True),
        (answered(429), True),
        (behind(answered(502)), True),
        (behind(aiohttp.ServerDisconnectedError()), True),
        (behind(answered(404)), False),
        (behind(answered(403)), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/secret/a"), False),
        (PermissionError(errno.EACCES, "Permission denied", "/secret/a"), False),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/secret/a"), False),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/secret/a"), False),
        (answered(401), False),
        (SourceError("bad"), False),
        (KeyError("x"), False),
    ],
)
def test_whose_fault_an_error_is(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient
    assert "secret" not in reason_of(error) and SECRET not in reason_of(error) and "\n" not in reason_of(error)


class FlakyReads:
    """Makes the next reads of images fail with an error; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Fault, times: int) -> None:
        self.left, self.fault = times, fault
        self._read = image_reader._read_bytes
        monkeypatch.setattr(image_reader, "_read_bytes", self)

    def __call__(self, uri: str, start: int, end: int, version: str | None = None) -> bytes:
        if self.left > 0:
            self.left -= 1
            raise self.fault()
        return self._read(uri, start, end, version)


# while a whole chunk is read, pieces of two images, and single images
@pytest.mark.parametrize(
    ("fault", "piece"),
    [
        (lambda: OSError(errno.EIO, "Input/output error"), PIECE_BYTES),
        (lambda: OSError(errno.ESTALE, "Stale file handle"), 1),
        (lambda: ConnectionResetError(errno.ECONNRESET, "reset"), 2 * len(jpeg())),
        (lambda: aiohttp.ClientPayloadError("half an answer"), PIECE_BYTES),
    ],
)
def test_a_blip_while_images_are_read_fails_none(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, piece: int
) -> None:
    read_in_pieces(monkeypatch, piece)
    shard = write_shard(tmp_path / "0.tar", [jpeg() for _ in range(8)])
    flaky = FlakyReads(monkeypatch, fault, 2)
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
    counts = jobs.view(job.id).request_counts
    assert (counts.succeeded, counts.failed, flaky.left) == (8, 0, 0)


def test_an_answer_that_is_cut_fails_no_image(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(jpeg(20 + number))
    shards = [write_shard(tmp_path / "0.tar", [jpeg() for _ in range(4)]), str(folder)]
    whole, left = image_reader._read_bytes, [2, 2]

    def cut(uri: str, start: int, end: int, version: str | None = None) -> bytes:
        """Half of the bytes, twice for the tar and twice for the folder."""
        kind = int(uri.startswith(str(folder)))
        left[kind] -= 1
        return whole(uri, start, start + (end - start) // 2 if left[kind] >= 0 else end, version)

    monkeypatch.setattr(image_reader, "_read_bytes", cut)
    with FakeMachine(jobs):
        job = jobs.new.create("batch", shards, FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
    assert jobs.view(job.id).request_counts.succeeded == 8 and max(left) < 0


@pytest.mark.parametrize("piece", [PIECE_BYTES, 1])
def test_a_missing_file_of_a_folder_is_a_failed_row(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """Another submission computes it: its cause may have passed."""
    read_in_pieces(monkeypatch, piece)
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(jpeg())
    rows = index_shard(str(folder)).rows
    (folder / "1.jpg").unlink()
    results = read_images(rows)
    assert isinstance(results[1], FileNotFoundError) and not is_transient(results[1])
    (folder / "1.jpg").write_bytes(jpeg())
    with FakeMachine(jobs, vision=False) as machine:
        job = jobs.new.create("batch", [str(folder)], FAKE_PROFILE, "lo")
        until_indexed(jobs, job.id)
        (folder / "1.jpg").unlink()
    assert machine.llm.images == 0
    with FakeMachine(jobs):
        wait_for_end(jobs, job.id)
    rows_of = Results(jobs.request(job.id), jobs.summaries(job.id), jobs.store, JobStatus.COMPLETED).page(None, 10).rows
    failed = [row for row in rows_of if getattr(row, "status", None) is Status.FAILED]
    assert len(failed) == 1 and failed[0].failure is not None
    assert failed[0].failure.transient and failed[0].failure.detail == "no such file"


@pytest.mark.parametrize("kind", ["tar", "folder"])
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_shard_that_is_gone_is_waited_for_a_while(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, comes_back: bool
) -> None:
    """Its images do not fail if it comes back; they are failed rows of a passing cause if it does not."""
    shard = tmp_path / "shard.tar"
    if kind == "tar":
        write_shard(shard, [jpeg() for _ in range(4)])
    else:
        shard.mkdir()
        for number in range(4):
            (shard / f"{number}.jpg").write_bytes(jpeg(20 + number))
    with FakeMachine(jobs, vision=False):
        job = jobs.new.create("batch", [str(shard)], FAKE_PROFILE, "lo")
        until_indexed(jobs, job.id)
    shard.rename(tmp_path / "away")
    monkeypatch.setattr(items, "GONE_SECONDS", 600.0 if comes_back else 0.3)
    seen, whole = threading.Event(), ItemReader._await_shard

    def await_shard(reader: ItemReader, name: str, results: Sequence[bytes | Exception]) -> None:
        try:
            whole(reader, name, results)
        except OSError:
            seen.set()
            raise

    monkeypatch.setattr(ItemReader, "_await_shard", await_shard)
    with FakeMachine(jobs):
        assert seen.wait(60)
        if comes_back:
            (tmp_path / "away").rename(shard)
        wait_for_end(jobs, job.id, 60)
    counts = jobs.view(job.id).request_counts
    assert (counts.succeeded, counts.failed) == ((4, 0) if comes_back else (0, 4))
    page = Results(jobs.request(job.id), jobs.summaries(job.id), jobs.store, JobStatus.COMPLETED).page(None, 10)
    failures = [row.failure for row in page.rows if isinstance(row, Record) and row.failure]
    assert all(failure.transient for failure in failures) and len(failures) == counts.failed


def until_indexed(jobs: Jobs, job_id: str) -> None:
    """Wait until all shards of a job are indexed."""
    stop = threading.Event()
    for _ in range(2000):
        view = jobs.view(job_id)
        if view.shards.indexed + view.shards.failed == view.shards.total:
            return
        stop.wait(0.01)
    raise TimeoutError(job_id)


# shards behind a web server


class FlakyServer(BaseHTTPRequestHandler):
    """Serves one file by ranges. faults: the statuses of the next answers; 0 closes the connection instead."""

    data: bytes
    faults: list[int]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        if self.faults:
            status = self.faults.pop(0)
            if not status:
                self.close_connection = True
                return
            self.send_error(status)
            return
        first, last = 0, len(self.data) - 1
        wanted = self.headers.get("Range")
        if wanted:
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        data = self.data[first : last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data)))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.data)}")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep the log of the tests free of requests."""


@contextmanager
def flaky_server(data: bytes, faults: Sequence[int] = ()) -> Iterator[tuple[str, list[int]]]:
    """A server's URL of the file, and the list of its coming faults."""
    handler = type("Handler", (FlakyServer,), {"data": data, "faults": list(faults)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/0.tar", handler.faults  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def tar_of(folder: Path, count: int) -> bytes:
    """The bytes of a tar with so many images."""
    return Path(write_shard(folder / "made.tar", [jpeg() for _ in range(count)])).read_bytes()


def test_a_server_that_tells_no_version_is_asked_again(jobs: Jobs, tmp_path: Path) -> None:
    """Another tar of equal length at the same address is another shard, also for the images of a job before."""
    first = tar_of(tmp_path, 2)
    handler = type("Handler", (FlakyServer,), {"data": first, "faults": []})
    at = first.find(jpeg()) + len(jpeg()) // 2
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/0.tar"
        assert shard_stamps(url).now is None
        identities = []
        for data in (first, first[:at] + bytes([first[at] ^ 1]) + first[at + 1 :]):
            handler.data = data  # type: ignore[attr-defined]
            with FakeMachine(jobs):
                job = jobs.new.create("batch", [url], FAKE_PROFILE, "lo")
                wait_for_end(jobs, job.id)
            identities.append(jobs.summaries(job.id)[url].identity)
        assert identities[0] != identities[1]
        with pytest.raises(ShardChanged):
            ImageReader(jobs.store).verify(url, identities[0])
        ImageReader(jobs.store).verify(url, identities[1])
        # so is a list with an image there
        path = tmp_path / "list.jsonl"
        path.write_text(json.dumps({"image": url.replace("0.tar", "a.jpg")}))
        handler.data = jpeg()  # type: ignore[attr-defined]
        computed = []
        for _ in range(2):
            with FakeMachine(jobs, roots=[url.removesuffix("/0.tar"), str(tmp_path)]) as machine:
                job = jobs.new.create("batch", [str(path)], FAKE_PROFILE, "lo")
                wait_for_end(jobs, job.id)
                computed.append((machine.vision.images, jobs.view(job.id).request_counts.succeeded))
        assert computed == [(1, 1), (0, 1)]
        data = jpeg()
        handler.data = data[:-3] + b"\0" + data[-2:]  # type: ignore[attr-defined]
        with FakeMachine(jobs, roots=[url.removesuffix("/0.tar"), str(tmp_path)]) as machine:
            job = jobs.new.create("batch", [str(path)], FAKE_PROFILE, "lo")
            wait_for_end(jobs, job.id)
            assert machine.vision.images == 1
        server.shutdown()
        thread.join()


def test_a_server_that_answers_500_is_no_missing_shard(tmp_path: Path) -> None:
    with flaky_server(tar_of(tmp_path, 2)) as (url, faults):
        for refused in ([500, 500], [0, 0, 0, 0]):
            faults[:] = refused
            with pytest.raises(OSError, match="cannot be read") as caught:
                shard_stamp(url)
            assert is_transient(caught.value)
            faults.clear()
        for status, kind in ((404, ShardMissing), (401, SourceError), (403, SourceError)):
            faults[:] = [status, status]
            with pytest.raises(kind):
                shard_stamp(url)
        faults.clear()
        assert index_shard(url).table.num_rows == 2


def test_an_indexer_waits_for_a_server(jobs: Jobs, tmp_path: Path) -> None:
    """Another shard is indexed meanwhile, and a shard that does not exist fails at once."""
    there = write_shard(tmp_path / "0.tar", [jpeg()])
    with flaky_server(tar_of(tmp_path, 3), [500, 500, 0, 0, 0, 0, 503, 503]) as (url, faults), FakeMachine(jobs):
        job = jobs.new.create("batch", [url, there, f"{tmp_path}/none.tar"], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
        assert not faults
    view = jobs.view(job.id)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (4, 0)
    assert (view.shards.indexed, view.shards.failed) == (2, 1)


def test_a_cancelled_job_ends_the_waiting(jobs: Jobs, tmp_path: Path) -> None:
    with flaky_server(tar_of(tmp_path, 1), [500] * 10_000) as (url, _), FakeMachine(jobs):
        job = jobs.new.create("batch", [url], FAKE_PROFILE, "lo")
        threading.Event().wait(0.5)
        jobs.cancel(job.id)
        wait_for_end(jobs, job.id)
    assert jobs.view(job.id).status == "cancelled"


def test_a_shard_that_is_cut_while_it_is_indexed_is_not_truncated(tmp_path: Path) -> None:
    data = tar_of(tmp_path, 8)
    with pytest.raises(OSError, match="the answer of the storage ends"):
        list(TarReader(io.BytesIO(data[: len(data) // 2]), len(data)).samples())


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_list_whose_storage_is_away_is_not_a_short_list(tmp_path: Path, kind: str) -> None:
    """Neither the list's own storage nor that of its images makes rows or a failure."""
    path = tmp_path / f"list.{kind}"
    rows = [{"image": "http://127.0.0.1:9/a.jpg"}, {"image": "b.jpg"}]
    (tmp_path / "b.jpg").write_bytes(b"b")
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(OSError, match="cannot be read") as caught:
        index_shard(str(path), [str(tmp_path), "http://127.0.0.1:9"])
    assert is_transient(caught.value)

    class Away(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        list(ListReader(str(path), Away(path.read_bytes()), Roots([str(tmp_path)])).rows())


def test_a_name_that_is_not_utf8_is_one_failed_row(jobs: Jobs, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(jpeg())
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.jpg")).write_bytes(jpeg())
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [str(folder)], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id)
    counts = jobs.view(job.id).request_counts
    assert (counts.succeeded, counts.failed) == (1, 1)
    page = Results(jobs.request(job.id), jobs.summaries(job.id), jobs.store, JobStatus.COMPLETED).page(
        None, 10, "failed"
    )
    assert "not valid UTF-8" in page.rows[0].failure.detail  # type: ignore[union-attr]
