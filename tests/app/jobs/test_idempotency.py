"""`Idempotency-Key`: one request, however often it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strata.jobs.new_jobs import NewJobs
from strata.queue import keys
from strata.queue.idempotency_keys import ANSWER_SECONDS
from strata.queue.queue import Queue
from tests.fakes import jpeg
from tests.raw_redis import raw_redis
from tests.service import Answer, Service, problem, running_service


def post(service: Service, key: str, data: bytes | None = None, path: str = "/v1/captions", **more: Any) -> Answer:
    """POST an image with a key."""
    return service.client.post(
        path, files={"file": ("a.jpg", data or jpeg())}, headers={"Idempotency-Key": key, **more}
    )


def test_the_same_request_again_is_replayed(idle_service: Service) -> None:
    first, again = post(idle_service, "one"), post(idle_service, "one")  # each draws a boundary of its own
    assert first.status_code == again.status_code == 202
    assert again.content == first.content and again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true" and "Idempotency-Replayed" not in first.headers
    assert again.headers["content-type"] == first.headers["content-type"]
    assert post(idle_service, "two").headers["Location"] != first.headers["Location"]
    redis: Any = raw_redis(idle_service.jobs.queue)
    (name, _) = redis.keys(keys.idempotency("*"))
    assert ANSWER_SECONDS - 60 < redis.ttl(name) <= ANSWER_SECONDS


def test_a_batch_is_replayed(idle_service: Service) -> None:
    shard = Path(idle_service.settings.shard_roots[0])
    headers = {"Idempotency-Key": "batch"}
    body = {"input": {"shards": [str(shard)]}}
    answers = [idle_service.client.post("/v1/batches", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    other = {"input": {"shards": [str(shard)]}, "priority": "hi"}
    reused = idle_service.client.post("/v1/batches", json=other, headers=headers)
    problem(reused, 422, "idempotency-key-reused")


def test_another_body_is_refused(idle_service: Service) -> None:
    assert post(idle_service, "body").status_code == 202
    problem(post(idle_service, "body", jpeg(40)), 422, "idempotency-key-reused")


def test_a_request_in_flight_is_a_conflict(idle_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    inner: list[Answer] = []

    def slow(*_: object) -> Any:
        inner.append(post(idle_service, "flight"))
        raise RuntimeError("the first attempt fails")

    monkeypatch.setattr(NewJobs, "create_image", slow)
    problem(post(idle_service, "flight"), 500, "internal-error")
    problem(inner[0], 409, "idempotency-key-in-flight")
    assert inner[0].headers["Retry-After"] == "1"
    monkeypatch.undo()
    assert post(idle_service, "flight").status_code == 202  # what failed has freed the key


def test_a_refused_request_frees_its_key(idle_service: Service) -> None:
    problem(post(idle_service, "refused", b"no image"), 422, "invalid-image")
    assert post(idle_service, "refused").status_code == 202


def test_keys_that_are_none(idle_service: Service) -> None:
    for key in ("", "x" * 256):
        problem(post(idle_service, key), 422, "invalid-request")


def test_a_record_is_replayed(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path) as service:
        first, again = (post(service, "record", Prefer="wait=120") for _ in range(2))
    assert first.status_code == again.status_code == 200 and first.content == again.content
    for name in ("Content-Location", "Preference-Applied", "Location"):
        assert first.headers[name] == again.headers[name]
