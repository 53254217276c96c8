"""A chat server whose answers follow from the question, and which fails in the way that the harness says."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.faults.orders import Orders

# state of `Orders` -> status and body of the response; None: half of a response, and the connection is closed
RESPONSES: dict[str, tuple[int, str] | None] = {
    "server_401": (401, '{"error": {"message": "Incorrect API key provided"}}'),
    "server_404": (404, '{"error": {"message": "The model does not exist"}}'),
    "server_429": (429, '{"error": {"message": "Rate limit reached"}}'),
    "server_500": (500, "Internal Server Error"),
    "server_garbage": (200, "<html>It works!</html>"),
    "server_half": None,
}


class ChatServer(ThreadingHTTPServer):
    """Answers each request with one sentence that is always the same for the same question."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, orders: Orders) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.orders = orders

    @property
    def url(self) -> str:
        """The URL up to and including /v1."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: Any) -> None:
        """Do not report clients that were killed."""


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        states = [state for state in RESPONSES if self.server.orders.holds(state)]
        fault = RESPONSES[states[0]] if states else None
        status, text = fault or (200, _answer(body))
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        # a half answer: the server ends in the middle of its response
        half = bool(states) and fault is None
        self.wfile.write(data[: len(data) // 2] if half else data)
        self.close_connection = half

    def log_message(self, *arguments: Any) -> None:
        """Do not log."""


def _answer(body: dict[str, Any]) -> str:
    question = json.dumps(body["messages"], sort_keys=True)
    text = f"Picture {hashlib.sha256(question.encode()).hexdigest()[:16]} is described here."
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


@contextmanager
def chat_server(orders: Orders) -> Iterator[ChatServer]:
    """Run the server until the block ends."""
    with ChatServer(orders) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
