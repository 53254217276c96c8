"""Both clients against answers of the documented shapes: every test runs with `Client` and with `AsyncClient`."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from strata.client.bulk import send_images
from strata.client.client import AsyncClient, Client
from strata.client.jobs import MAX_LOST
from strata.client.responses import ApiError
from strata.client.transport import RETRIES
from strata.core.records import FailureNote, ImageReference, Record
from strata.core.schemas import (
    FailureRow,
    GroupProgress,
    JobPage,
    JobStatus,
    JobView,
    Problem,
    RequestCounts,
    ShardCounts,
)
from strata.errors import InvalidInput
from strata.profiles import ProfileList, ProfileView
from tests.secrets import SECRET

Handler = Callable[[httpx.Request], httpx.Response]


def job(status: JobStatus = JobStatus.IN_PROGRESS, job_id: str = "j1") -> JobView:
    return JobView(
        id=job_id,
        kind="batch",
        status=status,
        profile="demo",
        priority="lo",
        request_counts=RequestCounts(total=2, queued=2),
        shards=ShardCounts(total=1),
        groups={"vision": GroupProgress()},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def record(key: str) -> Record:
    # U+2028 is a line's end to str.splitlines, and none to JSON Lines
    return Record(key=key, image=ImageReference(uri="file:///a.tar", size=1), alt_text="one\u2028two")


def answer(model: Record | JobView | JobPage | Problem, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=model.model_dump_json(), headers=headers)


def problem(status: int, **headers: str) -> httpx.Response:
    body = Problem(type="/problems/x", title="No such thing", status=status, detail="it is\nnot here")
    return answer(body, status, **headers)


class Blocking:
    """An AsyncClient that is used like a Client: each call is awaited, each iterator is read to its end."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)

        def called(*arguments: Any, **named: Any) -> Any:
            result = found(*arguments, **named)
            return asyncio.run(_awaited(result))

        return called


async def _awaited(result: Any) -> Any:
    return [item async for item in result] if hasattr(result, "__aiter__") else await result


@pytest.fixture(params=["blocking", "asynchronous"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which client the test's services have."""
    monkeypatch.setattr(Service, "asynchronous", request.param == "asynchronous")


def client_of(transport: httpx.MockTransport, asynchronous: bool, **options: Any) -> Client:
    if not asynchronous:
        return Client("http://strata.test", SECRET, transport=transport, **options)
    note = options.pop("sleep", None)

    async def sleep(seconds: float) -> None:
        note(seconds)

    client = AsyncClient("http://strata.test", SECRET, transport=transport, sleep=sleep, **options)
    return cast(Client, Blocking(client))


class Service:
    """Answers in order, the last one again and again; keeps the requests and the pauses."""

    asynchronous = False

    def __init__(self, *answers: httpx.Response | Exception, patience: float = 60.0) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []
        transport = httpx.MockTransport(self.handle)
        self.told: list[str] = []
        self.client = client_of(
            transport,
            self.asynchronous,
            patience=patience,
            on_wait=lambda seconds, problem: self.told.append(f"{problem.type} {seconds:g}"),
            sleep=self.pauses.append,
        )

    def handle(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(given, Exception):
            raise given
        return given


def test_caption_sends_the_file_and_reads_the_record(tmp_path: Path) -> None:
    path = tmp_path / "one.jpg"
    path.write_bytes(b"jpegbytes")
    service = Service(answer(record("k"), Location="/v1/jobs/j9"))
    assert service.client.caption(path, alt_text="a dog", profile="demo", wait=7) == record("k")
    request = service.requests[0]
    assert (request.method, request.url.path) == ("POST", "/v1/captions")
    assert request.headers["Prefer"] == "wait=7"
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    for part in (
        b'name="file"; filename="one.jpg"',
        b"jpegbytes",
        b'name="alt_text"',
        b"a dog",
        b'name="profile"',
    ):
        assert part in request.content
    assert service.client.captioned(b"jpegbytes").job_id == "j9"


def test_a_form_holds_names_and_texts_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"bad\xff.jpg")
    path.write_bytes(b"jpegbytes")
    service = Service(answer(record("k")))
    service.client.caption(path, alt_text="a\udcff", profile="p\udcfe")
    content = service.requests[0].content
    assert all(part in content for part in (b'filename="bad?.jpg"', b"jpegbytes", b"a?", b"p?"))


def test_a_file_that_has_no_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    service = Service(answer(record("k")))
    for endless in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(OSError, match="neither a regular file"):
            service.client.caption(endless)
    # the reason does not repeat the name by which it is kept
    sent = send_images(service.client, [tmp_path / "pipe.jpg", tmp_path / "gone.jpg"])
    assert list(sent.refused.values()) == ["neither a regular file nor a folder", "No such file or directory"]
    assert not service.requests


def test_caption_in_the_background_is_a_job() -> None:
    service = Service(answer(job(), 202, Location="/v1/jobs/j1"))
    assert service.client.caption(b"x", wait=0) == job()
    assert b'name="alt_text"' not in service.requests[0].content


def test_submit_sends_the_documented_body() -> None:
    service = Service(answer(job(), 202))
    service.client.submit(["a.tar"], "demo", "hi", {"a": "b"}, idempotency_key="mine")
    request = service.requests[0]
    body = b'{"input":{"shards":["a.tar"]},"priority":"hi","metadata":{"a":"b"},"profile":"demo"}'
    assert (request.url.path, request.headers["Idempotency-Key"]) == ("/v1/batches", "mine")
    assert request.content == body
    service.client.submit(["a.tar"])
    service.client.submit(["a.tar"])
    keys = [request.headers["Idempotency-Key"] for request in service.requests]
    assert len(set(keys)) == 3


def test_submit_sends_rows_of_other_jobs() -> None:
    service = Service(answer(job(), 202))
    service.client.submit(from_=["j1", "snapshot"], where="match < 0.5")
    service.client.submit(from_=["j1"])
    inputs = [json.loads(request.content)["input"] for request in service.requests]
    assert inputs == [{"sources": ["j1", "snapshot"], "where": "match < 0.5"}, {"sources": ["j1"]}]
    wrong: tuple[dict[str, Any], ...] = ({}, {"shards": ["a.tar"], "from_": ["j1"]}, {"shards": ["a"], "where": "text"})
    for given in wrong:
        with pytest.raises(InvalidInput, match="a submission needs shards"):
            service.client.submit(**given)


def test_a_busy_service_is_asked_again_with_the_same_key() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    service = Service(problem(503, **{"Retry-After": "2"}), problem(429, **{"Retry-After": later}), answer(job()))
    assert service.client.submit(["a.tar"]) == job()
    assert service.pauses[0] == 2
    assert 15 < service.pauses[1] <= 20
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 1


@pytest.mark.parametrize(
    ("headers", "requests"),
    [({"Retry-After": "1"}, RETRIES + 1), ({}, 1), ({"Retry-After": "999"}, 1), ({"Retry-After": "soon"}, 1)],
)
def test_asking_again_is_bounded(headers: dict[str, str], requests: int) -> None:
    service = Service(problem(503, **headers))
    with pytest.raises(ApiError):
        service.client.job("j1")
    assert len(service.requests) == requests


def full(seconds: int, name: str = "share-used", status: int = 429) -> httpx.Response:
    body = Problem(type=f"/problems/{name}", title="Full", status=status, detail="5 of 5")
    return answer(body, status, **{"Retry-After": str(seconds)})


def test_the_client_waits_for_room_in_the_queue_and_tells_of_it() -> None:
    told = [full(2, "queue-full", 503), full(61, "quota-exceeded")]
    service = Service(*[full(5)] * 10, *told, answer(job()), patience=200)
    assert service.client.submit(["a.tar"]) == job()
    assert service.pauses == [5] * 10 + [2, 61]
    last = ["/problems/queue-full 2", "/problems/quota-exceeded 61"]
    assert service.told == ["/problems/share-used 5"] * 10 + last
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 1


def test_the_wait_for_room_ends_with_the_patience() -> None:
    service = Service(full(20), patience=50)
    with pytest.raises(ApiError, match="Full"):
        service.client.submit(["a.tar"])
    assert service.pauses == [20, 20] and len(service.requests) == 3


def test_a_quota_of_a_day_is_told_at_once() -> None:
    service = Service(full(1300, "quota-exceeded"))
    with pytest.raises(ApiError, match="Full"):
        service.client.submit(["a.tar"])
    assert service.pauses == [] and len(service.requests) == 1


def test_a_problem_is_one_line() -> None:
    with pytest.raises(ApiError) as caught:
        Service(problem(404)).client.job("x")
    assert str(caught.value) == "No such thing: it is not here"
    assert caught.value.problem.type == "/problems/x"


@pytest.mark.parametrize(
    ("response", "line"),
    [
        (lambda: httpx.Response(502, text="<html>bad\ngateway"), "HTTP 502 Bad Gateway: <html>bad gateway"),
        (lambda: httpx.Response(302, headers={"Location": "/login"}), "HTTP 302 Found (302)"),
        (
            lambda: httpx.Response(200, text="<html>hello"),
            "Unexpected response: http://strata.test/v1/jobs/x did not return",
        ),
    ],
)
def test_another_server_at_the_address_is_told_clearly(response: Callable[[], httpx.Response], line: str) -> None:
    with pytest.raises(ApiError) as caught:
        Service(response()).client.job("x")
    assert str(caught.value).startswith(line)


def test_results_follow_the_links_and_stay_with_the_host() -> None:
    pages = {
        None: ("".join(f"{record(key).model_dump_json()}\n" for key in "ab"), "c2"),
        "c2": ("", "c3"),
        "c3": (record("c").model_dump_json(), None),
    }

    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "strata.test"
        assert request.url.path == "/v1/jobs/j1/results"
        text, following = pages[request.url.params.get("cursor")]
        link = f'<http://elsewhere.test/v1/jobs/j1/results?limit=2&cursor={following}>; rel="next"'
        return httpx.Response(200, content=text, headers={"Link": link} if following else {})

    client = client_of(httpx.MockTransport(handle), Service.asynchronous)
    assert list(client.results("j1")) == [record(key) for key in "abc"]


def test_failures_of_images_and_shards() -> None:
    note = FailureNote(stage="index", error_type="ReadError", detail="cut off")
    rows = [
        FailureRow(shard="a.tar", key=None, failure=note),
        FailureRow(shard="a.tar", key="k", failure=note),
    ]
    text = "\n".join(row.model_dump_json() for row in rows)
    assert list(Service(httpx.Response(200, text=text)).client.failures("j1")) == rows


def test_keys_with_slashes_stay_one_piece_of_the_path() -> None:
    service = Service(httpx.Response(200, content=b"png"))
    assert service.client.overlay("j1", "a/b?c") == b"png"
    assert service.requests[0].url.raw_path == b"/v1/records/j1/a%2Fb%3Fc/overlay.png"
    assert Service(answer(record("k"))).client.record("j1", "k") == record("k")


def test_jobs_and_cancel() -> None:
    page = JobPage(jobs=[job()], next="n")
    service = Service(answer(page))
    assert service.client.jobs(limit=1, cursor="c") == page
    assert dict(service.requests[0].url.params) == {"limit": "1", "cursor": "c"}
    service = Service(answer(job(JobStatus.CANCELLING)))
    assert service.client.cancel("j1").status is JobStatus.CANCELLING
    assert service.requests[0].url.path == "/v1/jobs/j1/cancel"


def test_wait_rides_out_lost_connections() -> None:
    lost = httpx.ConnectError("refused")
    service = Service(answer(job()), lost, lost, answer(job(JobStatus.COMPLETED)))
    assert service.client.wait("j1", poll=1).status is JobStatus.COMPLETED
    assert service.pauses == [1, 2, 4]
    with pytest.raises(httpx.ConnectError):
        Service(lost).client.wait("j1")
    with pytest.raises(httpx.ConnectError):
        Service(answer(job()), *[lost] * (MAX_LOST + 1)).client.wait("j1")


def test_a_job_is_watched_while_the_service_starts_again() -> None:
    away: list[httpx.Response | Exception]
    away = [httpx.ConnectError("refused"), httpx.Response(502), httpx.Response(503), httpx.ReadTimeout("slow")]
    service = Service(answer(job()), *away * 5, answer(job(JobStatus.COMPLETED)), patience=math.inf)
    assert service.client.wait("j1", poll=1).status is JobStatus.COMPLETED
    assert service.pauses == [1, 2, 4, 8, 16, *[30.0] * 16]
    assert service.told[:2] == ["about:blank 2", "about:blank 4"] and len(service.told) == 20
    # an answer that says more than that the service is away is an error at once
    for status in (401, 404, 500):
        with pytest.raises(ApiError):
            Service(answer(job()), httpx.Response(status), patience=math.inf).client.wait("j1")
    with pytest.raises(ApiError):
        Service(httpx.Response(502), patience=math.inf).client.wait("j1")


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_id_that_would_name_another_path_is_refused(name: str) -> None:
    service = Service(answer(job()))
    for call in (service.client.job, service.client.cancel, service.client.delete, service.client.redeliver):
        with pytest.raises(InvalidInput):
            call(name)
    with pytest.raises(InvalidInput):
        service.client.record("j1", name)
    assert service.requests == []


def test_ready() -> None:
    assert Service(httpx.Response(200)).client.ready()
    assert not Service(httpx.Response(503)).client.ready()
    assert not Service(httpx.ConnectError("refused")).client.ready()


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Bytes in pieces; broken: then a connection that breaks."""

    def __init__(self, *chunks: bytes, broken: bool = False) -> None:
        self.chunks, self.broken = chunks, broken

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.broken:
            raise httpx.ReadError("broken")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


def stream(content: bytes | Pieces) -> httpx.Response:
    given: dict[str, Any] = {"stream": content} if isinstance(content, Pieces) else {"content": content}
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, **given)


def test_events_go_on_after_the_last_id() -> None:
    broken = Pieces(b"id: 1\nevent: progress\ndata: {\n", b"data: }\n\nid: 2\ndata: half", broken=True)
    service = Service(
        stream(broken),
        answer(job()),
        stream(b": ping\n\nid: 2\r\nevent: status\r\ndata: done\r\n\r\n: ping\n\n"),
        answer(job(JobStatus.COMPLETED)),
        stream(b""),
    )
    events = list(service.client.events("j1", last_event_id="0"))
    assert [(event.id, event.event, event.data) for event in events] == [
        ("1", "progress", "{\n}"),
        ("2", "status", "done"),
    ]
    streams = [request for request in service.requests if request.url.path.endswith("/events")]
    assert [request.headers["Last-Event-ID"] for request in streams] == ["0", "1", "2"]


def test_events_of_an_unknown_job() -> None:
    with pytest.raises(ApiError, match="No such thing"):
        list(Service(problem(404)).client.events("x"))


def test_event_lines_break_at_line_feeds_only() -> None:
    text = 'data: {"a": "\u2028\u0085"}\n\n'.encode()
    pieces = [text[index : index + 1] for index in range(len(text))]
    service = Service(stream(Pieces(*pieces)), answer(job(JobStatus.COMPLETED)), stream(b""))
    assert [event.data for event in service.client.events("j1")] == ['{"a": "\u2028\u0085"}']


def test_a_page_instead_of_events_is_an_error_at_once() -> None:
    service = Service(httpx.Response(200, html="<p>Welcome"))
    with pytest.raises(ApiError, match="did not return an event stream"):
        list(service.client.events("j1"))
    assert len(service.requests) == 1 and not service.pauses


def test_profiles_are_read() -> None:
    view = ProfileView(name="mine", summary="mine", warnings=["w"], faults=[])
    service = Service(httpx.Response(200, content=ProfileList(profiles=[view]).model_dump_json()))
    assert service.client.profiles() == [view]
    assert service.requests[0].url.path == "/v1/profiles"


def test_both_clients_have_the_same_methods() -> None:
    def methods(client: type) -> dict[str, inspect.Signature]:
        made = client("http://strata.test")
        names = [name for name in dir(client) if not name.startswith("_") and callable(getattr(made, name))]
        return {name: inspect.signature(getattr(made, name)) for name in names if name not in ("close", "aclose")}

    assert methods(Client) == methods(AsyncClient)
    assert "job_id" in methods(Client)["watch"].parameters and "self" not in methods(Client)["watch"].parameters
    assert (Client.job.__doc__ or "").startswith("Fetch a job")


def test_what_is_opened_is_closed_when_reading_ends_early() -> None:
    """A stream of events is closed with its iterator, and a call that is cancelled ends its request."""
    closed: list[str] = []

    class Endless(Pieces):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"id: 1\ndata: x\n\n"

        def close(self) -> None:
            closed.append("close")

        async def aclose(self) -> None:
            closed.append("aclose")

    transport = httpx.MockTransport(lambda _: stream(Endless()))
    with Client("http://strata.test", transport=transport) as client:
        events = client.events("j1")
        assert next(events).data == "x"
        events.close()  # type: ignore[attr-defined]

    async def read() -> None:
        async with AsyncClient("http://strata.test", transport=transport) as client:
            events = client.events("j1")
            assert (await anext(events)).data == "x"
            await events.aclose()  # type: ignore[attr-defined]

    asyncio.run(read())
    assert closed == ["close", "aclose"]


def test_many_calls_of_an_asynchronous_client_run_at_a_time() -> None:
    running, most = 0, 0

    async def handle(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return answer(job(job_id=request.url.path.rpartition("/")[2]))

    async def ask() -> list[str]:
        async with AsyncClient("http://strata.test", transport=httpx.MockTransport(handle)) as client:
            return [view.id for view in await asyncio.gather(*(client.job(f"j{n}") for n in range(8)))]

    assert asyncio.run(ask()) == [f"j{n}" for n in range(8)]
    assert most > 1


@pytest.mark.parametrize(
    ("address", "accepted"), [("http://127.0.0.1:8080", "identity"), ("https://strata.example.org/x", "gzip")]
)
def test_only_answers_of_another_machine_are_compressed(address: str, accepted: str) -> None:
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    with Client(address, transport=httpx.MockTransport(respond)) as client:
        assert client.ready()
    assert asked[0].headers["Accept-Encoding"].split(",")[0] == accepted
