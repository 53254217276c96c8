"""Quotas of keys at the API: exact for many callers, told in headers, given back, and free for keys without them."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.http.quotas import headers_of
from strata.core import NO_QUOTAS, Cost, JobStatus, Quotas
from strata.errors import QueueUnavailable
from strata.jobs import feeder
from strata.jobs.jobs import Jobs
from strata.keys import Scope, StoredKeys
from strata.queue import FOR_EVER, IMAGES, REQUESTS, Quota, Use, bytes_quota, keys
from strata.queue.queue import Queue
from strata.quotas import KeyUse, State, job_quotas
from strata.store import Store
from tests.app.jobs.test_job_list import wait_for_list
from tests.fakes import jpeg, wait_for, wait_for_end, write_shard
from tests.queue.test_ledger import PAID
from tests.raw_redis import raw_redis
from tests.service import Answer, Service, listening_service, problem, running_service

PARALLEL = 50


@dataclass
class Limited:
    """A service, and a key of it with quotas."""

    service: Service
    key_id: str
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    def get(self, path: str = "/v1/backlog") -> Answer:
        return self.service.client.get(path, headers=self.headers)

    def caption(self, data: bytes, wait: float | None = None, idempotency: str = "") -> Answer:
        headers = self.headers | ({"Prefer": f"wait={wait:g}"} if wait else {})
        headers |= {"Idempotency-Key": idempotency} if idempotency else {}
        return self.service.client.post("/v1/captions", files={"file": ("a.jpg", data)}, headers=headers)

    def send(self, data: bytes) -> Answer:
        path = f"/v1/uploads/{hashlib.sha256(data).hexdigest()}"
        return self.service.client.put(path, content=data, headers=self.headers)

    def submit(self, shard: str, **more: Any) -> str:
        body = {"input": {"shards": [shard]}, **more}
        answer = self.service.client.post("/v1/batches", json=body, headers=self.headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def left(self, quota: Quota, most: int) -> int:
        """How much of a quota is left."""
        return self.service.jobs.queue.windows.use(quota, self.key_id, most, 0).left


def limited(service: Service, **quotas: Any) -> Limited:
    """A new key with quotas; the service knows it at once."""
    stored = StoredKeys(service.jobs.store)
    key, secret = stored.create("test", [Scope.ADMIN], "team", quotas=Quotas(**quotas))
    service.client.app.state.services.keys._tried_at = None  # type: ignore[attr-defined]
    return Limited(service, key.id, secret)


@pytest.fixture
def idle(queue: Queue, tmp_path: Path) -> Iterator[Service]:
    """A service without workers."""
    with running_service(queue, tmp_path, workers=False) as service:
        yield service


def refused(answer: Answer, policy: str) -> dict[str, Any]:
    """Check that an answer is the problem of a quota, which its headers tell; returns its body."""
    body = problem(answer, 429, "quota-exceeded")
    assert f'"{policy}";r=' in answer.headers["ratelimit"] and f'"{policy}";q=' in answer.headers["ratelimit-policy"]
    return body


def test_a_quota_holds_for_many_callers_to_the_image(idle: Service) -> None:
    wait_for_list(idle.jobs)
    key = limited(idle, images_a_day=7)
    pictures = [jpeg(20 + number) for number in range(PARALLEL)]
    with ThreadPoolExecutor(PARALLEL) as pool:
        answers = list(pool.map(key.caption, pictures))
    accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    assert len(accepted) == 7
    for answer in answers:
        if answer.status_code != 202:
            assert "may have 7 images described a day" in refused(answer, "images")["detail"]
            assert 86_000 <= int(answer.headers["retry-after"]) <= 86_400
    # nothing stays of the jobs that were refused
    assert set(idle.jobs.store.job_ids()) == idle.jobs.queue.job_states.active() == set(accepted)
    assert len(idle.jobs.store.find("uploads")) == len(idle.jobs.store.find("parts", "index")) == 7
    assert key.left(IMAGES, 7) == 0


@pytest.mark.parametrize("quotas", [{"images_a_day": 3}, {"chunks_queued": 3}])
def test_of_images_that_many_send_at_once_those_stay_that_a_job_has(idle: Service, quotas: dict[str, int]) -> None:
    wait_for_list(idle.jobs)
    key, store = limited(idle, **quotas), idle.jobs.store
    pictures = [jpeg(20 + number) for number in range(10)]
    assert key.send(pictures[0]).status_code == 201
    kept = set(store.find("uploads"))
    with ThreadPoolExecutor(PARALLEL) as pool:
        answers = list(pool.map(key.caption, pictures * (PARALLEL // len(pictures))))
    assert sorted({answer.status_code for answer in answers}) == [202, 429]
    requests = [idle.jobs.request(answer.json()["id"]) for answer in answers if answer.status_code == 202]
    of_jobs = {store.upload_path(one.shards[0]) for one in requests}
    assert set(store.find("uploads")) == kept | of_jobs
    # all requests for an image have the same index part
    assert len(store.find("parts", "index")) == len(of_jobs)


def test_requests_a_minute(idle: Service) -> None:
    key, other = limited(idle, requests_a_minute=5), limited(idle, requests_a_minute=5)
    with ThreadPoolExecutor(PARALLEL) as pool:
        answers = list(pool.map(lambda _: key.get(), range(PARALLEL)))
    assert sorted({answer.status_code for answer in answers}) == [200, 429]
    good = [answer for answer in answers if answer.status_code == 200]
    assert len(good) == 5
    assert {answer.headers["ratelimit"].split(";")[1] for answer in good} == {f"r={left}" for left in range(5)}
    assert all(answer.headers["ratelimit-policy"] == '"requests";q=5;w=60' for answer in answers)
    late = key.get("/v1/nothing")  # whatever is asked for, and before it is known whether it is there
    assert "may send 5 requests a minute" in refused(late, "requests")["detail"]
    assert 50 <= int(late.headers["retry-after"]) <= 61
    # t is no later than Retry-After, which clients follow first
    assert int(late.headers["ratelimit"].rpartition("t=")[2]) <= int(late.headers["retry-after"])
    assert other.get().status_code == 200 and other.get("/v1/nothing").status_code == 404
    assert other.left(REQUESTS, 5) == 3


def test_a_key_without_quotas_asks_redis_nothing_and_has_no_headers(
    idle: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = idle.client.app.state.services.queue.windows  # type: ignore[attr-defined]

    def nobody(*_: Any, **__: Any) -> None:
        raise AssertionError("Redis was asked")

    key = limited(idle)
    for name in ("use", "use_for", "use_upload", "give_back_for"):
        monkeypatch.setattr(windows, name, nobody)
    answer = key.caption(jpeg())
    assert answer.status_code == 202 and "ratelimit" not in answer.headers
    assert key.send(jpeg(40)).status_code == 201 and key.get().status_code == 200
    assert not raw_redis(idle.jobs.queue).keys("strata:used:*")
    # the job knows its key all the same: a quota may be set while it runs
    assert idle.jobs.request(answer.json()["id"]).key == key.key_id


def test_while_redis_is_away_requests_are_not_counted(idle: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = idle.client.app.state.services.queue.windows  # type: ignore[attr-defined]

    def away(*_: Any) -> None:
        raise QueueUnavailable("away")

    key = limited(idle, requests_a_minute=1, images_a_day=1)
    monkeypatch.setattr(windows, "use", away)
    assert [key.get("/v1/profiles").status_code for _ in range(2)] == [200, 200]
    # what cannot be counted is not described
    problem(key.caption(jpeg()), 503, "redis-unavailable")


def test_what_is_refused_is_given_back(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_service(queue, tmp_path, workers=False, queue_images=1) as service:
        key = limited(service, images_a_day=10, bytes_stored=100_000)
        quota = bytes_quota(None)
        assert key.caption(jpeg(20)).status_code == 202
        stored = 100_000 - key.left(quota, 100_000)
        assert 0 < stored <= len(jpeg(20))
        # refused before the work, in the last moment, by the decoder, and by a fault
        problem(key.caption(jpeg(21)), 429, "share-used")
        with monkeypatch.context() as patched:
            patched.setattr("strata.jobs.new_jobs.NewJobs.check", lambda *_: None)
            problem(key.caption(jpeg(22)), 429, "share-used")
            patched.setattr("strata.queue.broker.Broker.enqueue_all", _fail)
            patched.setattr("strata.queue.job_states.JobStates.activate", lambda *_: None)
            assert key.caption(jpeg(23)).status_code == 500
            problem(key.caption(b"no image"), 422, "invalid-image")
        assert key.left(IMAGES, 10) == 9 and 100_000 - key.left(quota, 100_000) == stored
        # the second of two quotas refuses, the first is given back
        poor = limited(service, images_a_day=1, bytes_stored=len(jpeg(30)))
        monkeypatch.setattr("strata.queue.job_states.JobStates.check", lambda *_: None)
        monkeypatch.setattr("strata.queue.job_states.JobStates.activate", lambda *_: None)
        assert poor.caption(jpeg(30)).status_code == 202
        problem(poor.caption(jpeg(31)), 429, "quota-exceeded")
        assert poor.left(quota, 100_000) >= 100_000 - len(jpeg(30))


def _fail(*_: Any) -> None:
    raise RuntimeError("a fault")


def test_what_is_computed_already_is_free(service: Service) -> None:
    key = limited(service, images_a_day=3)
    assert key.caption(jpeg(20), wait=120).status_code == 200
    again = key.caption(jpeg(20), wait=120)
    assert again.status_code == 200 and key.left(IMAGES, 3) == 2
    # also what another key has had computed, and in a shard
    shards = Path(service.settings.shard_roots[0])
    shard = write_shard(shards / "a.tar", [jpeg(width) for width in range(40, 50)])
    free = limited(service)
    wait_for_end(service.jobs, free.submit(shard))
    job = key.submit(shard)
    wait_for_end(service.jobs, job)
    assert service.jobs.view(job).status is JobStatus.COMPLETED and key.left(IMAGES, 3) == 2
    # a request that is repeated with its Idempotency-Key is one
    for _ in range(2):
        assert key.caption(jpeg(21), idempotency="one").status_code == 202
    assert key.left(IMAGES, 3) == 1


def test_stored_bytes(service: Service) -> None:
    picture, other = jpeg(20), jpeg(200, 200)
    key = limited(service, bytes_stored=len(picture) + 100)
    quota = bytes_quota(None)
    answer = key.caption(picture, wait=120)
    assert answer.status_code == 200
    assert (
        answer.headers["ratelimit-policy"].startswith('"bytes";q=') and "w=" not in answer.headers["ratelimit-policy"]
    )
    used = len(picture) + 100 - key.left(quota, len(picture) + 100)
    assert 0 < used <= len(picture)
    # a picture that is stored is not stored again, whichever way it is sent
    assert key.caption(picture, wait=120).status_code == 200
    assert key.send(other).status_code == 429 and key.caption(other).status_code == 429
    sizes = {"sha256": [hashlib.sha256(other).hexdigest()], "sizes": [len(other)]}
    asked = service.client.post("/v1/uploads", json=sizes, headers=key.headers)
    assert "bytes stored" in refused(asked, "bytes")["detail"]
    assert key.left(quota, len(picture) + 100) == len(picture) + 100 - used
    # a job that is deleted frees what it alone uses
    jobs = [one["id"] for one in key.get("/v1/jobs").json()["jobs"]]
    for job, free in zip(jobs, (len(picture) + 100 - used, len(picture) + 100), strict=True):
        wait_for_end(service.jobs, job)
        assert service.client.delete(f"/v1/jobs/{job}", headers=key.headers).status_code == 204
        assert key.left(quota, len(picture) + 100) == free


def test_sent_images_count_once(idle: Service) -> None:
    pictures = [jpeg(width) for width in range(20, 24)]
    key = limited(idle, bytes_stored=len(pictures[0]) + len(pictures[1]) + 50)
    assert [key.send(one).status_code for one in pictures[:2]] == [201, 201]
    before = key.left(bytes_quota(None), 100_000)
    assert key.send(pictures[0]).status_code == 201 and key.left(bytes_quota(None), 100_000) == before
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(key.send, pictures[2:]))
        assert [answer.status_code for answer in answers] == [429, 429]
        # also one that is sent several times at once
        other, size = limited(idle, bytes_stored=100_000), len(jpeg(60))
        assert {answer.status_code for answer in pool.map(other.send, [jpeg(60)] * 8)} == {201}
    assert 0 < 100_000 - other.left(bytes_quota(None), 100_000) <= size


def test_bytes_are_given_back_to_the_key_for_which_they_count(idle: Service) -> None:
    picture, most, quota = jpeg(20), 100_000, bytes_quota(None)
    sender, other = limited(idle, bytes_stored=most), limited(idle, bytes_stored=most)
    assert [key.send(picture).status_code for key in (sender, other)] == [201, 201]
    assert sender.left(quota, most) < most and other.left(quota, most) == most
    assert other.send(jpeg(30)).status_code == 201
    before = other.left(quota, most)
    assert before < most
    # another key of the tenant submits what was sent, and deletes the job
    body = {"input": {"uploads": [hashlib.sha256(picture).hexdigest()]}}
    job = idle.client.post("/v1/batches", json=body, headers=other.headers).json()["id"]
    assert idle.client.post(f"/v1/jobs/{job}/cancel", headers=other.headers).status_code == 200
    wait_for_end(idle.jobs, job)
    assert idle.client.delete(f"/v1/jobs/{job}", headers=other.headers).status_code == 204
    assert sender.left(quota, most) == most and other.left(quota, most) == before


# batches: how many images they have is known when they are indexed


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler looks often at what is held, and at quotas."""
    monkeypatch.setattr(feeder, "HELD_SECONDS", 0.05)
    monkeypatch.setattr(job_quotas, "FRESH_SECONDS", 0.05)


@pytest.mark.usefixtures("quick_looks")
def test_a_batch_waits_until_the_quota_has_room(service: Service) -> None:
    key = limited(service, images_a_day=9)  # of chunks of 4 images
    shards = Path(service.settings.shard_roots[0])
    shard = write_shard(shards / "a.tar", [jpeg(width) for width in range(20, 34)])
    job = key.submit(shard)
    wait_for(lambda: service.jobs.view(job).request_counts.succeeded == 8 and service.jobs.view(job).waiting)
    view = service.jobs.view(job)
    assert view.waiting is not None and view.waiting.stage == "quota" and key.key_id in view.waiting.reason
    assert "may have 9 images described a day; goes on at 20" in view.waiting.reason
    assert view.status is JobStatus.IN_PROGRESS and key.left(IMAGES, 9) == 1
    # others are not held up, and a single image takes what is left
    assert limited(service).caption(jpeg(50), wait=120).status_code == 200
    assert key.caption(jpeg(51), wait=120).status_code == 200
    StoredKeys(service.jobs.store).limit(key.key_id, lambda _: Quotas(images_a_day=100))
    wait_for_end(service.jobs, job)
    view = service.jobs.view(job)
    assert view.status is JobStatus.COMPLETED and view.request_counts.succeeded == 14 and view.waiting is None
    assert key.left(IMAGES, 100) == 100 - 14 - 1
    told = [fields["event"] for _, fields in service.jobs.queue.job_events.after(job, "0-0")]
    assert "waiting" in told and "resumed" in told


@pytest.mark.usefixtures("quick_looks")
def test_a_cancelled_batch_gives_back_what_was_not_computed(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        key = limited(service, images_a_day=9)
        pictures = [jpeg(width) for width in range(20, 34)]
        for data in pictures:
            assert key.send(data).status_code == 201
        lines = [f"{hashlib.sha256(data).hexdigest()} {number}.jpg" for number, data in enumerate(pictures)]
        body = {"input": {"uploads": lines}}
        job = service.client.post("/v1/batches", json=body, headers=key.headers).json()["id"]
        wait_for(lambda: key.left(IMAGES, 9) == 1)
        service.client.post(f"/v1/jobs/{job}/cancel", headers=key.headers)
        wait_for_end(service.jobs, job)
        assert key.left(IMAGES, 9) == 9


@pytest.mark.usefixtures("quick_looks")
def test_a_chunk_that_is_more_than_the_quota_fails_its_job(service: Service) -> None:
    key = limited(service, images_a_day=3)
    shards = Path(service.settings.shard_roots[0])
    job = key.submit(write_shard(shards / "a.tar", [jpeg(width) for width in range(20, 26)]))
    wait_for_end(service.jobs, job)
    view = service.jobs.view(job)
    assert view.status is JobStatus.FAILED and "a chunk of this job has 4" in (view.error or "")
    assert key.left(IMAGES, 3) == 3


def test_chunks_queued_are_those_of_the_key_from_all_addresses(idle: Service) -> None:
    key = limited(idle, chunks_queued=2)
    elsewhere = TestClient(idle.client.app, client=("10.9.8.7", 1), raise_server_exceptions=False)
    there = Limited(Service(elsewhere, idle.settings, idle.jobs, None), key.key_id, key.secret)
    assert [one.caption(jpeg(20 + number)).status_code for number, one in enumerate((key, there))] == [202, 202]
    for one in (key, there):
        problem(one.caption(jpeg(30)), 429, "share-used")
    assert limited(idle).caption(jpeg(31)).status_code == 202


def test_no_more_chunks_of_a_batch_are_queued(idle: Service) -> None:
    pictures = [jpeg(width) for width in range(20, 44)]
    key = limited(idle, chunks_queued=2)
    for data in pictures:
        key.send(data)
    lines = [hashlib.sha256(data).hexdigest() for data in pictures]
    answer = idle.client.post("/v1/batches", json={"input": {"uploads": lines}}, headers=key.headers)
    broker = idle.jobs.queue.broker
    wait_for(lambda: broker.depth("vision"))
    time.sleep(0.5)  # several ticks of the scheduler
    assert broker.depth("vision") == 2 and answer.json()["status"] != "failed"


# money


def test_the_money_of_a_new_job_is_that_of_its_key(jobs: Jobs) -> None:
    use = KeyUse(jobs.queue.windows, "0123456789ab", Quotas(money_a_day=0.000_5))
    job = jobs.new.create("batch", ["/a.tar"], PAID, "lo", use=use)
    image = jobs.new.create_image(jpeg(), None, PAID, use=use)
    for request in (job, image):
        assert jobs.ledger.reserve(request.id, "a", request.id, Cost(tokens=1, money=501)) == "refused"
    assert jobs.ledger.reserve(image.id, "a", "a#1", Cost(tokens=1, money=400)) == "granted"
    # a job whose copy in Redis was lost has its key again
    server: Any = raw_redis(jobs.queue)
    server.delete(keys.job(job.id), keys.ledger(job.id))
    jobs.restore(job.id)
    assert server.hget(keys.ledger(job.id), "key") == use.key_id == jobs.request(job.id).key


def test_a_job_knows_its_key_in_the_ledger(queue: Queue, store: Store) -> None:
    quotas = job_quotas.JobQuotas(queue, StoredKeys(store))
    key, _ = StoredKeys(store).create("a", [Scope.SUBMIT], quotas=Quotas(money_a_day=2.5))
    assert quotas.of(key.id).money_a_day == 2.5 and quotas.of("") is NO_QUOTAS and quotas.of("0" * 12) == NO_QUOTAS
    server: Any = raw_redis(queue)
    assert server.hgetall(keys.MONEY_QUOTAS) == {key.id: "2500000"}
    StoredKeys(store).limit(key.id, lambda _: NO_QUOTAS)
    quotas.reset()
    assert quotas.of(key.id) == NO_QUOTAS and not server.exists(keys.MONEY_QUOTAS)


def test_the_quotas_of_a_store_that_is_away(queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    stored, unread = StoredKeys(store), StoredKeys(store)
    quotas = job_quotas.JobQuotas(queue, stored, lambda: now[0])
    key, _ = stored.create("a", [Scope.SUBMIT], quotas=Quotas(images_a_day=5))
    assert quotas.of(key.id).images_a_day == 5

    def away() -> None:
        raise OSError(5, "away")

    for keys_of in (stored, unread):
        monkeypatch.setattr(keys_of, "all", away)
    now[0] += job_quotas.FRESH_SECONDS
    quotas.reset()
    assert quotas.of(key.id).images_a_day == 5  # the last list is believed
    with pytest.raises(OSError, match="away"):
        job_quotas.JobQuotas(queue, unread).of(key.id)


# streams


def test_a_stream_of_events_ends_with_its_key(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strata.keys.key_ring.FRESH_SECONDS", 0.2)
    with listening_service(queue, tmp_path) as port:
        stored = StoredKeys(Store(str(tmp_path / "data" / "store")))
        revoked, secret = stored.create("a", [Scope.ADMIN])
        _, staying = stored.create("b", [Scope.ADMIN])
        url = f"http://127.0.0.1:{port}"
        headers = {"X-API-Key": secret}
        with httpx.Client(base_url=url, timeout=60) as client:
            wait_for(lambda: client.get("/v1/backlog", headers=headers).status_code == 200)
            job = client.post("/v1/captions", files={"file": ("a.jpg", jpeg())}, headers=headers).json()["id"]
            ended = [threading.Event(), threading.Event()]

            def read(key: str, end: threading.Event) -> None:
                path, sent = f"{url}/v1/jobs/{job}/events", {"X-API-Key": key}
                with httpx.stream("GET", path, headers=sent, timeout=60) as answer:
                    assert answer.status_code == 200
                    for _ in answer.iter_bytes():
                        pass
                end.set()

            threads = [threading.Thread(target=read, args=args) for args in zip((secret, staying), ended, strict=True)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            assert not any(end.is_set() for end in ended)
            stored.revoke(revoked.id)
            assert ended[0].wait(30)
            assert not ended[1].is_set()
            assert client.get(f"/v1/jobs/{job}/events", headers=headers).status_code == 401
            client.post(f"/v1/jobs/{job}/cancel", headers={"X-API-Key": staying})
            for thread in threads:
                thread.join(60)


# headers


def test_headers_are_structured_fields() -> None:
    states = {
        REQUESTS: State(60, Use(1, 59, 3, 0)),
        bytes_quota(2): State(10, Use(0, 0, None, 0)),
        Quota("other", FOR_EVER): State(1, Use(0, 0, None, 0)),
    }
    assert headers_of(states.items()) == [
        ("ratelimit-policy", '"requests";q=60;w=60, "bytes";q=10;qu="content-bytes";w=172800, "other";q=1'),
        ("ratelimit", '"requests";r=59;t=3, "bytes";r=0, "other";r=0'),
    ]
