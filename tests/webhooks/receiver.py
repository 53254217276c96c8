"""A receiver of webhooks on loopback, which answers as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw9r8GKYqr"


@dataclass
class Receiver:
    """statuses: of the next answers, 0 closes the connection; when none is left 204. slow: seconds before each."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    slow: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    received: list[tuple[dict[str, str], str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=of-the-path"

    @property
    def ids(self) -> list[str]:
        """The messages' ids, in the order in which they came."""
        return [headers["webhook-id"] for headers, _ in self.received]

    def verified(self) -> list[Any]:
        """The contents of all messages, whose signatures are right."""
        return [Webhook(SECRET).verify(body, headers) for headers, body in self.received]


@contextmanager
def receiving(receiver: Receiver | None = None) -> Iterator[Receiver]:
    """Run a receiver."""
    given = receiver or Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            given.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(given.slow)
            status = given.statuses.pop(0) if given.statuses else 204
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in given.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
    given.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield given
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
