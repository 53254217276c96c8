"""What the routes answer while Redis refuses commands: 503 with Retry-After; nothing that was refused runs later."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from strata.jobs.jobs import Jobs
from strata.queue.embedded import EmbeddedServer
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from tests.service import Answer, Service, running_service

SECONDS = 120.0  # far more than anything here takes


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, because the tests change its settings."""
    options = {
        "busy-reply-threshold": "1",
        "enable-debug-command": "local",
        "loading-process-events-interval-bytes": "1024",
    }
    with EmbeddedServer(tmp_path_factory.mktemp("states"), options) as server:
        yield server.url


@pytest.fixture
def raw(url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(url, decode_responses=True, socket_timeout=5)
    yield client
    for end in ENDS:
        end(client)
    wait_for_answer(client)
    client.close()


def wait_for_answer(client: redis.Redis) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            client.set("strata:test", "1")
            return
        except redis.RedisError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempts of a connection follow each other at once."""
    monkeypatch.setattr("strata.queue.connection._retry", lambda: Retry(NoBackoff(), 2))


@pytest.fixture
def service(url: str, raw: redis.Redis, tmp_path: Path) -> Iterator[Service]:
    raw.flushall()
    with running_service(Queue(url), tmp_path) as running:
        yield running


def replica(client: redis.Redis) -> None:
    """A replica of a server that does not exist."""
    client.execute_command("REPLICAOF", "127.0.0.1", "1")


def replica_without_data(client: redis.Redis) -> None:
    client.config_set("replica-serve-stale-data", "no")
    replica(client)


def wrong_types(client: redis.Redis) -> None:
    """The keys of the queue hold something else, as if another program used the database."""
    keys: Any = client.keys("strata:*")
    for key in {*keys, "strata:unfinished", "strata:workers", "strata:queued", "strata:stream:vision:hi"}:
        with client.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            pipe.lpush(key, "no such type")
            pipe.execute()


def full_disk(client: redis.Redis) -> None:
    """The append-only file cannot grow: it is at the limit of the process for files."""
    info: Any = client.info("all")
    resource.prlimit(info["process_id"], resource.RLIMIT_FSIZE, (info["aof_current_size"], resource.RLIM_INFINITY))
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            client.set("strata:test", "0" * 100)
            assert time.monotonic() < deadline
        except redis.RedisError as error:
            assert "MISCONF" in str(error)
            return


def room_on_the_disk(client: redis.Redis) -> None:
    info: Any = client.info("server")
    resource.prlimit(info["process_id"], resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def busy(client: redis.Redis) -> None:
    """A script of somebody runs for ever."""
    kept: Any = client.connection_pool.connection_kwargs
    other = redis.Redis(unix_socket_path=kept["path"], socket_timeout=None)
    threading.Thread(target=swallow(lambda: other.eval("while true do end", 0)), daemon=True).start()
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            client.get("strata:test")
            assert time.monotonic() < deadline
        except redis.RedisError:
            return


def swallow(act: Callable[[], Any]) -> Callable[[], None]:
    def call() -> None:
        with suppress(redis.RedisError):
            act()

    return call


def loading(client: redis.Redis) -> None:
    """It reads its file again, slowly: LOADING."""
    # it answers after each 1024 bytes of its file, so that the values must not shrink in it
    client.mset({f"other:{number}": os.urandom(1000) for number in range(6000)})
    client.config_set("key-load-delay", 10_000)  # microseconds for each key: a minute in all
    kept: Any = client.connection_pool.connection_kwargs
    other = redis.Redis(unix_socket_path=kept["path"], socket_timeout=None)
    threading.Thread(target=swallow(lambda: other.execute_command("DEBUG", "RELOAD")), daemon=True).start()
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            client.get("strata:test")
            assert time.monotonic() < deadline
        except redis.exceptions.BusyLoadingError:
            return


def end_loading(client: redis.Redis) -> None:
    """Let it read its file at full speed, and wait until it has: before that it refuses most commands."""
    client.config_set("key-load-delay", 0)
    deadline = time.monotonic() + SECONDS
    while True:
        info: Any = client.info("persistence")
        if not info["loading"]:
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end_script(client: redis.Redis) -> None:
    swallow(client.script_kill)()
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            client.info("server")
            return
        except redis.RedisError:  # it ends soon
            assert time.monotonic() < deadline


def other_password(client: redis.Redis) -> None:
    """NOAUTH: the password has changed, and the connections were closed."""
    client.config_set("requirepass", "another")
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def no_connections(client: redis.Redis) -> None:
    """ERR max number of clients reached."""
    client.config_set("maxclients", 1)
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


BEGINS: dict[str, Callable[[redis.Redis], Any]] = {
    "OOM": lambda client: client.config_set("maxmemory", 1),
    "READONLY": replica,
    "MASTERDOWN": replica_without_data,
    "NOREPLICAS": lambda client: client.config_set("min-replicas-to-write", 3),
    "WRONGTYPE": wrong_types,
    "MISCONF": full_disk,
    "BUSY": busy,
    "LOADING": loading,
    "NOAUTH": other_password,
    "max clients": no_connections,
}
ENDS: tuple[Callable[[redis.Redis], Any], ...] = (
    end_script,  # before the others: while a script runs the server refuses their commands
    end_loading,
    room_on_the_disk,
    lambda client: client.config_set("maxclients", 1000),
    lambda client: client.config_set("requirepass", ""),
    lambda client: client.execute_command("REPLICAOF", "NO", "ONE"),
    lambda client: client.config_set("maxmemory", 0),
    lambda client: client.config_set("replica-serve-stale-data", "yes"),
    lambda client: client.config_set("min-replicas-to-write", 0),
)


def calls(service: Service, job_id: str, shard: str) -> dict[str, Callable[[], Answer]]:
    """A call of every route, and of some in several ways."""
    client = service.client
    found: dict[str, Callable[[], Answer]] = {
        "batch": lambda: service.submit(shard),
        "batch with key": lambda: client.post(
            "/v1/batches", json={"input": {"shards": [shard]}}, headers={"Idempotency-Key": "a"}
        ),
        "image": lambda: service.caption(jpeg(30), wait=None),
        "image, waiting": lambda: service.caption(jpeg(31), wait=1),
        "image with key": lambda: client.post(
            "/v1/captions", files={"file": ("a.jpg", jpeg(33))}, headers={"Idempotency-Key": "b"}
        ),
    }
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            if (path, method) not in (("/v1/batches", "post"), ("/v1/captions", "post")):
                real = path.replace("{job_id}", job_id).replace("{key}", "000000000").replace("{name}", "fake")
                found[f"{method} {path}"] = lambda real=real, method=method: client.request(method, real)  # type: ignore[misc]
    return found


@pytest.mark.parametrize("state", BEGINS)
def test_no_route_fails_and_nothing_that_was_refused_runs_later(
    service: Service, raw: redis.Redis, state: str, tmp_path: Path
) -> None:
    shard = write_shard(Path(service.settings.shard_roots[0]) / "a.tar", [jpeg()] * 2)
    job_id = service.submit(shard).json()["id"]
    deadline = time.monotonic() + SECONDS
    while service.client.get(f"/v1/jobs/{job_id}").json()["status"] != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = {job["id"] for job in service.client.get("/v1/jobs?limit=100").json()["jobs"]}
    BEGINS[state](raw)
    answers = {name: call() for name, call in calls(service, job_id, shard).items()}
    for end in ENDS:
        end(raw)
    wait_for_answer(raw)
    if state == "WRONGTYPE":
        raw.flushall()
    # every answer is useful, or says when to come back
    for name, answer in answers.items():
        assert answer.status_code < 500 or answer.status_code == 503, (name, answer.text)
        if answer.status_code == 503 and name != "get /readyz":
            assert answer.headers.get("Retry-After"), (name, answer.text)
            assert answer.json()["type"] == "/problems/redis-unavailable", (name, answer.text)
    refused = [name for name in answers if answers[name].status_code == 503]
    assert {"batch", "batch with key", "image", "image, waiting", "image with key"} <= set(refused)
    # nothing of the refused requests is left, also after the scheduler has compared everything with the store
    store = service.jobs.store
    assert set(store.open_jobs()) <= before
    assert set(store.job_ids()) <= before
    assert service.submit(shard).status_code == 202


@pytest.mark.parametrize("state", ["MISCONF", "BUSY", "NOAUTH", "LOADING"])
def test_workers_wait_and_nothing_is_lost(
    url: str, raw: redis.Redis, state: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw.flushall()
    jobs = Jobs(Queue(url), Store(str(tmp_path / "store")))
    shard = write_shard(tmp_path / "a.tar", [jpeg(20 + n) for n in range(40)])
    deadline = time.monotonic() + SECONDS
    with FakeMachine(jobs, seconds=0.02, lease_seconds=5) as machine:
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        while machine.vision.images < 8:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        BEGINS[state](raw)
        while "vision waits for Redis" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for end in ENDS:
            end(raw)
        wait_for_end(jobs, job.id, seconds=SECONDS)
    assert jobs.view(job.id).request_counts.succeeded == 40
