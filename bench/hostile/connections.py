"""Hostile connections: half and slow requests, many at a time, beside which others are served; bytes of no HTTP."""

from __future__ import annotations

import resource
import select
import socket
import time
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

from bench.hostile.service import AttackedService

HALF = 1100  # connections with half a request: more than a process has descriptors by default
PROBE_SECONDS = 10.0  # for which others are served while they are open
ENDS_WITHIN = 60.0  # seconds by which the service must have answered or closed a half request
GARBAGE = {
    "an old request": b"GET /\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(60),
    "a long line": b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a long header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 50_000 + b"\r\n",
    "two lengths": b"POST /v1/batches HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
    b"Content-Length: 6\r\n\r\nhello",
    "length and chunks": b"POST /v1/batches HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "a negative length": b"POST /v1/batches HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
    "a length of digits": b"POST /v1/batches HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: "
    + b"9" * 5000
    + b"\r\n\r\n",
    "a chunk of digits": b"POST /v1/batches HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"f" * 5000
    + b"\r\n",
    "a chunk's extension": b"POST /v1/batches HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1;"
    + b"x" * 300_000,
    "zeros": bytes(100_000),
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    "a zero in the path": b"GET /v1/jobs/\0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "another method": b"\xff\xfe / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "many requests": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 5000,
}


def attack_connections(service: AttackedService) -> None:
    """Open half requests, and see that others are served; then send bytes that are no HTTP."""
    address = (urlsplit(service.url).hostname or "", urlsplit(service.url).port or 0)
    _allow_descriptors()
    half = (
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-",
        b"POST /v1/captions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\nab",
        b"",
    )
    with ExitStack() as stack:
        opened = [each for n in range(HALF) if (each := _open(address, half[n % len(half)])) is not None]
        for each in opened:
            stack.callback(each.close)
        began = time.monotonic()
        while time.monotonic() - began < PROBE_SECONDS:
            service.caller.send("connections", "GET", "/healthz", what=f"beside {len(opened)} half requests")
            # a slow client sends a byte from time to time
            for each in opened[::20]:
                with suppress(OSError):
                    each.send(b"a")
            time.sleep(0.2)
        left = _still_open(opened, ENDS_WITHIN - (time.monotonic() - began))
        if left:
            told = f"connections: {left} of {len(opened)} half requests are open after {ENDS_WITHIN:g} s"
            service.tally.add(service.tally.hangs, told)
    for name, data in GARBAGE.items():
        _send_garbage(service, address, name, data)
    service.caller.send("connections", "GET", "/healthz", what="after all connections")


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))


def _open(address: tuple[str, int], data: bytes) -> socket.socket | None:
    """A connection that has sent some bytes; None if it was refused."""
    with suppress(OSError):
        found = socket.create_connection(address, timeout=5)
        found.sendall(data)
        return found
    return None


def _still_open(opened: list[socket.socket], seconds: float) -> int:
    """How many connections the service has neither answered nor closed after so many seconds, at most."""
    until, left = time.monotonic() + seconds, list(opened)
    poll = select.poll()
    by_number = {each.fileno(): each for each in left}
    for number in by_number:
        poll.register(number, select.POLLIN | select.POLLHUP | select.POLLERR)
    while by_number and time.monotonic() < until:
        for number, _ in poll.poll(500):
            poll.unregister(number)
            del by_number[number]
    return len(by_number)


def _send_garbage(service: AttackedService, address: tuple[str, int], name: str, data: bytes) -> None:
    """Send bytes, and read until the service closes the connection, or is silent for a while."""
    began, received = time.monotonic(), b""
    with suppress(OSError), socket.create_connection(address, timeout=5) as connection:
        with suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(ENDS_WITHIN)
        try:
            while len(received) < 10_000_000 and (piece := connection.recv(65_536)):
                received += piece
        except TimeoutError:
            service.tally.add(service.tally.hangs, f"connections: {name}: neither answered nor closed")
    statuses = {line.split()[1].decode() for line in received.splitlines() if line.startswith(b"HTTP/1.")}
    service.tally.count("connections", name, time.monotonic() - began, "/".join(sorted(statuses)) or "closed")
    if any(status.startswith("5") and status != "503" for status in statuses):
        service.tally.add(service.tally.errors, f"connections: {name}: {statuses}")
