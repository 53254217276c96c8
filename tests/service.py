"""The service with fake pipelines but real Valkey, runner and scheduler, for tests of the API."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from app.http.limits import ConnectionLimits
from app.http.serving import HttpServer
from app.main import create_app
from strata.core.profiles import Profile
from strata.core.settings import Settings
from strata.jobs.jobs import Jobs
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine

MAX_BODY = 200_000
LIMITS = ConnectionLimits()
Answer = Any  # the client's response class is httpx2's or httpx's, as Starlette finds them


@dataclass
class Service:
    """A running service: a client of it, and its components."""

    client: TestClient
    settings: Settings
    jobs: Jobs
    machine: FakeMachine | None

    def caption(self, data: bytes, wait: float | None = 120, **fields: str) -> Answer:
        """POST one image as multipart."""
        headers = {"Prefer": f"wait={wait:g}"} if wait is not None else {}
        return self.client.post("/v1/captions", files={"file": ("a.jpg", data)}, data=fields, headers=headers)

    def submit(self, *shards: str, **more: Any) -> Answer:
        """POST shards."""
        return self.client.post("/v1/batches", json={"input": {"shards": list(shards)}, **more})


@contextmanager
def running_service(
    queue: Queue, folder: Path, workers: bool = True, profile: Profile = FAKE_PROFILE, **changes: Any
) -> Iterator[Service]:
    """Run a service whose shards lie in folder/shards, with fake workers or none. profile: its only profile."""
    settings, store = _parts(folder, profile, changes)
    jobs = Jobs(queue, store)
    machine = FakeMachine(jobs, profile=profile) if workers else None
    with TestClient(create_app(settings, queue, store), raise_server_exceptions=False) as client:
        if machine is None:
            yield Service(client, settings, jobs, None)
            return
        with machine:
            yield Service(client, settings, jobs, machine)


@contextmanager
def listening_service(
    queue: Queue,
    folder: Path,
    limits: ConnectionLimits = LIMITS,
    workers: bool | Callable[[Jobs], FakeMachine] = False,
    **changes: Any,
) -> Iterator[int]:
    """Run a service behind the real HTTP server, on a port of 127.0.0.1; with fake workers, made ones or none."""
    settings, store = _parts(folder, FAKE_PROFILE, changes)
    with listening(create_app(settings, queue, store), limits) as port:
        if not workers:
            yield port
            return
        jobs = Jobs(queue, store)
        with FakeMachine(jobs) if workers is True else workers(jobs):
            yield port


@contextmanager
def listening(app: FastAPI, limits: ConnectionLimits) -> Iterator[int]:
    """Run an application behind the real HTTP server, on a port of 127.0.0.1."""
    server = HttpServer(app, limits)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as bound:
        port = bound.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(120)
            assert not thread.is_alive()


def _parts(folder: Path, profile: Profile, changes: dict[str, Any]) -> tuple[Settings, Store]:
    profiles, shards = folder / "profiles", folder / "shards"
    for made in (profiles, shards):
        made.mkdir(exist_ok=True)
    write_profile(profiles, profile)
    given: dict[str, Any] = {
        "data_dir": folder / "data",
        "shard_roots": [str(shards)],
        "profiles_dir": profiles,
        "profile": "fake",
        "allowed_hosts": ["testserver"],  # by which the client of tests calls it
        "max_body_bytes": MAX_BODY,
        "max_pixels": 1_000_000,
    }
    settings = Settings.model_validate(given | changes)
    return settings, Store(settings.store_uri, settings.moved_roots)


def write_profile(folder: Path, profile: Profile = FAKE_PROFILE) -> None:
    """The fake profile as TOML."""
    lines = [f"chunk_size = {profile.chunk_size}", f"micro_batch = {profile.micro_batch}"]
    lines += ["[rules]", *(f"{name} = {limit}" for name, limit in profile.rules.deciding().items())]
    for name, stage in profile.stages.items():
        values = stage.model_dump(exclude={"parameters"})
        lines += [f"[stages.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    (folder / "fake.toml").write_text("\n".join(lines))


def png(width: int, height: int) -> bytes:
    """A PNG of one colour, which has few bytes even with many pixels."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def problem(response: Answer, status: int, name: str) -> dict[str, Any]:
    """Check that a response is this problem, and return it."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == f"/problems/{name}", body
    assert body["status"] == status
    assert body["title"] and body["detail"]
    # what may succeed later says when
    assert status not in (429, 503, 507) or int(response.headers["retry-after"]) > 0, body
    assert "Traceback" not in response.text
    return body
