"""A model hub on loopback: repositories in memory, served by the routes that huggingface_hub uses.

What it does wrong is told by its attributes: it stalls or breaks off in a file, sends other bytes, asks for a token.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

LARGE = 10_000  # bytes; larger files are listed with their SHA-256 as by Git LFS, smaller ones with git's hash
Files = dict[str, bytes]


class HubServer(ThreadingHTTPServer):
    """The hub. repositories: the files of each OWNER/NAME; asked: the requests as (path, Range header), in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Files] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.gated = False
        self.stall_at: int | None = None  # the byte of a large file at which the transfer stalls, until reset
        self.break_at: int | None = None  # the byte of a large file at which the connection closes, once
        self.spoilt: set[str] = set()  # names of files that are sent with a wrong byte
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        """The hub's address, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    def downloads(self) -> list[tuple[str, str | None]]:
        """The name and Range of each requested download."""
        return [(path.rpartition("/")[2], span) for path, span in self.asked if "/resolve/" in path]


def commit_of(repository: str) -> str:
    """The only commit of a repository."""
    return hashlib.sha1(repository.encode()).hexdigest()


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """Run a hub until the block ends."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.asked.append((path, self.headers["Range"]))
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = info or file
        if found is None or found[1] not in self.server.repositories:
            self._refuse(401, "RepoNotFound")
        elif found[2] not in (None, "main", commit_of(found[1])):
            self._refuse(404, "RevisionNotFound")
        elif info:
            self._tell(found[1])
        elif self.server.gated:
            self._refuse(403, "GatedRepo")
        elif file:
            self._send(file[3], self.server.repositories[found[1]][file[3]])

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _tell(self, repository: str) -> None:
        siblings = [_sibling(name, data) for name, data in self.server.repositories[repository].items()]
        body = json.dumps({"id": repository, "sha": commit_of(repository), "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, name: str, data: bytes) -> None:
        if name in self.server.spoilt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        span = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(span[1]) if span else 0
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        hurdle = self.server.stall_at or self.server.break_at
        if len(data) < LARGE or hurdle is None or start >= hurdle:
            self.wfile.write(data[start:])
            return
        self.wfile.write(data[start:hurdle])
        self.wfile.flush()
        if self.server.stall_at:
            self.server.go_on.wait()
        self.server.break_at = None
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Do not log."""


def _sibling(name: str, data: bytes) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    told: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
    if len(data) >= LARGE:
        told["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return told
