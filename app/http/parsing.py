"""When and how far received bytes are parsed, so that one connection cannot occupy the event loop.

h11 makes an event, of about 15 µs, for each chunk and each head, and uvicorn parses all that it has at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import h11

from app.http.limits import CHUNK_BYTES, FRAMING_BYTES, FREE_CHUNKS, TURN_SECONDS


class ChunksTooSmall(h11.RemoteProtocolError):
    """A body in chunks has more of them, or more bytes around its content, than is parsed."""

    def __init__(self) -> None:
        super().__init__("the chunks of the body are too small")


class TwoLengths(h11.RemoteProtocolError):
    """A head says in two ways where its body ends, or in one that its version of HTTP does not have.

    A proxy may believe the other one, and take a part of the body for the next request (RFC 9112, 6.1 and 6.3).
    """

    def __init__(self) -> None:
        super().__init__("Transfer-Encoding must be neither beside Content-Length nor in HTTP/1.0")


class Parser(h11.Connection):
    """h11's parser of one connection, with a bound on the cost of a body in chunks, and on all heads.

    h11 itself bounds only heads that are not complete yet.
    """

    def __init__(self, head_bytes: int) -> None:
        super().__init__(h11.SERVER, head_bytes)
        self._head_bytes = head_bytes
        self.chunks = self.content = self.raw = 0  # of the present request; bytes of its content, and all bytes

    def receive_data(self, data: bytes) -> None:
        """Take bytes to parse."""
        self.raw += len(data)
        super().receive_data(data)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next part of a request. Raises h11.RemoteProtocolError, ChunksTooSmall and TwoLengths."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._check_head(event)
            self.chunks = self.content = self.raw = 0
        elif isinstance(event, h11.Data):
            self.chunks += event.chunk_start
            self.content += len(event.data)
            # the second: a chunk's size may be followed by an extension of any length
            if self.chunks > FREE_CHUNKS + self.content // CHUNK_BYTES or self.raw > FRAMING_BYTES + 2 * self.content:
                raise ChunksTooSmall
        return event

    def _check_head(self, head: h11.Request) -> None:
        size = len(head.method) + len(head.target) + len(b"  HTTP/1.1\r\n\r\n")
        size += sum(len(name) + len(value) + len(b": \r\n") for name, value in head.headers)
        if size > self._head_bytes:
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        names = {name for name, _ in head.headers}
        if b"transfer-encoding" in names and (b"content-length" in names or head.http_version < b"1.1"):
            raise TwoLengths


class Turns:
    """The connections that have bytes to parse, one after another. Use it in one event loop.

    In each turn of the event loop some that have just received bytes are parsed, for a bounded time, and one that sent
    its next request before it had its answer (pipelining), as such requests wait in any number.
    """

    def __init__(self) -> None:
        self._received: deque[Callable[[], None]] = deque()
        self._pipelined: deque[Callable[[], None]] = deque()

    def wait(self, parse: Callable[[], None], pipelined: bool) -> None:
        """Call `parse` when it is the connection's turn."""
        if not self._received and not self._pipelined:
            asyncio.get_running_loop().call_soon(self._run)
        (self._pipelined if pipelined else self._received).append(parse)

    def _run(self) -> None:
        end = time.monotonic() + TURN_SECONDS
        try:
            if self._pipelined:
                self._pipelined.popleft()()
            while self._received and time.monotonic() < end:
                self._received.popleft()()
        finally:
            if self._received or self._pipelined:
                asyncio.get_running_loop().call_soon(self._run)
