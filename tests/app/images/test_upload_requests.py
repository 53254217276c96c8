"""Requests for uploads that need no worker, and the retention of uploads of a batch that never ends."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from app.routes import uploads as route
from strata.jobs.retention import Retention
from tests.app.images.test_uploads import digest_of, missing, send, stored, submit
from tests.app.jobs.test_job_list import wait_for_list
from tests.fakes import jpeg
from tests.service import MAX_BODY, Service, problem


@pytest.mark.parametrize(
    "given",
    [
        {"uploads": []},
        {"uploads": ["abc x.jpg"]},
        {"uploads": [f"{'A' * 64} x.jpg"]},
        {"uploads": [f"{'a' * 64} {'x' * 1001}"]},
        {"uploads": ["a" * 64], "shards": ["a.tar"]},
        {"uploads": ["a" * 64], "alt_texts": []},
        {"shards": ["a.tar"], "alt_texts": ["x"]},
        {},
    ],
)
def test_a_batch_that_is_not_valid_is_told(idle_service: Service, given: dict[str, Any]) -> None:
    problem(idle_service.client.post("/v1/batches", json={"input": given}), 422, "invalid-request")


def test_what_cannot_be_used_is_refused_and_not_stored(idle_service: Service) -> None:
    put = idle_service.client.put
    before = stored(idle_service)
    assert "invalid" in problem(put(f"/v1/uploads/{digest_of(b'x')}", content=b"x"), 422, "invalid-image")["type"]
    problem(put(f"/v1/uploads/{digest_of(b'')}", content=b""), 422, "invalid-image")
    problem(put(f"/v1/uploads/{'0' * 64}", content=jpeg()), 422, "invalid-request")
    problem(put("/v1/uploads/..%2f..%2fx", content=jpeg()), 404, "not-found")
    problem(put(f"/v1/uploads/{'A' * 64}", content=jpeg()), 422, "invalid-request")
    large = bytes(MAX_BODY + 1)
    problem(put(f"/v1/uploads/{digest_of(large)}", content=large), 413, "body-too-large")
    bodies: list[dict[str, Any]] = [{"sha256": ["a" * 64], "sizes": []}, {"sha256": ["x"], "sizes": [1]}]
    for body in (*bodies, {"sha256": [], "sizes": []}):
        problem(idle_service.client.post("/v1/uploads", json=body), 422, "invalid-request")
    assert stored(idle_service) == before


def test_files_that_are_too_large_or_too_many_for_the_disk_are_told_first(
    idle_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"sha256": ["a" * 64, "b" * 64], "sizes": [MAX_BODY + 1, 10]}
    answer = idle_service.client.post("/v1/uploads", json=body).json()
    assert answer == {"missing": ["b" * 64], "too_large": ["a" * 64]}
    monkeypatch.setattr(route, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=9)))
    full = problem(idle_service.client.post("/v1/uploads", json=body), 507, "storage-full")
    assert "10 bytes" in full["detail"]


def test_uploads_of_a_batch_that_runs_are_not_removed(idle_service: Service) -> None:
    """Of a service without workers: the batch never ends."""
    wait_for_list(idle_service.jobs)
    used, unused = jpeg(40), jpeg(41)
    send(idle_service, used, unused)
    assert submit(idle_service, digest_of(used)).status_code == 202
    store = idle_service.jobs.store
    for folder in ("uploads", "received"):
        for path in store.find(folder):
            os.utime(store.path(path), (time.time() - 10 * 86400,) * 2)
    retention = Retention(idle_service.jobs, 7)
    retention.sweep(7)
    assert {path[-64:] for path in stored(idle_service)} == {digest_of(used)}
    assert missing(idle_service, unused) == [digest_of(unused)]
