"""What pages of other origins may do: which hosts and origins are taken, and the headers of every answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.http.browsers import HEADERS, is_served
from strata.jobs.listing import Listing
from strata.queue.queue import Queue
from tests.fakes import jpeg
from tests.secrets import SECRET
from tests.service import Service, problem, running_service

PATHS = ("/", "/docs", "/healthz", "/openapi.json", "/problems", "/v1/jobs", "/static/studio/main.js", "/nowhere")
EVIL = "https://evil.example"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::1", "localhost@evil", "a:b"]
)
def test_a_host_that_is_not_served(idle_service: Service, host: str) -> None:
    for path in PATHS:
        problem(idle_service.client.get(path, headers={"Host": host}), 421, "host-not-allowed")
    problem(idle_service.client.post("/v1/captions", headers={"Host": host}), 421, "host-not-allowed")


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:8080",
            "[::1]",
            "localhost",
            "LOCALHOST:80",
            "a.localhost",
        ),
        *("10.244.1.7:8080", "[fd00::7]:8080"),  # probes of container engines name the address of the container
        *("service.example", "Service.Example.:8080", "x.y.org", "api_1:8080"),
    ],
)
def test_a_host_that_is_served(host: str) -> None:
    assert is_served(host, ["service.example", "*.y.org", "api_1"])


def test_the_names_of_a_service_are_settings(queue: Queue, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"host": "Bound.example", "allowed_hosts": "one.example, *.two.example"}
    with running_service(queue, tmp_path, workers=False, **changes) as service:
        for host, status in {
            **dict.fromkeys(("bound.example:8080", "one.example", "a.two.example"), 200),
            **dict.fromkeys(("two.example", "a.one.example", "testserver"), 421),
        }.items():
            assert service.client.get("/healthz", headers={"Host": host}).status_code == status, host
    with running_service(queue, tmp_path, workers=False, allowed_hosts="*") as service:
        assert service.client.get("/healthz", headers={"Host": "any.example"}).status_code == 200


CROSS: list[dict[str, str]] = [
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Origin": "http://testserver:8081"},  # another port is another origin
    {"Origin": "http://testserver.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
]


@pytest.mark.parametrize("headers", CROSS)
def test_a_page_of_another_origin_is_refused(idle_service: Service, headers: dict[str, str]) -> None:
    before = idle_service.client.get("/v1/jobs").json()
    for path in PATHS:
        answer = idle_service.client.get(path, headers=headers)
        problem(answer, 403, "origin-not-allowed")
        assert "Access-Control-Allow-Origin" not in answer.headers
    answer = idle_service.client.post("/v1/captions", files={"file": ("a.jpg", jpeg())}, headers=headers)
    problem(answer, 403, "origin-not-allowed")
    for method in ("DELETE", "OPTIONS", "PUT"):
        problem(idle_service.client.request(method, "/v1/jobs/a", headers=headers), 403, "origin-not-allowed")
    assert idle_service.client.get("/v1/jobs").json() == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://testserver"},
        {"Origin": "https://testserver:443"},  # a proxy in front speaks TLS
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://outside.example"},  # a proxy that changes Host
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_the_service_s_own_pages_and_programs_are_served(idle_service: Service, headers: dict[str, str]) -> None:
    assert idle_service.client.get("/v1/jobs", headers=headers).status_code == 200
    answer = idle_service.client.post("/v1/captions", files={"file": ("a.jpg", jpeg())}, headers=headers)
    assert answer.status_code == 202


def test_a_link_of_another_site_opens_a_page_but_no_data(idle_service: Service) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert idle_service.client.get("/", headers=link).status_code == 200
    problem(idle_service.client.get("/v1/jobs", headers=link), 403, "origin-not-allowed")
    problem(idle_service.client.post("/", headers=link), 403, "origin-not-allowed")


def test_origins_that_are_allowed(queue: Queue, tmp_path: Path) -> None:
    ours = "https://tool.example"
    with running_service(queue, tmp_path, workers=False, cors_origins=ours, api_key=SECRET) as service:
        headers = {"Origin": ours, "Sec-Fetch-Site": "cross-site"}
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key,prefer"}
        # a browser asks first, without the key
        allowed = service.client.options("/v1/captions", headers=headers | asked)
        assert allowed.status_code == 200 and allowed.headers["Access-Control-Allow-Origin"] == ours
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        answer = service.client.get("/v1/jobs", headers=headers | {"X-API-Key": SECRET})
        assert answer.status_code == 200 and answer.headers["Access-Control-Allow-Origin"] == ours
        assert "Link" in answer.headers["Access-Control-Expose-Headers"] and "Origin" in answer.headers["Vary"]
        problem(service.client.get("/v1/jobs", headers=headers), 401, "unauthorized")
        problem(service.client.options("/v1/jobs", headers={"Origin": EVIL} | asked), 403, "origin-not-allowed")


def test_every_answer_has_the_headers(idle_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    client, answers = idle_service.client, []
    job = idle_service.caption(jpeg(), wait=None).json()["id"]
    answers += [client.get(path) for path in (*PATHS, "/redoc", "/problems/not-found", f"/v1/jobs/{job}")]
    answers += [client.get("/", headers={"Host": "evil"}), client.get("/", headers={"Origin": EVIL})]
    answers += [client.put("/v1/jobs"), client.get("/v1/jobs/none"), client.post("/v1/batches", content=b"{")]
    answers += [client.post("/v1/captions", content=b"x" * 300_000), client.get("/v1/jobs?limit=0")]
    monkeypatch.setattr(Listing, "page", lambda *_: 1 / 0)
    answers.append(client.get("/v1/jobs"))
    assert {answer.status_code for answer in answers} >= {200, 403, 404, 405, 413, 421, 422, 500}
    for answer in answers:
        assert {name.lower() for name in HEADERS} <= set(answer.headers), answer.url
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "Origin" in answer.headers["Vary"]
        if answer.request.url.path.startswith("/v1"):
            assert answer.headers["Cache-Control"] == "no-store"


@pytest.fixture(scope="module")
def keyed_service(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that needs a key."""
    folder = tmp_path_factory.mktemp("keyed")
    with running_service(Queue(valkey_url), folder, workers=False, api_key=SECRET) as service:
        yield service


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/v1/batches", b"{"),
        ("POST", "/v1/captions", b"{"),
        ("POST", "/v1/captions", b"x" * 300_000),
        ("GET", "/v1/nowhere", b""),
        ("GET", "/v1", b""),
        ("PUT", "/v1/jobs", b""),
        ("GET", "/v1/jobs/none", b""),
        ("GET", "/v1/jobs?limit=x", b""),
        ("GET", "/%76%31/jobs", b""),
        ("OPTIONS", "/v1/jobs", b""),
    ],
)
def test_without_a_key_nothing_else_is_told(keyed_service: Service, method: str, path: str, content: bytes) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "a"}
    answer = keyed_service.client.request(method, path, content=content, headers=headers)
    problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    given = keyed_service.client.request(method, path, content=content, headers=headers | {"X-API-Key": SECRET})
    assert given.status_code != 401
