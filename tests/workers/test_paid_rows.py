"""Rows that were paid for are not asked again, whatever ends the work on their chunk."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from typing import Any

from bench.fakes.scripted_server import Reply, ScriptedServer, good, scripted
from tests.service import Service
from tests.workers.faults.test_step_aside import PROFILE, service, submit, wait_until, workers_of, write_chat_profile

__all__ = ["service"]  # a fixture
IMAGES = 8  # in one chunk, of which two are computed together


def _profile(service: Service, server: ScriptedServer) -> None:
    write_chat_profile(service.settings.profiles_dir, "paid", server.url)
    path = service.settings.profiles_dir / "paid.toml"
    assert "chunk_size = 4" in PROFILE
    path.write_text(path.read_text().replace("chunk_size = 4", f"chunk_size = {IMAGES}"))


def _ended(service: Service, **more: Any) -> dict[str, Any]:
    job_id = submit(service, "paid", IMAGES, **more)
    return wait_until(service, job_id, lambda view: view["status"] in ("completed", "failed"))


def _failed_after_two(service: Service, server: ScriptedServer) -> tuple[dict[str, Any], int]:
    """A job whose budget is spent after two images, and the budget."""
    _profile(service, server)
    refused = _ended(service, budget={"tokens": 1})
    assert refused["status"] == "failed" and not server.asked
    # enough for the first micro-batch with all of its tries, but then each image takes more than was expected
    tokens = int(re.findall(r"may cost up to ([0-9,]+) tokens", refused["error"])[0].replace(",", ""))
    usual, server.answer = server.answer, lambda body: good("A thing is here.", tokens // 6)
    failed = _ended(service, budget={"tokens": tokens})
    assert failed["status"] == "failed" and failed["error"].startswith("budget spent: ")
    assert len(server.asked) == 2 and failed["request_counts"]["succeeded"] == 0
    assert len(service.jobs.store.find("progress")) == 1
    server.answer = usual
    return failed, tokens


def _asked_once(server: ScriptedServer) -> bool:
    """Whether each image was asked for, once."""
    counts = Counter(json.dumps(body["messages"]) for body in server.asked)
    return len(counts) == IMAGES and set(counts.values()) == {1}


def test_a_chunk_that_runs_out_of_budget_keeps_its_rows_for_a_larger_one(service: Service) -> None:
    with scripted(lambda body: good("A thing is here.")) as server, workers_of(service):
        failed, tokens = _failed_after_two(service, server)
        completed = _ended(service, budget={"tokens": 10 * tokens})
    assert completed["request_counts"]["succeeded"] == IMAGES
    assert _asked_once(server)
    # each job has paid for what it asked
    assert (failed["usage"]["requests"], completed["usage"]["requests"]) == (2, IMAGES - 2)
    assert not service.jobs.store.find("progress")


def test_what_a_deleted_job_has_paid_for_is_deleted_with_it(service: Service) -> None:
    with scripted(lambda body: good("A thing is here.")) as server, workers_of(service):
        _failed_after_two(service, server)
        for job in service.client.get("/v1/jobs").json()["jobs"]:
            assert service.client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert not service.jobs.store.find("progress")


def test_a_worker_that_is_stopped_keeps_its_rows_for_the_next(service: Service) -> None:
    started, stops = threading.Event(), list[threading.Event]()

    def answer(body: dict[str, Any]) -> Reply:
        if len(server.asked) == 3:  # the second micro-batch is answered, and no third one is begun
            started.wait()
            stops[0].set()
        return good("A thing is here.")

    with scripted(answer) as server:
        _profile(service, server)
        with workers_of(service) as stop:
            stops.append(stop)
            started.set()
            job_id = submit(service, "paid", IMAGES)
            assert stop.wait(60)
        assert len(server.asked) == 4
        with workers_of(service):
            view = wait_until(service, job_id, lambda view: view["status"] == "completed")
    assert view["request_counts"]["succeeded"] == IMAGES
    assert _asked_once(server)
    assert view["usage"]["requests"] == IMAGES
