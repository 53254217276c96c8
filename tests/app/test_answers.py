"""How answers are sent: compressed, only if they have changed, in part, and without their body."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from app.answers.compression import Compression, chosen_encoding, zstd
from app.answers.heads import Heads
from app.answers.ranges import Unsatisfiable, range_of
from strata.queue import Queue
from tests.app.test_search import searched
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.service import Answer, Service, problem, running_service


@pytest.fixture(scope="module")
def described(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A service with one described job of eight images, and the job's id."""
    folder = tmp_path_factory.mktemp("described")
    with running_service(Queue(valkey_url), folder) as service:
        shard = write_shard(folder / "shards" / "00000.tar", [jpeg(64, 48 + number) for number in range(8)])
        job = str(service.submit(shard).json()["id"])
        wait_for_end(service.jobs, job)
        yield service, job


def _record(job: str, file: str = "") -> str:
    return f"/v1/records/{job}/000000003{file and f'/{file}'}"


def _raw(service: Service, url: str, accepted: str) -> tuple[Answer, bytes]:
    with service.client.stream("GET", url, headers={"Accept-Encoding": accepted}) as answer:
        return answer, b"".join(answer.iter_raw())


# compression


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", "identity"),
        ("gzip", "gzip"),
        ("GZIP;Q=0.5", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip", "gzip"),
        ("gzip;q=0", "identity"),
        ("*", "zstd"),
        ("*, zstd;q=0", "gzip"),
        ("*;q=0, gzip", "gzip"),
        ("identity, gzip;q=0.2", "identity"),
        ("br", "identity"),
        ("gzip;q=2", "identity"),
        ("gzip;level=9", "identity"),
        (",, gzip ,", "gzip"),
        ("x" * 9000 + ",gzip", "gzip"),
    ],
)
def test_the_encoding_is_the_one_that_is_preferred(accepted: str, chosen: str) -> None:
    assert chosen_encoding([accepted]) == chosen


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=40), max_size=4))
def test_any_header_has_an_encoding(accepted: list[str]) -> None:
    assert chosen_encoding(accepted) in ("zstd", "gzip", "identity")
    told = ",".join(accepted).lower()
    assert chosen_encoding(accepted) == "identity" or "*" in told or chosen_encoding(accepted) in told


@pytest.mark.parametrize("file", ["results", "failures?status=filtered"])
@pytest.mark.parametrize("accepted", ["gzip", "zstd", "identity"])
def test_pages_of_rows_are_compressed(described: tuple[Service, str], accepted: str, file: str) -> None:
    service, job = described
    plain, expected = _raw(service, f"/v1/jobs/{job}/{file}", "identity")
    answer, body = _raw(service, f"/v1/jobs/{job}/{file}", accepted)
    if len(expected) < 1024:  # an answer that would not gain
        assert body == expected == b"" and "content-encoding" not in answer.headers
        return
    assert "Accept-Encoding" in answer.headers["vary"] and "Accept-Encoding" in plain.headers["vary"]
    if accepted == "identity":
        assert "content-encoding" not in answer.headers
        return
    assert answer.headers["content-encoding"] == accepted and int(answer.headers["content-length"]) == len(body)
    assert (zlib.decompress(body, 31) if accepted == "gzip" else zstd.decompress(body)) == expected
    assert len(body) < len(expected) / 2
    assert [json.loads(line)["key"] for line in expected.splitlines()] == [f"{number:09d}" for number in range(8)]


def test_pictures_and_small_answers_are_not_compressed(described: tuple[Service, str]) -> None:
    service, job = described
    for url in (_record(job, "image"), _record(job, "overlay.png"), "/healthz", "/v1/jobs/none"):
        answer, _ = _raw(service, url, "gzip, zstd")
        assert "content-encoding" not in answer.headers, url
    assert _raw(service, "/static/studio/main.js", "gzip")[0].headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("accepted", ["gzip", "zstd"])
def test_what_is_streamed_is_sent_piece_by_piece(accepted: str) -> None:
    pieces = [b"a" * 5000, b"b" * 300_000, b"c"]
    sent: list[bytes] = []

    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/x-ndjson"), (b"etag", b'"1"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, piece in enumerate(pieces, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})
            # all of it has arrived before the next piece is made
            assert decoder.decompress(sent[-1]) == piece

    decoder: Any = zlib.decompressobj(31) if accepted == "gzip" else zstd.ZstdDecompressor()
    head = _call(Compression(streams), "GET", sent, [(b"accept-encoding", accepted.encode())])
    assert head[b"content-encoding"] == accepted.encode() and head[b"etag"] == b'W/"1"'
    assert b"content-length" not in head


@pytest.mark.parametrize("accepted", ["gzip", "zstd"])
def test_events_are_sent_as_they_are(described: tuple[Service, str], accepted: str) -> None:
    service, job = described
    answer, body = _raw(service, f"/v1/jobs/{job}/events", accepted)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in answer.headers and b"event: job\n" in body


def _call(app: Any, method: str, sent: list[bytes], headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers of an answer; the pieces of its body as they are sent."""
    head: dict[bytes, bytes] = {}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            head.update(message["headers"])
        else:
            sent.append(message["body"])

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(app({"type": "http", "method": method, "path": "/", "headers": headers}, receive, send))
    return head


# conditional requests


def _urls(job: str) -> list[str]:
    return [
        _record(job),
        *(_record(job, file) for file in ("image", "preview.jpg", "preview.jpg?side=32", "overlay.png")),
    ]


def _row(service: Service, job: str) -> str:
    return f"/v1/rows/{searched(service, 8, job=job)['rows'][3]['id']}"


def test_what_the_caller_has_is_not_sent_again(described: tuple[Service, str]) -> None:
    service, job = described
    urls = [*_urls(job), "/openapi.json"]
    tags = {}
    for url in urls:
        answer = service.client.get(url)
        tag = tags[url] = answer.headers["etag"]
        assert answer.status_code == 200 and tag.removeprefix("W/").strip('"').isalnum(), url
        assert answer.headers["cache-control"] == "private, no-cache"
        for known in (tag, f'"x", {tag}', f"W/{tag.removeprefix('W/')}", "*"):
            same = service.client.get(url, headers={"If-None-Match": known})
            assert same.status_code == 304 and not same.content, (url, known)
            assert same.headers["etag"].removeprefix("W/") == tag.removeprefix("W/")
            assert same.headers["cache-control"] == answer.headers["cache-control"]
        for other in ('"x"', tag.removeprefix("W/").strip('"'), '"', "W/"):
            assert service.client.get(url, headers={"If-None-Match": other}).status_code == 200, (url, other)
    assert len(set(tags.values())) == len(urls)


def test_another_record_has_another_tag(described: tuple[Service, str]) -> None:
    service, job = described
    tags = {service.client.get(f"/v1/records/{job}/{number:09d}").headers["etag"] for number in range(8)}
    assert len(tags) == 8


def test_a_tag_opens_nothing(described: tuple[Service, str]) -> None:
    service, _ = described
    problem(service.client.get("/v1/records/none/a/image", headers={"If-None-Match": "*"}), 404, "unknown-job")


# ranges


@given(st.text(max_size=30), st.integers(1, 100))
def test_any_range_is_read(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            part = range_of(header, size)
        except Unsatisfiable:
            continue
        assert part is None or 0 <= part.start < part.stop <= size


@given(st.integers(0, 120), st.none() | st.integers(0, 120), st.integers(1, 100), st.sampled_from(["", "000"]))
def test_a_range_is_what_it_says(first: int, last: int | None, size: int, zeros: str) -> None:
    data = list(range(size))
    wanted = [byte for byte in data if first <= byte <= (size if last is None else last)]
    try:
        part = range_of(f"bytes={zeros}{first}-{'' if last is None else last}", size)
    except Unsatisfiable:
        assert not wanted
        return
    assert (last is not None and last < first) if part is None else data[part] == wanted


@given(st.integers(0, 120), st.integers(1, 100))
def test_the_last_bytes(count: int, size: int) -> None:
    data = list(range(size))
    try:
        part = range_of(f"bytes=-{count}", size)
    except Unsatisfiable:
        assert count == 0
        return
    assert part is not None and data[part] == data[-count:]


@pytest.mark.parametrize("file", ["record", "row"])
def test_ranges_of_an_image(described: tuple[Service, str], file: str) -> None:
    service, job = described
    url = _record(job, "image") if file == "record" else f"{_row(service, job)}/image"
    whole = service.client.get(url)
    data, tag = whole.content, whole.headers["etag"]
    assert whole.headers["accept-ranges"] == "bytes" and not tag.startswith("W/")
    for wanted, part in (("bytes=0-9", slice(0, 10)), ("bytes=100-", slice(100, None)), ("Bytes=-7", slice(-7, None))):
        answer = service.client.get(url, headers={"Range": wanted, "Accept-Encoding": "gzip"})
        assert answer.status_code == 206 and answer.content == data[part] and answer.headers["etag"] == tag
        start, stop, _ = part.indices(len(data))
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(data)}"
        assert answer.headers["content-type"] == "image/jpeg"
    # what is no range of bytes, or several, is answered with the file
    for wanted in ("bytes=9-0", "bytes=", "lines=0-9", "bytes=0-1,5-6", "bytes=a-b", f"bytes=0-{'9' * 5000}"):
        answer = service.client.get(url, headers={"Range": wanted})
        assert answer.content == data and answer.status_code == (206 if "999" in wanted else 200), wanted[:20]
    for wanted in (f"bytes={len(data)}-", "bytes=-0", f"bytes={'9' * 5000}-"):
        refused = service.client.get(url, headers={"Range": wanted})
        problem(refused, 416, "range-not-satisfiable")
        assert refused.headers["content-range"] == f"bytes */{len(data)}"


@pytest.mark.parametrize(
    ("held", "status"), [("same", 206), ('"x"', 200), ("weak", 200), ("Sun, 29 Nov 2026 12:00:00 GMT", 200)]
)
def test_a_part_only_of_the_version_that_the_caller_has(described: tuple[Service, str], held: str, status: int) -> None:
    service, job = described
    tag = service.client.get(_record(job, "image")).headers["etag"]
    given = {"same": tag, "weak": f"W/{tag}"}.get(held, held)
    headers = {"Range": "bytes=0-9", "If-Range": given}
    assert service.client.get(_record(job, "image"), headers=headers).status_code == status
    headers["If-None-Match"] = tag
    assert service.client.get(_record(job, "image"), headers=headers).status_code == 304


# HEAD


def test_head_is_get_without_a_body(described: tuple[Service, str]) -> None:
    service, job = described
    urls = [
        *_urls(job),
        f"/v1/jobs/{job}",
        f"/v1/jobs/{job}/results",
        "/v1/jobs",
        "/v1/profiles",
        "/healthz",
        "/docs",
    ]
    urls += ["/openapi.json", "/static/studio/main.js", "/", "/problems", "/v1/jobs/none", "/nowhere", "/v1/jobs?x=1"]
    for url in urls:
        whole, head = service.client.get(url), service.client.head(url)
        assert head.status_code == whole.status_code and not head.content, url
        changing = {"x-request-id", "date"}
        assert {n: v for n, v in head.headers.items() if n not in changing} == {
            n: v for n, v in whole.headers.items() if n not in changing
        }, url
    refused = service.client.head("/v1/captions")
    assert refused.status_code == 405 and refused.headers["allow"] == "POST"


def test_head_has_conditions_and_no_ranges(described: tuple[Service, str]) -> None:
    service, job = described
    url = _record(job, "image")
    tag = service.client.head(url).headers["etag"]
    assert service.client.head(url, headers={"If-None-Match": tag}).status_code == 304
    assert service.client.head(url, headers={"Range": "bytes=0-9"}).status_code == 200


def test_head_of_events_ends() -> None:
    sent: list[bytes] = []
    ended = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        try:
            while True:
                for _ in range(2):  # the second one comes before the cancellation, which waits for a pause
                    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
                await asyncio.sleep(0)
        finally:
            ended.append(scope["method"])

    assert _call(Heads(endless), "HEAD", sent, [(b"range", b"bytes=0-1")])[b"content-type"] == b"text/event-stream"
    assert sent == [b""] and ended == ["GET"]


def test_head_is_logged_as_head(described: tuple[Service, str], caplog: pytest.LogCaptureFixture) -> None:
    service, job = described
    with caplog.at_level("INFO", logger="app.access"):
        service.client.head(f"/v1/jobs/{job}")
    assert caplog.messages[-1].startswith("HEAD /v1/jobs/{job_id} 200")
