"""The audit log: who has done what, as lines of JSON, and nothing that is nobody's business."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.http.audit import audit_file
from strata.errors import InvalidInput
from strata.keys import Scope, StoredKeys
from strata.queue.queue import Queue
from tests.fakes import jpeg
from tests.service import Service, running_service


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def told(service: Service, path: Path, method: str, address: str, secret: str = "", **more: Any) -> dict[str, Any]:
    """The one line that a request has added."""
    before = len(lines(path))
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    answer = service.client.request(method, address, headers=headers, **more)
    (line,) = lines(path)[before:]
    assert line["status"] == answer.status_code and abs(datetime.fromisoformat(line["time"]) - datetime.now(UTC)) < (
        timedelta(minutes=10)
    )
    return line


def test_who_has_done_what(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.jsonl"
    with audit_file(path), running_service(queue, tmp_path, workers=False) as service:
        keys = StoredKeys(service.jobs.store)
        key, secret = keys.create("a pipeline", [Scope.SUBMIT], "team-a")
        old, expired = keys.create("old", [Scope.SUBMIT], "team-a", datetime.now(UTC) - timedelta(days=1))
        own = {"key": key.id, "tenant": "team-a", "address": "testclient"}
        files = {"file": ("holiday-in-rome.jpg", jpeg())}
        made = told(service, path, "POST", "/v1/captions", secret, files=files, data={"alt_text": "a caption"})
        job = made["job"]
        assert made.items() >= (own | {"operation": "POST /v1/captions", "outcome": "done"}).items()
        assert service.jobs.view(job).tenant == "team-a"
        cancelled = told(service, path, "POST", f"/v1/jobs/{job}/cancel", secret)
        assert cancelled.items() >= (own | {"operation": "POST /v1/jobs/{job_id}/cancel", "job": job}).items()
        # reading is not written, unless the key is refused
        before = len(lines(path))
        assert service.client.get(f"/v1/jobs/{job}", headers={"X-API-Key": secret}).status_code == 200
        assert service.client.get("/healthz").status_code == 200 and len(lines(path)) == before
        narrow = told(service, path, "GET", f"/v1/records/{job}/holiday-in-rome", secret)
        assert narrow.items() >= (own | {"operation": "GET /v1/records/{job_id}/{key}", "outcome": "refused"}).items()
        assert told(service, path, "POST", "/v1/batches", expired)["key"] == old.id
        nobody = told(service, path, "GET", "/v1/jobs/secret-name", "strata_wrong")
        assert nobody["key"] is None and nobody["operation"] == "GET" and nobody["job"] is None
        # a body that is refused, an address that is none, and one with an id that is none
        assert told(service, path, "POST", "/v1/batches", secret, content=b"{")["outcome"] == "refused"
        assert told(service, path, "POST", "/v1/nowhere", secret)["operation"] == "POST"
        assert len(told(service, path, "POST", f"/v1/jobs/{'9' * 60}/retry", secret)["job"]) == 60
    text = path.read_text(encoding="utf-8")
    assert not any(
        word in text for word in (secret, expired, "strata_", "rome", "a caption", "secret-name", key.sha256)
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_reading_is_written_if_it_is_asked_for(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with audit_file(path), running_service(queue, tmp_path, workers=False, audit_reads=True) as service:
        line = told(service, path, "GET", "/v1/jobs")
        assert line["operation"] == "GET /v1/jobs" and line["key"] == "" and line["tenant"] == "default"
        # the file is moved away, as logrotate does
        path.rename(tmp_path / "old.jsonl")
        assert service.client.get("/v1/jobs").status_code == 200
        assert len(lines(path)) == 1 == len(lines(tmp_path / "old.jsonl"))


def test_without_a_file_it_is_in_the_log_of_the_service(
    queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "strata.audit")
    with audit_file(None), running_service(queue, tmp_path, workers=False) as service:
        service.client.post("/v1/jobs/none/cancel")
    (record,) = [record for record in caplog.records if record.name == "strata.audit"]
    assert json.loads(record.getMessage())["job"] == "none"


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for path in (tmp_path, tmp_path / "file" / "audit.jsonl"):
        with pytest.raises(InvalidInput, match="STRATA_AUDIT_LOG"), audit_file(path):
            pass
