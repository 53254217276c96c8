"""A store that is full, read-only or away: each route says so, nothing is half accepted, no traceback is logged."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.store_probe import StoreProbe
from strata.core.profiles import GROUPS
from strata.queue.heartbeats import Heartbeat
from strata.queue.queue import Queue
from strata.store.filesystem import Files
from strata.store.storage_errors import storage_fault
from strata.store.store import Store
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.secrets import SECRET
from tests.servers.buckets import fresh_sessions
from tests.service import Answer, Service, problem, running_service

FULL = (errno.ENOSPC, errno.EDQUOT)
SHARD = [jpeg(10 + number) for number in range(4)]
AWAY = (errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


def refused(answer: Answer, number: int) -> dict[str, Any]:
    """Check that a response is the problem of this error number, and when to try again."""
    assert int(answer.headers["Retry-After"]) > 0
    if number in FULL:
        return problem(answer, 507, "storage-full")
    return problem(answer, 503, "storage-unavailable")


def nothing_accepted(service: Service, jobs: int) -> None:
    """Check that there are as many jobs as before, and none that would run."""
    deadline = time.monotonic() + 120
    while service.jobs.queue.job_states.active() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert service.jobs.queue.job_states.active() == set()
    assert service.jobs.store.open_jobs() == []
    assert len(service.jobs.store.job_ids()) == jobs
    assert len(service.client.get("/v1/jobs").json()["jobs"]) == jobs


def one_line_each(caplog: pytest.LogCaptureFixture, lines: int) -> None:
    """Check that the service has logged this number of lines about requests, and no traceback."""
    logged = [record for record in caplog.records if record.name == "app.problems"]
    assert [record.levelname for record in logged] == ["WARNING"] * lines
    assert not any(record.exc_info for record in caplog.records) and "Traceback" not in caplog.text
    assert not any("\n" in record.getMessage() for record in logged)


def writes(service: Service, folder: Path) -> list[Answer]:
    """The responses to each kind of request that writes to the store."""
    shard = write_shard(folder / "shards" / "0.tar", SHARD)
    key = {"Idempotency-Key": "once"}
    return [
        service.caption(jpeg(41), wait=None),
        service.caption(jpeg(42), wait=5),
        service.submit(str(shard)),
        service.client.post("/v1/batches", json={"input": {"shards": [str(shard)]}}, headers=key),
        service.client.post("/v1/batches", json={"input": {"shards": [str(shard)]}}, headers=key),
    ]


@pytest.mark.parametrize("number", [*FULL, *AWAY], ids=errno.errorcode.get)
def test_a_store_that_cannot_be_written(
    number: int, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_file = Path.open
    root = service.settings.store_uri

    def broken(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if "w" in mode and str(path).startswith(root):
            raise OSError(number, os.strerror(number), str(path))
        return open_file(path, mode, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken)
        answers = writes(service, tmp_path)
        for answer in answers:
            assert str(tmp_path) not in str(refused(answer, number))
        one_line_each(caplog, len(answers))
        # it is told at once, without another attempt to write
        detail = problem(service.client.get("/readyz"), 503, "not-ready")["detail"]
        assert os.strerror(number) in detail and str(tmp_path) not in detail
        # what needs no write still works
        assert service.client.get("/v1/jobs").status_code == 200
        assert service.client.get("/healthz").status_code == 200
    nothing_accepted(service, 0)
    assert service.caption(jpeg(41)).status_code == 200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_and_a_read_only_disk(
    queue: Queue, tmp_path: Path, disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store_probe.PROBE_SECONDS", 0.0)
    with running_service(queue, tmp_path, store=str(disk / "store")) as service:
        assert service.caption(jpeg(40)).status_code == 200
        wait_for_end(service.jobs, service.jobs.store.job_ids()[0])
        # fill it to the last byte
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        for answer in (full := writes(service, tmp_path)):
            refused(answer, errno.ENOSPC)
        detail = problem(service.client.get("/readyz"), 503, "not-ready")["detail"]
        assert "the store is full: No space left on device" in detail
        ballast.unlink()
        nothing_accepted(service, 1)
        # read-only, as after a fault of the disk
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for answer in (read_only := writes(service, tmp_path)):
            refused(answer, errno.EROFS)
        detail = problem(service.client.get("/readyz"), 503, "not-ready")["detail"]
        assert "the store cannot be written: Read-only file system" in detail
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        nothing_accepted(service, 1)
        one_line_each(caplog, len(full) + len(read_only))
        assert service.caption(jpeg(41)).status_code == 200


@pytest.mark.parametrize("done", [False, True], ids=["not-written", "written"])
@pytest.mark.parametrize("kind", ["image", "batch"])
def test_whichever_write_fails_nothing_is_half_accepted(
    kind: str, done: bool, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the write was executed, and only its response was lost, as it happens with a bucket."""
    put = Files._put
    with running_service(queue, tmp_path, workers=False) as service:
        shard = write_shard(tmp_path / "shards" / "0.tar", SHARD)
        for number in range(1, 30):
            calls = 0

            def failing(files: Files, path: str, data: bytes, private: bool, number: int = number) -> None:
                nonlocal calls
                calls += 1
                if calls != number:
                    return put(files, path, data, private)
                if done:
                    put(files, path, data, private)
                raise OSError(errno.EIO, "lost")

            with monkeypatch.context() as patch:
                patch.setattr(Files, "_put", failing)
                image = jpeg(40 + number)
                answer = service.caption(image, wait=None) if kind == "image" else service.submit(str(shard))
            if answer.status_code == 202:
                break
            refused(answer, errno.EIO)
            nothing_accepted(service, 0)
        assert answer.status_code == 202 and number > 2
        assert len(service.jobs.store.open_jobs()) == 1


READS = ("get", "exists", "names", "find", "part_names", "read_footer", "read_columns", "newest", "attempts")


def test_a_store_that_cannot_be_read(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shard = write_shard(tmp_path / "shards" / "0.tar", SHARD)
    job = service.submit(str(shard)).json()["id"]
    wait_for_end(service.jobs, job)
    (first, *_) = service.client.get(f"/v1/jobs/{job}/results").text.splitlines()
    key = json.loads(first)["key"]
    paths = ["/v1/jobs", f"/v1/jobs/{job}", "/v1/jobs/none"]
    paths += [f"/v1/jobs/{job}/{name}" for name in ("results", "failures", "failures?status=filtered", "events")]
    paths += [f"/v1/records/{job}/{key}{name}" for name in ("", "/image", "/overlay.png")]
    before = {path: service.client.get(path).status_code for path in paths}

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(tmp_path))

    with monkeypatch.context() as patch:
        for name in READS:
            if hasattr(Store, name):
                patch.setattr(Store, name, broken)
        told = 0
        for path in paths:
            answer = service.client.get(path)
            if answer.status_code == 503:
                told += 1
                assert str(tmp_path) not in str(refused(answer, errno.ESTALE))
            else:
                assert answer.status_code == before[path], path
        for path in (f"/v1/jobs/{job}/cancel", f"/v1/jobs/{job}/retry"):
            assert service.client.post(path).status_code in (200, 503)
        assert told >= 5
    assert {path: service.client.get(path).status_code for path in paths} == before
    assert "Traceback" not in caplog.text and not any(record.exc_info for record in caplog.records)


class Bucket(ThreadingHTTPServer):
    """An S3 server that refuses each write with a code, as a server does whose disks or quota are full."""

    status, code = 507, "XMinioStorageFull"


class _Handler(BaseHTTPRequestHandler):
    server: Bucket
    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, text: str = "") -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        self._answer(self.server.status, f"<Error><Code>{self.server.code}</Code><Message>no room</Message></Error>")

    def do_GET(self) -> None:
        self._answer(200, "<ListBucketResult></ListBucketResult>")

    def do_HEAD(self) -> None:
        self._answer(404)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set the address of the S3 server; keys are planted."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with fresh_sessions():
        yield lambda url: monkeypatch.setenv("AWS_ENDPOINT_URL", url)


@pytest.mark.parametrize(
    ("status", "code", "number"),
    [
        (507, "XMinioStorageFull", errno.ENOSPC),
        (400, "XMinioAdminBucketQuotaExceeded", errno.ENOSPC),
        (403, "QuotaExceeded", errno.ENOSPC),
        (403, "StorageCapExceeded", errno.ENOSPC),
        (403, "AccessDenied", errno.EACCES),
        (404, "NoSuchBucket", errno.EIO),
        (503, "SlowDown", errno.EIO),
        (500, "InternalError", errno.EIO),
    ],
)
def test_a_bucket_that_refuses_writes(
    status: int,
    code: str,
    number: int,
    s3: Callable[[str], None],
    queue: Queue,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Bucket(("127.0.0.1", 0), _Handler)
    server.status, server.code = status, code
    threading.Thread(target=server.serve_forever, daemon=True).start()
    s3(f"http://127.0.0.1:{server.server_port}")
    try:
        with running_service(queue, tmp_path, workers=False, store="s3://bucket/store") as service:
            refused(service.caption(jpeg(41), wait=None), number)
            shard = write_shard(tmp_path / "shards" / "0.tar", SHARD)
            refused(service.submit(str(shard)), number)
            detail = problem(service.client.get("/readyz"), 503, "not-ready")["detail"]
            assert ("the store is full" in detail) == (number in FULL) and SECRET not in detail
            assert service.jobs.queue.job_states.active() == set()
    finally:
        server.shutdown()
    one_line_each(caplog, 2)
    assert SECRET not in caplog.text


def test_a_bucket_that_is_away(
    s3: Callable[[str], None], queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s3("http://127.0.0.1:1")
    with running_service(queue, tmp_path, workers=False, store="s3://bucket/store") as service:
        for answer in (
            service.caption(jpeg(41), wait=None),
            service.submit(str(write_shard(tmp_path / "shards" / "0.tar", SHARD))),
            service.client.get("/v1/jobs/" + "0" * 22),
        ):
            refused(answer, errno.EIO)
        detail = problem(service.client.get("/readyz"), 503, "not-ready")["detail"]
        assert "the store cannot be written: " in detail and "127.0.0.1" not in detail
        assert service.jobs.queue.job_states.active() == set()
    one_line_each(caplog, 3)


class CountingStore(Store):
    """Counts its writes, each of which can be held up, and the looks at its mark."""

    def __init__(self, uri: str, moved: Mapping[str, str] | None = None) -> None:
        super().__init__(uri, moved)
        self.writes = self.looks = 0
        self.free = threading.Event()
        self.free.set()

    def check_mark(self) -> None:
        """Look at the mark."""
        self.looks += 1
        super().check_mark()

    def put(self, path: str, data: bytes, private: bool = False) -> None:
        """Write a file after `free` is set."""
        self.writes += 1
        self.free.wait(120)
        super().put(path, data, private)


def test_the_store_is_probed_once_in_a_while_however_often_it_is_asked(tmp_path: Path) -> None:
    store = CountingStore(str(tmp_path))
    probe = StoreProbe(store, seconds=3600)
    assert [probe.reason() for _ in range(100)] == [""] * 100
    assert (store.looks, store.writes) == (1, 0)
    # what a request has met is told until the next attempt
    probe.report(OSError(errno.ENOSPC, "No space left on device", "/a/path"))
    assert probe.reason() == "the store is full: No space left on device"
    assert (store.looks, store.writes) == (1, 0)


def test_only_one_caller_waits_for_a_slow_store(tmp_path: Path) -> None:
    store = CountingStore(str(tmp_path))
    store.free.clear()
    probe = StoreProbe(store, seconds=0)
    probe.report(OSError(errno.ENOSPC, "No space left on device"))
    first = threading.Thread(target=probe.reason)
    first.start()
    deadline = time.monotonic() + 120
    while not store.writes and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {probe.reason() for _ in range(100)} == {"the store is full: No space left on device"}
    store.free.set()
    first.join()
    assert probe.reason() == "" and store.writes == 1


def test_readyz_writes_only_to_learn_whether_a_fault_is_over(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.service.Store", CountingStore)
    with running_service(queue, tmp_path, workers=False, api_key=SECRET) as service:
        heartbeat = Heartbeat(name="w", pid=1, groups=list(GROUPS), ready=True, chunks=[])
        queue.heartbeats.publish(heartbeat, 60)
        services = service.client.app.state.services  # type: ignore[attr-defined]
        store, probe = services.store, services.store_probe
        probe.seconds = 0.0
        before = store.writes
        for headers in ({}, {"Authorization": f"Bearer {SECRET}"}):
            assert service.client.get("/readyz", headers=headers).status_code == 200
        assert store.writes == before
        # a fault that a request has met is told, until a write shows that it is over: one write
        probe.report(OSError(errno.ENOSPC, "No space left on device"))
        probe._until = time.monotonic() + 3600
        assert "is full" in problem(service.client.get("/readyz"), 503, "not-ready")["detail"]
        probe._until, before = 0.0, store.writes
        assert [service.client.get("/readyz").status_code for _ in range(3)] == [200] * 3
        assert store.writes - before == 1


def test_what_an_error_tells_of_the_storage() -> None:
    assert storage_fault(FileNotFoundError(errno.ENOENT, "none")) is None
    assert storage_fault(FileExistsError(errno.EEXIST, "there")) is None
    assert storage_fault(OSError("Couldn't deserialize thrift")) is None
    assert storage_fault(ValueError("a fault of ours")) is None
    assert storage_fault(PermissionError("denied")) == "unavailable"
    for number in FULL:
        assert storage_fault(OSError(number, "full")) == "full"
    for number in AWAY:
        assert storage_fault(OSError(number, "away")) == "unavailable"


def test_a_full_temporary_folder(
    idle_service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from starlette.formparsers import MultiPartParser

    async def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(MultiPartParser, "parse", full)
    refused(idle_service.caption(jpeg(), wait=None), errno.ENOSPC)
