"""A hub on loopback: repositories in memory, served by the routes that huggingface_hub uses.

Models are read. Data sets are made, read and written: files are sent by Git LFS, and appear with a commit. What it does
wrong is told by its attributes: it stalls or breaks off in a file, sends other bytes, asks for a token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml

SIGNATURE = "c2lnbmVk"  # in the addresses to which contents are sent
LARGE = 10_000  # bytes; larger files are listed with their SHA-256 as by Git LFS, smaller ones with git's hash
Files = dict[str, bytes]


@dataclass
class DataSet:
    """A data set. private: as it was made; files: of the newest commit; messages: of the commits."""

    private: bool
    files: Files = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        """The newest commit."""
        return hashlib.sha1(repr((sorted(self.files.items()), self.messages)).encode()).hexdigest()


class HubServer(ThreadingHTTPServer):
    """The hub. repositories: the files of each model OWNER/NAME; asked: the requests as (path, Range), in order.

    datasets: by OWNER/NAME; contents: of files that were sent, by their SHA-256; sent: these, in order; token: without
    it no data set is made or written. stall_after: how many contents are taken before the next one stalls, until reset.
    refused: how many contents are answered by 500 before one is taken.
    """

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
        self.datasets: dict[str, DataSet] = {}
        self.contents: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.token: str | None = None
        self.stall_after: int | None = None
        self.refused = 0
        self.stalled = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed closes its connection; other errors are printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

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
        if "/datasets/" in path:
            self._read_dataset(path)
            return
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

    def _read_dataset(self, path: str) -> None:
        info = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = info or file
        dataset = self.server.datasets.get(found[1]) if found else None
        if found is None or dataset is None or (dataset.private and not self._has_token()):
            self._refuse(404, "RepoNotFound")
        elif found[2] not in (None, "main", dataset.commit):
            self._refuse(404, "RevisionNotFound")
        elif info:
            self._answer({"id": found[1], "sha": dataset.commit, "private": dataset.private, "siblings": []})
        elif found[3] not in dataset.files:
            self._refuse(404, "EntryNotFound")
        else:
            self._send(found[3], dataset.files[found[3]])

    def do_POST(self) -> None:
        path, body = unquote(self.path.partition("?")[0]), self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((path, None))
        found = re.fullmatch(r"/(?:api/)?datasets/([^/]+/[^/.]+)(?:\.git)?/(\w+)(/.*)?", path)
        if path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif not self._has_token():
            self._refuse(401, "Unauthorized")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found is None or found[1] not in self.server.datasets:
            self._refuse(404, "RepoNotFound")
        elif found[2] == "preupload":
            self._tell_modes(self.server.datasets[found[1]], json.loads(body)["files"])
        elif found[2] == "info":
            self._tell_uploads(json.loads(body)["objects"])
        elif found[2] == "commit":
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        server, digest = self.server, self.path.partition("?")[0].rpartition("/")[2]
        if server.stall_after is not None and len(server.sent) >= server.stall_after:
            server.stalled.set()
            server.go_on.wait()
            self.close_connection = True
            return
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if server.refused > 0:
            server.refused -= 1
            self._answer({}, 500)
            return
        assert hashlib.sha256(data).hexdigest() == digest
        server.contents[digest] = data
        server.sent.append(digest)
        self._answer({})

    def _has_token(self) -> bool:
        return self.server.token is None or self.headers["Authorization"] == f"Bearer {self.server.token}"

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.server.datasets
        self.server.datasets.setdefault(name, DataSet(asked.get("visibility") == "private"))
        self._answer({"url": f"{self.server.url}/datasets/{name}"}, 409 if known else 200)

    def _validate(self, content: str) -> None:
        """As the hub: an error for a head that is no YAML, or whose fields have other types."""
        try:
            fields = yaml.safe_load(content.split("---\n")[1])
        except (yaml.YAMLError, IndexError) as error:
            self._answer({"errors": [{"message": str(error)}], "warnings": []}, 400)
            return
        wrong = [name for name in ("tags", "configs", "language") if not isinstance(fields.get(name, []), list)]
        self._answer({"errors": [{"message": name} for name in wrong], "warnings": []}, 400 if wrong else 200)

    def _tell_modes(self, dataset: DataSet, files: list[dict[str, Any]]) -> None:
        told = []
        for file in files:
            mode = "lfs" if file["size"] >= LARGE else "regular"
            there = dataset.files.get(file["path"])
            oid = None if there is None else _oid(there)
            told.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._answer({"files": told})

    def _tell_uploads(self, objects: list[dict[str, Any]]) -> None:
        told = []
        for one in objects:
            # with a signature, as the addresses of a real hub have it
            upload = {"upload": {"href": f"{self.server.url}/contents/{one['oid']}?signature={SIGNATURE}"}}
            told.append({**one, **({} if one["oid"] in self.server.contents else {"actions": upload})})
        self._answer({"transfer": "basic", "objects": told})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        dataset = self.server.datasets[name]
        header, files = lines[0]["value"], dict(dataset.files)
        if header.get("parentCommit") not in (None, dataset.commit):
            self._answer({"error": "The branch has moved"}, 412)
            return
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.contents[value["oid"]]
            else:
                del files[value["path"]]
        dataset.files = files
        dataset.messages.append(header["summary"])
        place = f"{self.server.url}/datasets/{name}/commit/{dataset.commit}"
        self._answer({"commitUrl": place, "commitOid": dataset.commit})

    def _answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _tell(self, repository: str) -> None:
        siblings = [_sibling(name, data) for name, data in self.server.repositories[repository].items()]
        self._answer({"id": repository, "sha": commit_of(repository), "siblings": siblings})

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


def _oid(data: bytes) -> str:
    """What the hub compares a file by: the SHA-256 of a large one, else git's hash."""
    if len(data) >= LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sibling(name: str, data: bytes) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    told: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
    if len(data) >= LARGE:
        told["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return told
