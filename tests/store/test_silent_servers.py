"""Web servers and buckets that accept connections and never answer: they are given up, and waited for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import fsspec
import pytest

from strata.core.schemas import JobStatus
from strata.errors import DataError
from strata.jobs.jobs import Jobs
from strata.shards.image_reader import read_images
from strata.shards.sources import index_shard
from strata.store import file_system, storages
from strata.store.index_rows import IndexRow
from strata.store.storage_errors import is_transient, reason_of, storage_fault
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine
from tests.servers.buckets import fresh_sessions

LONG = 60.0  # seconds: less than the libraries' own limits


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """HOST:PORT of a server that accepts connections, reads, and never answers."""
    monkeypatch.setattr(storages, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(storages, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(storages, "SLOWEST_WRITE", 2**28)
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                accepted.append(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for one in accepted:
        one.close()
    thread.join(LONG)


@pytest.fixture
def bucket(silent: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store in a bucket of such a server."""
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{silent}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    with fresh_sessions():
        yield Store("s3://bucket/store")


def given_up(act: Callable[[], object]) -> OSError:
    """The OSError of a call that must end soon, which tells of the storage."""
    start = time.monotonic()
    with pytest.raises(OSError) as caught:
        act()
    assert time.monotonic() - start < LONG
    assert not isinstance(caught.value, DataError)
    return caught.value


def test_a_web_server_that_never_answers_is_given_up(silent: str) -> None:
    error = given_up(lambda: index_shard(f"http://{silent}/0.tar"))
    assert "0.tar cannot be read" in str(error)
    assert is_transient(error)
    (result,) = read_images([IndexRow("a", f"http://{silent}/a.jpg", 0, 10, None)])
    assert isinstance(result, Exception) and is_transient(result)
    assert reason_of(result) == "the server does not answer"


@pytest.mark.parametrize("act", ["get", "names", "exists", "put", "put_new", "move"])
def test_a_bucket_that_never_answers_is_unavailable(bucket: Store, act: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: bucket.get(bucket.path("a")),
        "names": lambda: bucket.names("jobs"),
        "exists": lambda: bucket.exists(bucket.path("a")),
        # more than the buffers of both sides take
        "put": lambda: bucket.put(bucket.path("a"), bytes(2**25)),
        "put_new": lambda: bucket.put_new(bucket.path("a"), bytes(2**25)),
        "move": lambda: bucket.move("a", "b"),
    }
    assert storage_fault(given_up(calls[act])) == "unavailable"


def test_a_job_whose_web_server_never_answers_waits(jobs: Jobs, silent: str, tmp_path: Path) -> None:
    url = f"http://{silent}/0.tar"
    job = jobs.new.create("batch", [url], FAKE_PROFILE, "lo").id
    with FakeMachine(jobs, roots=[f"http://{silent}"]):
        deadline = time.monotonic() + LONG
        while jobs.view(job).waiting is None:
            assert time.monotonic() < deadline and not jobs.view(job).status.final, jobs.view(job)
            time.sleep(0.05)
        assert jobs.view(job).status is JobStatus.VALIDATING


def test_the_limits_of_the_users_configuration_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, own in (({}, False), ({"timeout": aiohttp.ClientTimeout(total=7)}, True), ({"trust_env": True}, False)):
        monkeypatch.setitem(fsspec.config.conf, "https", {"client_kwargs": given})
        options = file_system("https://host/a.tar")[0].client_kwargs
        timeout = options["timeout"]
        assert timeout.total == (7 if own else None)
        assert own or (timeout.sock_connect, timeout.sock_read) == (10.0, 30.0)
        assert given.items() <= options.items()
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 99}})
    options = file_system("s3://bucket/a.tar")[0].config_kwargs
    assert options["read_timeout"] == 99 and options["connect_timeout"] == 10.0
