"""Below a path prefix, which a proxy strips or leaves: every address in answers, and the addresses of pages."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from app.http.browsers import HEADERS
from app.http.serving import Proxies
from strata.addresses import AddressError, path_prefix
from strata.core import Settings
from strata.queue import Queue
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.secrets import SECRET
from tests.service import Service, listening_service, problem, running_service

ROOT = "/tools/strata"
_ADDRESS = re.compile(r'(?:src|href|spec-url|data-url)="([^"]+)"')  # of a page
# an address of ours without the prefix
_BARE = re.compile(r"(?<![\w/])/v1/")


@pytest.fixture(scope="module")
def below(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that is told its prefix."""
    with running_service(Queue(valkey_url), tmp_path_factory.mktemp("below"), root_path=f"{ROOT}/") as service:
        yield service


@pytest.mark.parametrize("outside", ["", ROOT], ids=["stripped", "left"])
def test_every_address_of_an_answer_has_the_prefix(below: Service, outside: str) -> None:
    client = below.client
    shard = write_shard(below.settings.data_dir.parent / "shards" / "a.tar", [jpeg(40), b"no image", jpeg(41), b"x"])
    sent = client.post(f"{outside}/v1/batches", json={"input": {"shards": [shard]}})
    job = sent.json()["id"]
    wait_for_end(below.jobs, job)
    image = {"file": ("a.jpg", jpeg())}
    done = client.post(f"{outside}/v1/captions", files=image, headers={"Prefer": "wait=60"})
    accepted = client.post(
        f"{outside}/v1/captions", files={"file": ("a.jpg", jpeg(50))}, headers={"Idempotency-Key": outside or "a"}
    )
    again = client.post(
        f"{outside}/v1/captions", files={"file": ("a.jpg", jpeg(50))}, headers={"Idempotency-Key": outside or "a"}
    )
    assert (sent.status_code, done.status_code, accepted.status_code) == (202, 200, 202)
    assert again.headers["idempotency-replayed"] == "true"
    answers = [sent, done, accepted, again]
    for path in (
        "jobs?limit=1",
        f"jobs/{job}",
        f"jobs/{job}/results?limit=1",
        f"jobs/{job}/failures?limit=1",
        f"jobs/{job}/events",
    ):
        answers.append(client.get(f"{outside}/v1/{path}"))
    answers += [client.post(f"{outside}/v1/jobs/{job}/{act}") for act in ("cancel", "retry")]
    for answer in answers:
        assert answer.is_success, answer.text
        addresses = [
            answer.headers[name] for name in ("location", "content-location", "link") if name in answer.headers
        ]
        assert all(f"{ROOT}/v1/" in one and one.count("/v1/") == 1 for one in addresses)
        assert not _BARE.search(answer.text), answer.text
    assert sum("link" in answer.headers for answer in answers) == 3
    # what is told leads there, by the proxy and in the service
    for name, link in sent.json()["links"].items():
        assert link.startswith(f"{ROOT}/v1/jobs/{job}"), name
        if name not in ("cancel", "retry"):
            assert client.get(link).is_success and client.get(link.removeprefix(ROOT)).is_success
    for answer in (done, *answers[4:8]):
        link = answer.headers.get("content-location") or answer.headers.get("link", "<>").partition(">")[0][1:]
        assert not link or client.get(link).is_success, link


@pytest.mark.parametrize("page", ["/", "/docs", "/redoc"])
def test_pages_and_what_they_load_lie_below_the_prefix(below: Service, page: str) -> None:
    found = below.client.get(f"{ROOT}{page}")
    assert found.status_code == 200 and set(map(str.lower, HEADERS)) <= set(found.headers)
    addresses = _ADDRESS.findall(found.text)
    assert len(addresses) >= 4
    for address in addresses:
        url = urljoin(f"{ROOT}{page}", address)
        assert url.startswith(f"{ROOT}/") and below.client.get(url).status_code == 200, url


def test_the_document_names_the_prefix(below: Service, idle_service: Service) -> None:
    for path in ("/openapi.json", f"{ROOT}/openapi.json"):
        assert below.client.get(path).json()["servers"] == [{"url": ROOT}]
    assert "servers" not in idle_service.client.get("/openapi.json").json()


def test_the_prefix_itself_leads_to_the_studio(below: Service) -> None:
    found = below.client.get(ROOT, follow_redirects=False)
    assert found.status_code == 307 and urlsplit(found.headers["location"]).path == f"{ROOT}/"
    slash = below.client.get(f"{ROOT}/v1/jobs/", follow_redirects=False)
    assert urlsplit(slash.headers["location"]).path == f"{ROOT}/v1/jobs"
    # a proxy has stripped it
    slash = below.client.get("/v1/jobs/", follow_redirects=False)
    assert urlsplit(slash.headers["location"]).path == f"{ROOT}/v1/jobs"


def test_the_key_is_needed_below_the_prefix_too(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False, root_path=ROOT, api_key=SECRET) as service:
        for path in (
            "/v1/jobs",
            f"{ROOT}/v1/jobs",
            f"{ROOT}/v1",
            f"{ROOT}/v1/nowhere",
            f"{ROOT}//v1/jobs",
            "//v1/jobs",
        ):
            answer = service.client.get(path, follow_redirects=False)
            assert answer.status_code == (404 if "//" in path else 401), path
        assert service.client.get(f"{ROOT}/v1/jobs", headers={"X-API-Key": SECRET}).status_code == 200
        # a page of another site may not have a person's browser open an answer of the API
        evil = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        problem(service.client.get(f"{ROOT}/v1/jobs", headers=evil), 403, "origin-not-allowed")
        assert service.client.get(f"{ROOT}/", headers=evil).status_code == 200


@pytest.mark.parametrize(
    ("trusted", "told", "root"),
    [
        ("127.0.0.1", "/strata", "/strata"),
        ("127.0.0.1", "/a/b/", "/a/b"),
        ("127.0.0.1", "/outer, /inner", "/outer"),
        ("127.0.0.1", "//evil.example", ""),
        ("127.0.0.1", "https://evil.example/", ""),
        ("127.0.0.1", "/a/../b", ""),
        ("127.0.0.1", "/v1", ""),
        ("127.0.0.1", "/a>; rel=x", ""),
        ("127.0.0.1", "/\xe9", ""),
        ("10.0.0.1", "/strata", ""),
    ],
)
def test_only_a_path_of_a_trusted_proxy_is_the_prefix(trusted: str, told: str, root: str) -> None:
    seen: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["root_path"])

    headers = [(b"x-forwarded-prefix", told.encode("latin-1")), (b"x-forwarded-for", b"10.9.8.7")]
    scope: Scope = {"type": "http", "client": ("127.0.0.1", 1), "headers": headers, "root_path": ""}
    asyncio.run(Proxies(cast(Any, application), trusted)(scope, None, None))
    assert seen == [root] and (scope["client"][0] == "10.9.8.7") == (trusted == "127.0.0.1")


@pytest.mark.parametrize("trusted", ["127.0.0.1", None])
def test_a_proxy_tells_the_prefix_of_each_request(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str | None
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if trusted is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    root = "/strata" if trusted else ""
    with (
        listening_service(queue, tmp_path) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        client.timeout = httpx.Timeout(120)
        headers = {"X-Forwarded-Prefix": "/strata"}
        accepted = client.post("/v1/captions", files={"file": ("a.jpg", jpeg())}, headers=headers)
        job = accepted.json()
        assert accepted.headers["location"] == job["links"]["self"] == f"{root}/v1/jobs/{job['id']}"
        assert client.get("/openapi.json", headers=headers).json().get("servers") == ([{"url": root}] if root else None)
        assert client.get("/v1/jobs").json()["jobs"][0]["links"]["self"] == f"/v1/jobs/{job['id']}"


@given(st.text(max_size=40) | st.from_regex(r"(/[a-z0-9._~-]{1,8}){1,4}/?", fullmatch=True))
def test_any_prefix_is_a_path_or_refused(text: str) -> None:
    try:
        prefix = path_prefix(text)
    except AddressError:
        return
    assert prefix == "" or (prefix.startswith("/") and not prefix.endswith("/") and "//" not in prefix)
    assert path_prefix(prefix) == prefix and prefix.isascii()
    assert (
        json.dumps(prefix) == f'"{prefix}"' and urljoin("http://host/x", prefix or "/") == f"http://host{prefix or '/'}"
    )


@pytest.mark.parametrize(
    "wrong", ["strata", "/a//b", "/..", "/a b", "/v1", "/docs/x", "/" + "a" * 300, "https://a/b", "/é"]
)
def test_a_setting_that_is_no_path_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="right is /strata"):
        Settings(root_path=wrong)
