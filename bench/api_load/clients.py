"""Clients in a process of their own, each with one connection that is kept alive.

    python -m bench.api_load.clients 127.0.0.1 8080 --clients 500 --seconds 10 --rate 1000 --path /v1/jobs/ID

It prints JSON: the milliseconds of each response, sorted, and how many responses had each status. The clients are
plain sockets on one event loop, because an HTTP library would take more processor time than the service.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel


class Responses(BaseModel):
    """What was measured: in so many seconds the milliseconds of each response, sorted; how many had each status.

    late: the milliseconds, sorted, by which each request was sent after it was due, because the clients were busy, or
    because their last response was late.
    """

    seconds: float
    milliseconds: list[float]
    late: list[float]
    statuses: dict[int, int]

    def at(self, share: float) -> float:
        """A quantile of the response times in ms; share: 0.5 for the median."""
        return _quantile(self.milliseconds, share)

    def late_at(self, share: float) -> float:
        """A quantile of how late the requests were sent, in ms."""
        return _quantile(self.late, share)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))]


class Caller(asyncio.Protocol):
    """One connection. It sends a request and waits for the whole response; `send` returns its status."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Add bytes of the response; when it is complete, its status is the result."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) >= length:
            self._buffer = b""
            self._settle(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that was closed before its response counts as status 0."""
        self._settle(0)

    def _settle(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    async def send(self, request: bytes) -> int:
        """Send a request; the status of its response."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


async def connect(host: str, port: int, count: int, source: str | None = None) -> list[Caller]:
    """So many connections, made in groups so that the listening socket's backlog suffices."""
    loop, callers = asyncio.get_running_loop(), []
    local = (source, 0) if source else None
    for start in range(0, count, 100):
        made = [loop.create_connection(Caller, host, port, local_addr=local) for _ in range(min(100, count - start))]
        callers += [protocol for _, protocol in await asyncio.gather(*made)]
    return callers


async def measure(host: str, port: int, clients: int, seconds: float, rate: float, paths: Sequence[str]) -> Responses:
    """The responses of so many clients. rate: requests a second of all together; 0: each sends when it is answered.

    With a rate, the time of a response counts from when its request was due, also if the one before it was late.
    """
    callers = await connect(host, port, clients)
    taken: list[float] = []
    late: list[float] = []
    statuses: Counter[int] = Counter()
    start = time.perf_counter() + 0.2
    interval = clients / rate if rate else 0.0

    async def call(number: int, caller: Caller) -> None:
        request = f"GET {paths[number % len(paths)]} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        due = start + interval * number / clients
        while due < start + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            late.append(1000 * (time.perf_counter() - due))
            status = await caller.send(request)
            now = time.perf_counter()
            taken.append(1000 * (now - due))
            statuses[status] += 1
            if not status:
                return
            due = due + interval if interval else now

    await asyncio.gather(*(call(number, caller) for number, caller in enumerate(callers)))
    elapsed = time.perf_counter() - start
    for caller in callers:
        caller.close()
    return Responses(seconds=elapsed, milliseconds=sorted(taken), late=sorted(late), statuses=statuses)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--path", action="append", required=True)
    options = parser.parse_args()
    found = measure(options.host, options.port, options.clients, options.seconds, options.rate, options.path)
    print(asyncio.run(found).model_dump_json())


if __name__ == "__main__":
    main()
