"""Problems: their documents, the key, a Redis that goes away, and what must not leak."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.problem_types import PROBLEMS, document
from strata.core.profiles import GROUPS
from strata.jobs.listing import Listing
from strata.queue.embedded import EmbeddedServer
from strata.queue.heartbeats import Heartbeat
from strata.queue.queue import Queue
from tests.fakes import jpeg
from tests.secrets import SECRET
from tests.service import Service, problem, running_service


def test_the_document_is_up_to_date(idle_service: Service) -> None:
    text = (Path(__file__).parents[2] / "docs" / "problems.md").read_text()
    assert text == document(), "run: python -m app.problem_types > docs/problems.md"
    assert idle_service.client.get("/problems").text == text
    statuses = [kind.status for kind in PROBLEMS.values()]
    assert statuses == sorted(statuses)
    for kind in PROBLEMS.values():
        page = idle_service.client.get(kind.uri)
        assert page.status_code == 200 and page.text in text
        assert f"**{kind.status} {kind.title}.**" in page.text


def test_addresses_and_methods_that_are_not_there(idle_service: Service) -> None:
    problem(idle_service.client.get("/nowhere"), 404, "not-found")
    problem(idle_service.client.get("/problems/none"), 404, "not-found")
    answer = idle_service.client.delete("/v1/jobs")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "GET"


def test_an_unexpected_error_tells_nothing(idle_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the reason")

    monkeypatch.setattr(Listing, "page", broken)
    assert "the reason" not in json.dumps(problem(idle_service.client.get("/v1/jobs"), 500, "internal-error"))


def test_the_api_key(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False, api_key=f"sésame-{SECRET}") as service:
        for path in ("/healthz", "/docs", "/openapi.json", "/", "/problems"):
            assert service.client.get(path).status_code == 200
        assert service.client.get("/readyz").status_code == 503
        wrong: list[dict[str, str]] = [
            {},
            {"X-API-Key": "no"},
            {"Authorization": "Bearer no"},
            {"Authorization": "Basic s"},
            {"Authorization": "Bearer"},
        ]
        for headers in wrong:
            answer = service.client.get("/v1/jobs", headers=headers)
            problem(answer, 401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            headers = {**headers, "Idempotency-Key": "k"}
            problem(service.client.post("/v1/batches", json={}, headers=headers), 401, "unauthorized")
        for name, value in (("X-API-Key", f"sésame-{SECRET}"), ("Authorization", f"Bearer sésame-{SECRET}")):
            raw = [(name.encode(), value.encode())]
            assert service.client.get("/v1/jobs", headers=raw).status_code == 200


def test_redis_goes_and_comes_back(tmp_path: Path) -> None:
    with (
        EmbeddedServer(tmp_path / "valkey") as server,
        running_service(Queue(server.url), tmp_path, workers=False) as service,
    ):
        job = service.caption(jpeg(), wait=None).headers["Location"]
        server.stop_child(server._process)  # type: ignore[arg-type]
        calls = [
            service.client.get(job),
            service.caption(jpeg(40), wait=None),
            service.client.post("/v1/captions", files={"file": ("a", jpeg(40))}, headers={"Idempotency-Key": "k"}),
            service.client.get(f"{job}/results"),
            service.client.get(f"{job}/events"),
        ]
        for answer in calls:
            problem(answer, 503, "redis-unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        assert "Redis" in problem(service.client.get("/readyz"), 503, "not-ready")["detail"]
        assert service.client.get("/healthz").status_code == 200
        assert server.ensure_running()
        assert service.client.get(job).status_code == 200
        assert service.caption(jpeg(40), wait=None).status_code == 202


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.png",
        "http://localhost/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://192.0.0.192/opc/v2/instance",
        "http://168.63.129.16/machine",
        "http://[fec0::1]/",
        "http://8.8.8.8:8080/",
        "http://8.8.8.8:/",
        "http://example.com\\@8.8.8.8/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://[64:ff9b::7f00:1]/",
        "http://user:word@example.com/",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "//example.com/a",
        "http://",
        "http://[::1",
        "javascript:alert(1)",
        "",
    ],
)
def test_a_url_that_must_not_be_fetched(idle_service: Service, url: str) -> None:
    problem(idle_service.client.post("/v1/captions", json={"image_url": url}), 422, "refused-url")


def test_readiness(idle_service: Service) -> None:
    assert idle_service.client.get("/healthz").json() == {"status": "ok"}
    missing = problem(idle_service.client.get("/readyz"), 503, "not-ready")
    assert [error["location"] for error in missing["errors"]] == [[f"workers/{group}"] for group in GROUPS]
    for ready, status in ((False, 503), (True, 200)):
        heartbeat = Heartbeat(name="w", pid=1, groups=list(GROUPS), ready=ready, chunks=[])
        idle_service.jobs.queue.heartbeats.publish(heartbeat, 5)
        assert idle_service.client.get("/readyz").status_code == status


def test_the_page_needs_nothing_from_elsewhere(service: Service) -> None:
    answer = service.client.get("/")
    assert answer.status_code == 200 and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "http://" not in answer.text and "https://" not in answer.text
