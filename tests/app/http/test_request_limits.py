"""What one request may have, and what all of them may have in memory."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from app import dependencies
from app.http.limits import MAX_HEADERS, MAX_JSON_DEPTH, MAX_JSON_VALUES, MAX_QUERY_PARAMETERS
from app.http.request_limits import BodyBudget, RequestLimits, json_fault
from app.routes import captions
from app.routes import jobs as routes
from strata.core.profiles import load_profile
from strata.queue.queue import Queue
from tests.app.test_serve import served
from tests.fakes import jpeg
from tests.service import Service, listening_service, problem

JSON = {"Content-Type": "application/json"}
MIB = 2**20
LONG = 300.0  # seconds: far more than anything here takes
_TEXTS = st.text('[]{},:"\\/ aü\x00', max_size=8)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    _TEXTS | st.integers(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4)
)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


@given(_VALUES, st.integers(0, 40), st.booleans())
@settings(max_examples=100)
def test_json_is_measured_as_it_is_parsed(value: Any, more: int, ascii_only: bool) -> None:
    for _ in range(more):
        value = [value]
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert bool(json_fault(body)) == (_depth(value) > MAX_JSON_DEPTH)


@given(st.binary(max_size=300) | st.text('[]{}",\\', max_size=300).map(str.encode))
@settings(max_examples=200)
def test_what_is_let_through_is_parsed_or_refused_in_bounds(body: bytes) -> None:
    if json_fault(body):
        return
    with suppress(ValueError):
        assert _depth(json.loads(body)) <= MAX_JSON_DEPTH


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"[" * 5000, "deeper"),
        (b'{"a":' * 3000, "deeper"),
        (b'["",' + b"[" * 40, "deeper"),
        (b'"\\"' + b"]" * 50 + b'"' + b"[" * 40, "deeper"),
        (b"[" + b"0," * (MAX_JSON_VALUES + 1) + b"0]", "values"),
        (b"[" + b"{}," * (MAX_JSON_VALUES // 2 + 1) + b"0]", "values"),
        (b"{" + b'"a":0,' * 1001 + b'"a":0}', "keys"),
        (b'{"a":["' + b":" * 2000 + b'"],' + b'"a":0,' * 1001 + b"}", "keys"),
        (b'""' * (4 * MAX_JSON_VALUES + 1) + b"[" * 33, "values"),
        ("[[[".encode("utf-16-le"), "UTF-8"),
        (("[" * 40).encode("utf-32-be"), "UTF-8"),
    ],
)
def test_json_that_is_not_parsed(body: bytes, word: str) -> None:
    start = time.thread_time()
    assert word in json_fault(body)
    assert time.thread_time() - start < 2


@pytest.mark.parametrize("path", ["/v1/captions", "/v1/batches"])
def test_deep_json_is_a_problem(idle_service: Service, path: str) -> None:
    for body in (b"[" * 5000, b'{"input":' * 40, "{}".encode("utf-16-le")):
        problem(idle_service.client.post(path, content=body, headers=JSON), 422, "invalid-request")


def test_heads_with_too_much(idle_service: Service) -> None:
    many = {f"X-{i}": "a" for i in range(MAX_HEADERS)}
    problem(idle_service.client.get("/v1/jobs", headers=many), 431, "headers-too-large")
    query = "&".join("a=b" for _ in range(MAX_QUERY_PARAMETERS + 1))
    problem(idle_service.client.get(f"/v1/jobs?{query}"), 422, "invalid-request")


@pytest.mark.parametrize(
    "body",
    [
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nX: ' + b"a" * 150_000,
        b"--x\r\n" + b"A: b\r\n" * 20_000,
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\r\n' * 100,
        b'--x\r\nContent-Disposition: form-data; name="' + b"n" * 100_000 + b'"\r\n\r\n\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="alt_text"\r\n\r\n' + b"a" * 100_000 + b"\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data" + b"; a=b" * 20_000 + b"\r\n\r\n\r\n--x--\r\n",
    ],
    ids=["long header", "headers", "parts", "long name", "long field", "parameters"],
)
def test_forms_with_too_much(idle_service: Service, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(idle_service.client.post("/v1/captions", content=body, headers=headers), 400, "malformed-request")


def test_the_bodies_in_memory_have_a_budget() -> None:
    release, waiting = asyncio.Event(), []

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        except Exception as error:
            await PlainTextResponse(str(error), getattr(error, "status_code", 500))(scope, receive, send)
            return
        waiting.append(scope)
        await release.wait()
        await PlainTextResponse("read")(scope, receive, send)

    limits = RequestLimits(reads, 100)
    limits.budget = BodyBudget(150)

    async def post(size: int) -> int:
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"x" * size, "more_body": False}

        async def send(message: Message) -> None:
            statuses.append(message.get("status", 0))

        await limits({"type": "http", "headers": [], "query_string": b""}, receive, send)
        return statuses[0]

    async def run() -> None:
        posts = [asyncio.create_task(post(70)) for _ in range(2)]
        while len(waiting) < 2:
            await asyncio.sleep(0)
        # there is no room for a third; a small one fits
        assert limits.budget.used == 140 and await post(70) == 503
        small = asyncio.create_task(post(10))
        while len(waiting) < 3:
            await asyncio.sleep(0)
        release.set()
        assert [await task for task in (*posts, small)] == [200] * 3
        assert limits.budget.used == 0 and await post(70) == 200

    asyncio.run(run())


def _budget(app: Any) -> BodyBudget:
    """The budget of a built application."""
    app = app.middleware_stack
    while not isinstance(app, RequestLimits):
        app = app.app
    return app.budget


def test_a_request_that_waits_holds_no_body(idle_service: Service) -> None:
    client = idle_service.client
    for more in ({}, {"Idempotency-Key": "a request that waits"}):
        files = {"file": ("a.jpg", jpeg(300, 200, "green"))}
        headers = {"Prefer": "wait=30", **more}
        jobs = len(client.get("/v1/jobs?limit=200").json()["jobs"])
        thread = threading.Thread(target=lambda f=files, h=headers: client.post("/v1/captions", files=f, headers=h))
        thread.start()
        # its job is there: it waits now, or will in a moment
        end = time.monotonic() + LONG
        while len(client.get("/v1/jobs?limit=200").json()["jobs"]) == jobs or _budget(client.app).used:
            assert time.monotonic() < end
            time.sleep(0.01)
        job = client.get("/v1/jobs?limit=1").json()["jobs"][0]["id"]
        assert thread.is_alive()
        client.post(f"/v1/jobs/{job}/cancel")
        thread.join(LONG)


def _bodies() -> Iterator[tuple[bytes, dict[str, str]]]:
    """Large bodies of each kind that a route reads."""
    size = 18 * MIB
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    yield b"[" + b"[]," * (size // 3) + b"0]", JSON
    yield b'{"image_base64": "' + base64.b64encode(b"\xff\xd8\xff" + bytes(size * 3 // 4)) + b'"}', JSON
    yield file + b"\xff\xd8\xff" + bytes(size) + b"\r\n--x--\r\n", form


def test_large_bodies_do_not_fill_the_memory(tmp_path: Path) -> None:
    with served(tmp_path, "--no-workers") as (process, url), ThreadPoolExecutor(6) as pool:
        assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
        idle = _memory(process.pid)
        peak, done = idle, threading.Event()

        def measure() -> None:
            nonlocal peak
            while not done.wait(0.01):
                peak = max(peak, _memory(process.pid))

        thread = threading.Thread(target=measure, daemon=True)
        thread.start()
        posts = [
            pool.submit(httpx.post, f"{url}/v1/captions", content=body, headers=headers, timeout=LONG)
            for body, headers in list(_bodies()) * 2
        ]
        statuses = {post.result().status_code for post in posts}
        assert statuses <= {422, 503} and 422 in statuses
        done.set()
        thread.join()
    assert peak - idle < 600 * MIB


def _memory(pid: int) -> int:
    """The memory of a process without its children, in bytes."""
    return int(psutil.Process(pid).memory_info().rss)


def test_streams_of_events_have_a_bound(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "MAX_STREAMS_OF_CALLER", 2)
    monkeypatch.setattr(dependencies, "MAX_STREAMS", 3)
    with listening_service(queue, tmp_path) as port, ExitStack() as stack:
        url = f"http://127.0.0.1:{port}"
        job = httpx.post(f"{url}/v1/captions", files={"file": ("a.jpg", jpeg())}, timeout=60).json()["id"]

        def stream(source: str) -> httpx.Response:
            transport = httpx.HTTPTransport(local_address=source)
            client = stack.enter_context(httpx.Client(transport=transport, timeout=LONG))
            return stack.enter_context(client.stream("GET", f"{url}/v1/jobs/{job}/events"))

        # two for one address, three in all
        mine = [stream("127.0.0.1") for _ in range(2)]
        refused = stream("127.0.0.1")
        refused.read()
        assert [one.status_code for one in mine] == [200, 200]
        assert problem(refused, 429, "too-many-streams") and refused.headers["Retry-After"]
        assert stream("127.0.0.2").status_code == 200
        assert stream("127.0.0.2").status_code == 429
        # a place is free again when its stream ends
        mine[0].close()
        end = time.monotonic() + LONG
        while stream("127.0.0.1").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_too_many_waits_are_answered_at_once(idle_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "MAX_WAITS", 0)
    answer = idle_service.caption(jpeg(colour="blue"), wait=100)
    assert answer.status_code == 202 and "Preference-Applied" not in answer.headers


def test_a_page_of_jobs_is_bounded(idle_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, client = idle_service.jobs, idle_service.client
    profile = load_profile("fake", idle_service.settings.profiles_dir)
    # as a store of an earlier version may have them, and as they are now
    large = [jobs.new.create("batch", ["a.tar"], profile, "lo", {"a": "b" * MIB}).id for _ in range(6)]
    small = [jobs.new.create("batch", ["a.tar"], profile, "lo", {"a": "b" * 5000}).id for _ in range(30)]
    assert len(client.get("/v1/jobs?limit=200").content) < MIB
    monkeypatch.setattr(routes, "LIST_BYTES", 50_000)
    found, address = [], "/v1/jobs?limit=200&kind=batch"
    while address:
        page = client.get(address)
        assert len(page.content) < 50_000 + MIB // 10
        found += page.json()["jobs"]
        address = page.links.get("next", {}).get("url", "")
    assert [job["id"] for job in found] == [*reversed(small), *reversed(large)]
    assert {job["id"] for job in found if job["metadata"]} == set(small)
