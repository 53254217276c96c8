"""Webhooks through the service: each end of a job is told once, whatever its receiver and Redis do meanwhile."""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from strata.core import BatchRequest, DeliveryState
from strata.queue.queue import Queue
from strata.webhooks import deliveries, posts, sender
from tests.fakes import jpeg, wait_for, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from tests.service import Service, problem, running_service
from tests.webhooks.receiver import SECRET, Receiver, receiving


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of attempts in a second instead of a day."""
    monkeypatch.setattr(deliveries, "PAUSES", (0.05,) * 10)
    monkeypatch.setattr(sender, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(sender, "REST_SECONDS", 0.05)


@contextmanager
def running(queue: Queue, folder: Path, port: int, **changes: Any) -> Iterator[Service]:
    """A service that may send to loopback."""
    given = {"private_urls": True, "url_ports": [80, 443, port], **changes}
    with running_service(queue, folder, **given) as service:
        # the fake workers have a scheduler of their own, and either may have the lock
        if service.machine is not None:
            send = functools.partial(posts.post, rules=service.settings.webhook_rules)
            service.machine.scheduler.sender = sender.Sender(service.machine.scheduler.jobs.outbox, send)
        yield service


def submitted(service: Service, folder: Path, url: str, images: int = 2) -> str:
    """A job's id."""
    shard = write_shard(folder / "shards" / "a.tar", [jpeg()] * images)
    answer = service.submit(shard, webhook={"url": url, "secret": SECRET})
    assert answer.status_code == 202 and SECRET not in answer.text and "webhook" not in answer.json()
    return str(answer.json()["id"])


def delivery(service: Service, job: str) -> Any:
    return service.client.get(f"/v1/jobs/{job}/webhook").raise_for_status().json()


def wait_until(service: Service, job: str, state: DeliveryState) -> Any:
    wait_for(lambda: delivery(service, job)["state"] == state)
    return delivery(service, job)


def test_a_job_s_end_is_told_once_and_signed(queue: Queue, tmp_path: Path) -> None:
    with receiving() as receiver, running(queue, tmp_path, receiver.port) as service:
        job = submitted(service, tmp_path, receiver.url)
        view = wait_until(service, job, DeliveryState.DELIVERED)
        (told,) = receiver.verified()
        assert told["type"] == "job.completed" and told["data"] == service.client.get(f"/v1/jobs/{job}").json()
        assert told["timestamp"] == told["data"]["finished_at"]
        assert receiver.received[0][0]["content-type"] == "application/json"
        assert view["message"] == receiver.ids[0] == f"msg_{job}_1" and view["next_attempt_at"] is None
        assert [attempt["status"] for attempt in view["attempts"]] == [204]
        # neither the secret nor the path of the address is shown anywhere, nor kept in Redis
        assert view["receiver"] == f"http://127.0.0.1:{receiver.port}"
        redis = raw_redis(queue)
        kept = [str(redis.hgetall(key)) for key in redis.keys("*") if redis.type(key) in (b"hash", "hash")]
        assert kept and not any(SECRET in text or "of-the-path" in text for text in kept)


def test_a_receiver_that_is_away_fails_and_is_slow_gets_one_message(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "PAUSES", (0.05,) * 10_000)  # nobody listens for as long as the machine is slow
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    away = Receiver(port, statuses=[500, 0, 302, 429, 200], headers={"Location": "/elsewhere", "Retry-After": "0"})
    with running(queue, tmp_path, port) as service:
        job = submitted(service, tmp_path, away.url)
        wait_for(lambda: len(delivery(service, job)["attempts"]) >= 2)  # nobody listens
        assert service.client.get("/v1/webhooks?state=pending").json()["webhooks"][0]["job"] == job
        with receiving(away):
            view = wait_until(service, job, DeliveryState.DELIVERED)
        assert set(away.ids) == {view["message"]} and len(away.ids) == 5 and away.verified()
        answers = [attempt["status"] or attempt["error"] for attempt in view["attempts"]]
        assert answers[-5:] == [500, "the connection broke before the response was complete", 302, 429, 200]
        assert answers[0].startswith("the server cannot be reached: ")


def test_a_slow_receiver_is_asked_again(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "PAUSES", (0.05,) * 10_000)
    monkeypatch.setattr(posts, "SECONDS", 0.2)
    with receiving(Receiver(slow=0.6)) as receiver, running(queue, tmp_path, receiver.port) as service:
        job = submitted(service, tmp_path, receiver.url)
        wait_for(lambda: len(delivery(service, job)["attempts"]) >= 1)
        assert delivery(service, job)["attempts"][0]["error"] == "no answer within 0.2 seconds"
        monkeypatch.setattr(posts, "SECONDS", 60.0)
        wait_until(service, job, DeliveryState.DELIVERED)
        assert len(set(receiver.ids)) == 1


def test_what_is_given_up_is_listed_and_sent_again_on_request(queue: Queue, tmp_path: Path) -> None:
    with receiving(Receiver(statuses=[503] * 11)) as receiver, running(queue, tmp_path, receiver.port) as service:
        job = submitted(service, tmp_path, receiver.url)
        view = wait_until(service, job, DeliveryState.FAILED)
        assert [attempt["status"] for attempt in view["attempts"]] == [503] * 11 and view["next_attempt_at"] is None
        (listed,) = service.client.get("/v1/webhooks").json()["webhooks"]
        assert listed == view
        again = service.client.post(f"/v1/jobs/{job}/webhook/redeliver")
        assert again.status_code == 202 and again.json()["state"] == "pending"
        wait_until(service, job, DeliveryState.DELIVERED)
        assert len(set(receiver.ids)) == 1 and len(receiver.ids) == 12
        assert service.client.get("/v1/webhooks").json() == {"webhooks": [], "next": None}


def test_a_receiver_that_is_gone_is_not_asked_again(queue: Queue, tmp_path: Path) -> None:
    with receiving(Receiver(statuses=[410])) as receiver, running(queue, tmp_path, receiver.port) as service:
        job = submitted(service, tmp_path, receiver.url)
        view = wait_until(service, job, DeliveryState.FAILED)
        assert [attempt["status"] for attempt in view["attempts"]] == [410]
        # a deleted job is not listed
        service.client.delete(f"/v1/jobs/{job}").raise_for_status()
        assert service.client.get("/v1/webhooks").json()["webhooks"] == []
        problem(service.client.get(f"/v1/jobs/{job}/webhook"), 404, "unknown-job")


def test_what_may_not_be_reached_is_refused(queue: Queue, tmp_path: Path) -> None:
    with (
        receiving() as receiver,
        running(queue, tmp_path, receiver.port, private_urls=False, url_ports=[80, receiver.port]) as service,
    ):
        for url in (receiver.url, "http://169.254.169.254/", "http://[::1]/", "ftp://example.org/", "http://a@b.org/"):
            shard = write_shard(tmp_path / "shards" / "a.tar", [jpeg()])
            answer = service.submit(shard, webhook={"url": url, "secret": SECRET})
            problem(answer, 403 if answer.status_code == 403 else 422, "refused-url")
        # a name is resolved when the message is sent
        job = submitted(service, tmp_path, receiver.url.replace("127.0.0.1", "localhost"))
        view = wait_until(service, job, DeliveryState.FAILED)
        assert [attempt["error"] for attempt in view["attempts"]] == [
            "the host 'localhost' has an address that is not public"
        ]
        assert not receiver.received


def test_only_the_named_hosts_are_reached(queue: Queue, tmp_path: Path) -> None:
    with receiving() as receiver, running(queue, tmp_path, receiver.port, webhook_hosts=["localhost"]) as service:
        shard = write_shard(tmp_path / "shards" / "a.tar", [jpeg()])
        assert service.submit(shard, webhook={"url": receiver.url, "secret": SECRET}).status_code in (403, 422)
        job = submitted(service, tmp_path, receiver.url.replace("127.0.0.1", "localhost"))
        wait_until(service, job, DeliveryState.DELIVERED)


@pytest.mark.parametrize(
    "secret",
    ["", "short", "whsec_", "whsec_c2hvcnQ=", SECRET.removeprefix("whsec_"), "whsec_" + "A" * 200, "whsec_é" * 9],
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValidationError) as found:
        BatchRequest.model_validate(
            {"input": {"shards": ["a.tar"]}, "webhook": {"url": "https://example.org/", "secret": secret}}
        )
    (error,) = found.value.errors(include_url=False, include_input=False, include_context=False)
    assert error["loc"] == ("webhook", "secret") and error["msg"].endswith("base64 of 24 to 64 random bytes")
    assert len(secret) < 7 or secret not in str(error)


def test_a_message_outlives_redis_and_the_process(queue: Queue, tmp_path: Path) -> None:
    with receiving(Receiver(statuses=[500] * 3)) as receiver:
        with running(queue, tmp_path, receiver.port) as service:
            job = submitted(service, tmp_path, receiver.url)
            wait_for(lambda: len(receiver.received) >= 1)
            wait_for_end(service.jobs, job)
        raw_redis(queue).flushall()
        with running(queue, tmp_path, receiver.port) as service:
            view = wait_until(service, job, DeliveryState.DELIVERED)
        assert set(receiver.ids) == {view["message"]}


def test_each_end_of_a_retried_job_is_told(queue: Queue, tmp_path: Path) -> None:
    with receiving() as receiver, running(queue, tmp_path, receiver.port) as service:
        shard = write_shard(tmp_path / "shards" / "a.tar", [jpeg(), b"no image"])
        job = service.submit(shard, webhook={"url": receiver.url, "secret": SECRET}).json()["id"]
        wait_until(service, job, DeliveryState.DELIVERED)
        assert service.client.get(f"/v1/jobs/{job}").json()["request_counts"]["failed"] == 1
        service.client.post(f"/v1/jobs/{job}/retry").raise_for_status()
        wait_for(lambda: len(receiver.received) == 2)
        assert receiver.ids == [f"msg_{job}_1", f"msg_{job}_2"]


def test_a_cancelled_job_tells_it(queue: Queue, tmp_path: Path) -> None:
    with receiving() as receiver, running(queue, tmp_path, receiver.port, workers=False) as service:
        job = submitted(service, tmp_path, receiver.url)
        waiting = delivery(service, job)
        assert waiting["state"] == "waiting" and waiting["message"] is None
        problem(service.client.post(f"/v1/jobs/{job}/webhook/redeliver"), 409, "job-not-ended")
        service.client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
        wait_until(service, job, DeliveryState.DELIVERED)
        assert [told["type"] for told in receiver.verified()] == ["job.cancelled"]


def test_a_job_without_a_webhook_says_so(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        job = service.submit(write_shard(tmp_path / "shards" / "a.tar", [jpeg()])).json()["id"]
        problem(service.client.get(f"/v1/jobs/{job}/webhook"), 404, "no-webhook")
        problem(service.client.post(f"/v1/jobs/{job}/webhook/redeliver"), 404, "no-webhook")
