"""The connections of the HTTP server: how many there are, and how long each may keep the server waiting.

uvicorn limits the time between two requests only. Here a client has a deadline for the head of a request, for its body
and for reading the answer. While the service computes there is none. What they send is parsed in turns (`parsing.py`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections import Counter
from http import HTTPStatus
from typing import Any, Literal, cast

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from app.http.browsers import with_headers
from app.http.limits import CHUNK_BYTES, READ_BYTES, ConnectionLimits
from app.http.networks import network_of
from app.http.parsing import ChunksTooSmall, Parser, Turns, TwoLengths
from app.problems import ProblemError

# what a connection waits for: the head of a request, its body, the service, or that the client reads the answer
Phase = Literal["head", "body", "service", "reader"]


class Connections(ServerState):
    """All connections of one server. Use it in one event loop."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self.limits = limits
        self.addresses: Counter[str] = Counter()
        self.turns = Turns()

    def opened(self, new: Connection) -> None:
        """Make room for a new connection: the client that has kept the server waiting longest loses its own.

        So connections on which nothing is sent cannot keep others out. If the service itself works for all of them, the
        new one is refused.
        """
        self.addresses[new.address] += 1
        crowded = self.addresses[new.address] > self.limits.per_address
        if not crowded and len(self.connections) <= self.limits.connections:
            return
        candidates = [
            other
            for other in self._all()
            if other is not new and (not crowded or other.address == new.address) and other.may_be_dropped()
        ]
        if candidates:
            min(candidates, key=lambda other: other.since).drop()
        else:
            new.refuse("too-many-connections", "too many connections are open; try again later")

    def closed(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self.addresses[connection.address] -= 1
        if not self.addresses[connection.address]:
            del self.addresses[connection.address]

    def check(self) -> None:
        """End the connections that are over their deadlines, and the largest of too many unsent answers."""
        now = time.monotonic()
        for connection in self._all():
            connection.check(now)
        unsent = {one: one.transport.get_write_buffer_size() for one in self._all()}
        excess = sum(unsent.values()) - self.limits.unsent_bytes
        for connection in sorted(unsent, key=lambda one: unsent[one], reverse=True):
            if excess <= 0:
                return
            connection.drop()
            excess -= unsent[connection]

    def _all(self) -> list[Connection]:
        return cast("list[Connection]", list(self.connections))


class Connection(H11Protocol):
    """One connection, with its deadlines."""

    server_state: Connections
    since = 0.0  # when the phase began, on the monotonic clock
    received = 0  # bytes since the last answer
    answers = 0
    _network = ""
    _moved = 0  # bytes that the client has taken in the phase "reader"
    _unsent = 0
    _seen: tuple[Phase, int] = ("head", 0)

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.conn = Parser(self.server_state.limits.head_bytes)

    @property
    def address(self) -> str:
        """The client's network; empty if it has none, as on a Unix socket."""
        return self._network

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's own have it
        self._network = network_of(self.client[0] if self.client else "")
        self.since = time.monotonic()
        self.server_state.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self.server_state.closed(self)

    def data_received(self, data: bytes) -> None:
        """Take what the client has sent, to be parsed when it is its turn; no more is read until then."""
        self.received += len(data)
        self._unset_keepalive_if_required()
        self.conn.receive_data(data)
        self._wait_for_turn(pipelined=False)

    def handle_events(self) -> None:
        """After an answer: the next request, if the client has already sent it."""
        if self.conn.trailing_data[0]:
            self._wait_for_turn(pipelined=True)

    def on_response_complete(self) -> None:
        """The answer is written: the next request may begin."""
        self.received, self.answers = 0, self.answers + 1
        super().on_response_complete()

    def resume_writing(self) -> None:
        """The client has read nearly all that was written."""
        self.since = time.monotonic()
        super().resume_writing()

    def shutdown(self) -> None:
        """End the connection after the request in flight."""
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP, and a head that is too large, with a problem instead of plain text."""
        error = sys.exception()
        limit = self.server_state.limits.head_bytes
        if isinstance(error, ChunksTooSmall):
            self.refuse("chunks-too-small", f"{error}; send chunks of {CHUNK_BYTES} bytes or more")
        elif isinstance(error, TwoLengths):
            self.refuse("malformed-request", str(error))
        elif getattr(error, "error_status_hint", 400) == 431:
            self.refuse("headers-too-large", f"the request line and the headers are larger than {limit} bytes")
        else:
            self.refuse("malformed-request", "this is not a valid HTTP/1.1 request")

    def refuse(self, name: str, detail: str) -> None:
        """Send a problem, if no answer has begun, and close the connection."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            answer = ProblemError(name, detail, headers={"Connection": "close"}).response()
            head = [f"HTTP/1.1 {answer.status_code} {HTTPStatus(answer.status_code).phrase}".encode()]
            head += [name + b": " + value for name, value in with_headers(answer.raw_headers)]
            self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.close()

    def drop(self) -> None:
        """End the connection at once, with a reset, so that the kernel forgets what it has not sent too."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def may_be_dropped(self) -> bool:
        """Whether the server waits for this client."""
        return self._phase() != "service" and not self.transport.is_closing()

    def check(self, now: float) -> None:
        """End the connection if its client is over the deadline of the phase. now: on the monotonic clock."""
        # a new phase begins: the head of the second request is another one than that of the first
        phase, unsent = self._phase(), self.transport.get_write_buffer_size()
        if (phase, self.answers) != self._seen:
            self._seen, self.since, self._moved = (phase, self.answers), now, 0
        self._moved += max(0, self._unsent - unsent)
        self._unsent = unsent
        # whoever sends or reads quickly enough has more time
        limits = self.server_state.limits
        spent = now - self.since
        if phase == "head" and spent > limits.request_seconds:
            # if nothing was sent, no request waits for an answer
            if self.received:
                self.refuse("request-too-slow", "the head of the request did not arrive in time")
            else:
                self.transport.close()
        elif phase == "body" and spent > limits.transfer_seconds + self.received / limits.min_rate:
            self.refuse("request-too-slow", "the body of the request did not arrive in time")
        elif phase == "reader" and spent > limits.transfer_seconds + self._moved / limits.min_rate:
            self.drop()

    def _wait_for_turn(self, pipelined: bool) -> None:
        self.transport.pause_reading()
        self.server_state.turns.wait(self._parse, pipelined)

    def _parse(self) -> None:
        # not on behalf of a client that has gone
        if self.transport.is_closing():
            return
        # uvicorn may have paused it too
        if not self.flow.read_paused:
            self.transport.resume_reading()
        super().handle_events()

    def _phase(self) -> Phase:
        if self.transport.get_write_buffer_size():
            return "reader"
        if self.cycle is None or self.cycle.response_complete:
            return "head"
        return "body" if self.cycle.more_body and not self.flow.read_paused else "service"
