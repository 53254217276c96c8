"""Clients that are slow, silent or many: real sockets at the real HTTP server. Others are served in time meanwhile."""

from __future__ import annotations

import json
import logging
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from app.http.limits import ConnectionLimits
from strata.queue.queue import Queue
from tests.app.test_serve import served
from tests.fakes import jpeg
from tests.service import listening, listening_service

QUICK = ConnectionLimits(request_seconds=0.4, transfer_seconds=0.4, min_rate=2**20)
HALF = b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
BODY = (
    b"POST /v1/batches HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
)
LONG = 60.0  # seconds: far more than anything here takes


@pytest.fixture(scope="module")
def quick(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a service with short deadlines."""
    with listening_service(Queue(valkey_url), tmp_path_factory.mktemp("quick"), QUICK) as port:
        yield port


def _connect(port: int, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), LONG, source_address=(source, 0))
    made.sendall(data)
    return made


def _caption(wait: float) -> bytes:
    """A request that waits for an image's record."""
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + jpeg() + b"\r\n--x--\r\n"
    head = f"POST /v1/captions HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait={wait:g}\r\nContent-Length: {len(form)}\r\n"
    return head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + form


def _read(connection: socket.socket) -> bytes:
    """All bytes until the server closes the connection."""
    data = b""
    try:
        while piece := connection.recv(2**16):
            data += piece
    except ConnectionResetError:
        pass
    return data


def _answer(answers: BinaryIO) -> tuple[bytes, bytes]:
    """The head and the body of one answer, which has a `Content-Length`."""
    head = b"".join(iter(answers.readline, b"\r\n"))
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, answers.read(length)


def _problem(answer: bytes, status: int, name: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"content-type: application/problem+json" in head and b"x-content-type-options: nosniff" in head
    assert json.loads(body)["type"] == f"/problems/{name}"


def _drip(connection: socket.socket, piece: bytes) -> bytes:
    """Send a byte again and again until the server has closed the connection; its answer."""
    connection.settimeout(0.05)
    data, end = b"", time.monotonic() + LONG
    while time.monotonic() < end:
        try:
            connection.sendall(piece)
            data += connection.recv(2**16)
        except TimeoutError:
            continue
        except OSError:
            break
        if data:
            connection.settimeout(LONG)
            return data + _read(connection)
    return data


def test_a_slow_head_is_told_and_closed(quick: int) -> None:
    with _connect(quick, HALF) as connection:
        _problem(_drip(connection, b"a"), 408, "request-too-slow")
    with _connect(quick, HALF) as connection:
        _problem(_read(connection), 408, "request-too-slow")


def test_a_slow_body_is_told_and_closed(quick: int) -> None:
    with _connect(quick, BODY) as connection:
        _problem(_drip(connection, b" "), 408, "request-too-slow")


def test_a_silent_connection_is_closed_without_a_word(quick: int) -> None:
    with _connect(quick) as connection:
        assert _read(connection) == b""
    with _connect(quick, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as connection:
        answer = _read(connection)  # its answer, and after the deadline the end
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1") == 1


def test_what_anybody_can_send_leaves_no_line_in_the_log(quick: int, caplog: pytest.LogCaptureFixture) -> None:
    # clients that go away within a head and within bodies, and what is no HTTP
    half_form = _caption(wait=0)[:-100]
    for data in (HALF, BODY, half_form, BODY.replace(b"batches", b"captions"), b"\x16\x03\x01\r\n\r\n"):
        with _connect(quick, data):
            _healthy(quick)  # it has been read
    _healthy(quick)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_what_is_no_http_gets_a_problem(quick: int) -> None:
    with _connect(quick, b"\x16\x03\x01\x02\x00\r\n\r\n") as connection:
        _problem(_read(connection), 400, "malformed-request")
    with _connect(quick, b"GET / HTTP/1.1\r\n" + b"a: " + b"x" * 20_000) as connection:
        _problem(_read(connection), 431, "headers-too-large")


def test_a_head_that_arrives_at_once_has_the_same_limit(quick: int) -> None:
    most = ConnectionLimits().head_bytes
    for target in ("/healthz", f"/healthz?a={'b' * 9000}"):
        start = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nX-Long: ".encode()
        for size, status in ((most, b"200"), (most + 1, b"431"), (most + 9000, b"431")):
            head = start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"
            with _connect(quick, head) as connection:
                answer = _read(connection)
            assert len(head) == size and answer.split()[1] == status, (size, answer[:200])


@pytest.mark.parametrize(
    ("version", "lengths"),
    [
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("1.1", "transfer-encoding: Chunked\r\ncontent-length: 0"),
        ("1.0", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("1.0", "Transfer-Encoding: chunked\r\nConnection: keep-alive"),
        ("1.1", "Transfer-Encoding: gzip, chunked"),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: \x0bchunked"),
        ("1.1", "Transfer-Encoding : chunked"),
        ("1.1", "Content-Length: 5\r\nContent-Length: 6"),
        ("1.1", "Content-Length: 5, 6"),
        ("1.1", "Content-Length: +5"),
        ("1.1", "Content-Length: 0x5"),
    ],
)
def test_a_body_of_two_lengths_is_refused_and_nothing_behind_it_is_read(quick: int, version: str, lengths: str) -> None:
    hidden = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    head = f"POST /v1/batches HTTP/{version}\r\nHost: 127.0.0.1\r\n{lengths}\r\n\r\n"
    with _connect(quick, f"{head}0\r\n\r\n{hidden}".encode("latin-1")) as connection:
        answer = _read(connection)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"HTTP/1.1 200 " not in answer
    _problem(answer, 400, "malformed-request")


@contextmanager
def _plain_server(size: int, limits: ConnectionLimits) -> Iterator[int]:
    """The port of a server that answers GET with so many bytes, and POST with the length of the body."""
    app = FastAPI()
    app.state.services = SimpleNamespace(stopping=threading.Event())

    async def count(request: Request) -> int:
        return len(await request.body())

    app.add_api_route("/", lambda: Response(b"x" * size))
    app.add_api_route("/", count, methods=["POST"])
    app.add_api_route("/healthz", lambda: "ok")
    with listening(app, limits) as port:
        yield port


def test_a_body_at_the_least_rate_has_its_time() -> None:
    # each KiB gives it a second more than the deadline of 0.1 s
    size, limits = 2**16, replace(QUICK, transfer_seconds=0.1, min_rate=2**10)
    head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size + 1}\r\n\r\n".encode()
    with _plain_server(1, limits) as port, _connect(port, head + b"x" * size) as connection:
        time.sleep(1.2)  # two checks at least
        connection.sendall(b"x")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_nobody_reads_is_dropped() -> None:
    with _plain_server(2**24, QUICK) as port, _connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        # it is not read at all: the server ends the connection, which empties its memory
        poll = select.poll()
        poll.register(connection, 0)  # only errors and the end
        assert poll.poll(LONG * 1000)
        assert len(_read(connection)) < 2**24


def test_answers_that_are_not_read_have_a_bound_together() -> None:
    limits = replace(ConnectionLimits(), unsent_bytes=2**24)
    with _plain_server(2**24, limits) as port, ExitStack() as stack:
        readers = [stack.enter_context(_connect(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")) for _ in range(4)]
        poll = select.poll()
        for reader in readers:
            poll.register(reader, 0)
        # their deadlines are far; the first that is ended leaves room for others
        assert poll.poll(LONG * 1000)
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=60).content == b"x" * 2**24


def _healthy(port: int, source: str = "127.0.0.1") -> float:
    """The seconds that `/healthz` takes, over a new connection."""
    start = time.monotonic()
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=LONG) as client:
        assert client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    return time.monotonic() - start


@pytest.mark.parametrize("data", [b"", HALF, BODY], ids=["silent", "half a head", "half a body"])
def test_connections_that_wait_for_their_clients_give_way(queue: Queue, tmp_path: Path, data: bytes) -> None:
    limits = ConnectionLimits(connections=40, per_address=20)
    with listening_service(queue, tmp_path, limits) as port, ExitStack() as stack:
        # one address has too many, then there are too many in all
        for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            for _ in range(30):
                stack.enter_context(_connect(port, data, source))
            assert _healthy(port, source) < 5
        assert _healthy(port, "127.0.0.4") < 5


def test_a_connection_that_the_service_works_for_is_not_dropped(queue: Queue, tmp_path: Path) -> None:
    limits = ConnectionLimits(connections=10, per_address=3)
    with listening_service(queue, tmp_path, limits) as port, ExitStack() as stack:
        # three callers wait for their images, which no worker describes
        waits = [stack.enter_context(_connect(port, _caption(wait=60))) for _ in range(3)]
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), timeout=60) as other:
            end = time.monotonic() + LONG
            while len(other.get(f"http://127.0.0.1:{port}/v1/jobs").json()["jobs"]) < 3:
                assert time.monotonic() < end
                time.sleep(0.02)
        # the fourth of this address is refused, and another address is served
        with _connect(port) as refused:
            _problem(_read(refused), 503, "too-many-connections")
        assert _healthy(port, "127.0.0.2") < 5
        assert select.select(waits, [], [], 0)[0] == []  # they have neither an answer nor an end


CHUNKED = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def _send(connection: socket.socket, data: bytes) -> None:
    """Send it, or as much as the server takes before it closes the connection."""
    with suppress(OSError):
        connection.sendall(data)


@pytest.mark.parametrize(
    "hostile",
    [
        b"1\r\n \r\n" * 500_000,
        (b"1;" + b"x" * 4000 + b"\r\n \r\n") * 500,
        b"800\r\n" + b"x" * 2048 + b"\r\n" + b"3\r\nabc\r\n" * 9000,
    ],
    ids=["one byte each", "long extensions", "small after a large one"],
)
def test_a_body_of_tiny_chunks_is_refused(hostile: bytes) -> None:
    with _plain_server(1, ConnectionLimits()) as port, ExitStack() as stack:
        connections = [stack.enter_context(_connect(port)) for _ in range(8)]
        threads = [threading.Thread(target=_send, args=(one, CHUNKED + hostile)) for one in connections]
        for thread in threads:
            thread.start()
        # the least of several: the machine may have other things to do
        assert min(_healthy(port) for _ in range(5)) < 1
        for thread, connection in zip(threads, connections, strict=True):
            thread.join(LONG)
            _problem(_read(connection), 400, "chunks-too-small")


@pytest.mark.parametrize(("size", "count"), [(2**14, 64), (2**16, 16), (300, 5000), (100, 3000), (64, 3000), (1, 500)])
def test_a_body_of_usual_chunks_is_read(size: int, count: int) -> None:
    body = (b"%x\r\n" % size + b"x" * size + b"\r\n") * count + b"0\r\n\r\n"
    with (
        _plain_server(1, ConnectionLimits()) as port,
        _connect(port) as connection,
        connection.makefile("rb") as answers,
    ):
        for _ in range(2):  # each request has its own allowance
            connection.sendall(CHUNKED + body)
            head, told = _answer(answers)
            assert head.startswith(b"HTTP/1.1 200 ") and int(told) == size * count


def test_requests_sent_before_their_answers_leave_others_their_turn(queue: Queue, tmp_path: Path) -> None:
    with listening_service(queue, tmp_path) as port, ExitStack() as stack:
        # all of one connection are answered, in their order
        heads = b"".join(b"GET /%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % number for number in range(300))
        with _connect(port, heads) as reader, reader.makefile("rb") as answers:
            for number in range(300):
                head, body = _answer(answers)
                assert head.startswith(b"HTTP/1.1 404 ") and json.loads(body)["detail"].endswith(f" /{number}")
        # many connections on which nothing is read
        for _ in range(150):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", port))
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 100)
        assert min(_healthy(port) for _ in range(5)) < 1


def test_half_requests_do_not_stop_a_service_with_1024_descriptors(tmp_path: Path) -> None:
    limited = "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))"
    program = f"{limited}; runpy.run_module('strata', run_name='__main__')"
    with served(tmp_path, "--no-workers", program=("-c", program)) as (process, url), ExitStack() as stack:
        port = httpx.URL(url).port or 0
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (1024, 1024)
        for _ in range(1100):
            stack.enter_context(_connect(port, HALF))
        # the least of several: the machine may have other things to do
        assert min(_healthy(port) for _ in range(5)) < 1
        assert httpx.get(f"{url}/v1/jobs", timeout=60).status_code == 200  # files and Redis have their descriptors
        assert process.poll() is None
