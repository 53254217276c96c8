"""What the routes answer while Redis refuses commands: 503 with Retry-After; nothing that was refused runs later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from strata.queue.embedded import EmbeddedServer
from strata.queue.queue import Queue
from tests.fakes import jpeg, write_shard
from tests.service import Answer, Service, running_service

SECONDS = 30.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, because the tests change its settings."""
    with EmbeddedServer(tmp_path_factory.mktemp("states")) as server:
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


BEGINS: dict[str, Callable[[redis.Redis], Any]] = {
    "OOM": lambda client: client.config_set("maxmemory", 1),
    "READONLY": replica,
    "MASTERDOWN": replica_without_data,
    "NOREPLICAS": lambda client: client.config_set("min-replicas-to-write", 3),
    "WRONGTYPE": wrong_types,
}
ENDS: tuple[Callable[[redis.Redis], Any], ...] = (
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
            if (path, method) not in (("/v1/batches", "post"), ("/v1/captions", "post")) and "events" not in path:
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
