"""A chat server on loopback with scripted responses: good, refusing, garbage, or a closed connection."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from models.chat.backends import PROBE


@dataclass(frozen=True)
class Reply:
    """A response. cut: the number of bytes after which the connection is closed; drip: seconds before each byte."""

    body: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    drip: float = 0.0


HANG_UP = Reply("", cut=0)


def good(text: str | None, read: int | None = 5, written: int = 3, finish: str = "stop") -> Reply:
    """Make a completion. read: tokens read; None leaves the usage out."""
    answer: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}
    if read is not None:
        answer["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return Reply(json.dumps(answer))


def is_plain(body: Mapping[str, Any]) -> bool:
    """Whether a request is a probe of the client."""
    return PROBE in json.dumps(body["messages"][-1])


class ScriptedServer(ThreadingHTTPServer):
    """Calls `answer` with each request's body, one at a time. bodies: of all requests, in order."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[dict[str, Any]], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.bodies, self.lock = answer, list[dict[str, Any]](), threading.Lock()
        self.headers: list[Mapping[str, str]] = []

    @property
    def url(self) -> str:
        """The URL up to and including /v1."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The requests without the client's probes."""
        return [body for body in self.bodies if not is_plain(body)]

    def handle_error(self, *_: Any) -> None:
        """Do not report a client that closed its connection."""


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            reply = self.server.answer(body)
        if reply.cut == 0:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        data = reply.body.encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for piece in [data[i : i + 1] for i in range(len(data))] if reply.drip else [data[: reply.cut]]:
            time.sleep(reply.drip)
            self.wfile.write(piece)
        self.close_connection = reply.cut is not None

    def log_message(self, *arguments: Any) -> None:
        """Do not log."""


@contextmanager
def scripted(answer: Callable[[dict[str, Any]], Reply]) -> Iterator[ScriptedServer]:
    """Run the server until the block ends."""
    with ScriptedServer(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
