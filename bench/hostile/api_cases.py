"""Requests that schemathesis makes from the service's OpenAPI document: those that it allows, and others."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bench.hostile.service import AttackedService
from bench.hostile.tally import DEADLINE, Caller, Tally

PROCESSES = 2
WAIT = 10.0  # seconds besides the deadline: a case may have the header `Prefer: wait=…` or ask for events

Operation = tuple[str, str]


def attack_api(services: Sequence[tuple[AttackedService, bool]], number: int, count: int) -> None:
    """So many cases, spread over the services, each with whether its key is sent, and over all operations."""
    tasks: list[tuple[str, str | None, str, list[Operation], int, int]] = []
    for service, sends_key in services:
        document = service.caller.send("api", "GET", "/openapi.json")
        assert document is not None
        found = [(method.upper(), path) for path, item in document.json()["paths"].items() for method in item]
        each = -(-count // (len(services) * len(found)))
        key, job = service.key if sends_key else None, _ended_job(service)
        for process in range(PROCESSES):
            tasks.append((service.url, key, job, found[process::PROCESSES], number + process, each))
    # spawned, because this process has threads
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        for tally in pool.map(_run, tasks):
            _add(services[0][0].tally, tally)


def _ended_job(service: AttackedService) -> str:
    """A job that has ended, so that its events end: an empty shard is enough."""
    (service.shards / "empty.tar").write_bytes(b"")
    body = {"input": {"shards": [str(service.shards / "empty.tar")]}}
    answer = service.caller.patiently("api", "POST", "/v1/batches", json=body)
    assert answer is not None, "the service takes no job"
    job = str(answer.json()["id"])
    service.caller.send("api", "POST", f"/v1/jobs/{job}/cancel")
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        answer = service.caller.send("api", "GET", f"/v1/jobs/{job}")
        if answer is not None and answer.json()["status"] in ("cancelled", "failed", "completed"):
            break
        time.sleep(0.1)
    return job


def _add(tally: Tally, other: Tally) -> None:
    for name in ("hangs", "errors", "wrong"):
        for text in getattr(other, name):
            tally.add(getattr(tally, name), text)
    tally.done += other.done
    tally.statuses += other.statuses
    tally.slowest = max(tally.slowest, other.slowest)


def cases_of(operation: Any, job: str) -> st.SearchStrategy[Any]:
    """Requests that an operation of a schema allows, and others; in half of them the id is that of a job."""
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)

    def of_job(case: Any, known: bool) -> Any:
        if known and "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = job
        return case

    return st.builds(of_job, st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)), st.booleans())


# in a process of its own


def _run(task: tuple[str, str | None, str, list[Operation], int, int]) -> Tally:
    url, key, job, operations, number, each = task
    tally = Tally()
    caller = Caller(url, tally, key)
    schema: Any = schemathesis.openapi.from_dict(httpx.get(f"{url}/openapi.json", trust_env=False).json())
    # an operation without parameters has few cases, so that the others have more rounds
    while tally.done["API cases"] < each * len(operations):
        for method, path in operations:
            left = each * len(operations) - tally.done["API cases"]
            _cases(caller, schema[path][method], job, number, min(each, left)) if left > 0 else None
        number += PROCESSES
    caller.close()
    return tally


def _cases(caller: Caller, operation: Any, job: str, number: int, count: int) -> None:
    """Send so many cases of one operation."""

    @seed(number)
    @given(case=cases_of(operation, job))
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Any) -> None:
        _send(caller, case)

    send()


def _send(caller: Caller, case: Any) -> None:
    tally, deadline = caller.tally, DEADLINE + WAIT
    what, began = f"{case.method} {case.formatted_path[:150]}", time.monotonic()
    tally.done["API cases"] += 1
    try:
        response = case.call(base_url=caller.url, headers=caller.headers, timeout=deadline)
    # those of `requests` are OSErrors; a header or path that it refuses to send is a ValueError
    except (OSError, ValueError) as error:
        if "Timeout" in type(error).__name__:
            tally.add(tally.hangs, f"api: {what}: {type(error).__name__} after {deadline:g} s")
        tally.count("api", what, time.monotonic() - began, type(error).__name__)
        return
    media_type = response.headers.get("content-type", [""])[0]
    same = httpx.Response(response.status_code, headers={"content-type": media_type}, content=response.content)
    tally.judge("api", what, time.monotonic() - began, same, deadline)
