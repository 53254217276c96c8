"""500 clients that ask for jobs, and a server without an application under the same load."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import httpx

from bench.api_load.callers import HOST, processor_seconds, queue_images
from bench.api_load.clients import Responses
from bench.processes import CHECKOUT, Fleet, free_port
from strata.processes import leaving_on

CLIENTS, RATE = 500, 1000
JOBS = 50  # jobs that the clients ask for, each of them many
SECONDS = 10.0  # of each measurement with many clients
START_SECONDS = 60.0  # for the other server to start

Figures = dict[str, float]


def ask_for_jobs(fleet: Fleet) -> Figures:
    """Clients on `GET /v1/jobs/ID`: one alone, and many, as fast as they can and at two fixed rates.

    One rate is 1,000 a second, the other half of what the service can answer: other work on the machine changes what it
    can answer, and how long responses take depends most on the share of this that is used.
    """
    asyncio.run(queue_images(fleet.port, JOBS))
    jobs = httpx.get(f"{fleet.url}/v1/jobs", params={"limit": JOBS}, trust_env=False).json()["jobs"]
    paths = [job["links"]["self"] for job in jobs]
    # one client, then as many requests as the service can answer
    alone = _measure(fleet.port, 1, 3.0, 0.0, paths)
    before = processor_seconds(fleet.api.pid)
    most = _measure(fleet.port, CLIENTS, SECONDS, 0.0, paths)
    used = processor_seconds(fleet.api.pid) - before
    answered = len(most.milliseconds)
    figures = {
        "one client: p50, ms": alone.at(0.5),
        "one client: p99, ms": alone.at(0.99),
        f"{CLIENTS} clients, as fast as they can: responses/s": answered / most.seconds,
        f"{CLIENTS} clients, as fast as they can: the API's processor ms a response": 1000 * used / answered,
    }
    # fixed rates, each with the other server directly after it
    with _hello() as port:
        for name, rate in ((f"{RATE}/s", float(RATE)), ("half of this rate", answered / most.seconds / 2)):
            service = _measure(fleet.port, CLIENTS, SECONDS, rate, paths)
            figures |= _compared(f"{CLIENTS} clients, {name}", service, _measure(port, CLIENTS, SECONDS, rate, ["/"]))
    return figures


def _compared(name: str, service: Responses, hello: Responses) -> Figures:
    return {
        f"{name}: p50, ms": service.at(0.5),
        f"{name}: p99, ms": service.at(0.99),
        f"{name}: p99 of a server without an application, ms": hello.at(0.99),
        f"{name}: quotient of these p99": service.at(0.99) / hello.at(0.99),
        f"{name}: p99 of how late the clients sent a request, ms": service.late_at(0.99),
    }


@contextmanager
def _hello() -> Iterator[int]:
    """A server without an application, and its port. Raises TimeoutError if it does not start."""
    port = free_port()
    with leaving_on(signal.SIGTERM):
        process = subprocess.Popen([sys.executable, "-m", "bench.api_load.hello", str(port)], cwd=CHECKOUT)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _responds(port):
                if time.monotonic() > deadline:
                    raise TimeoutError("the server without an application does not respond")
                time.sleep(0.1)
            yield port
        finally:
            process.kill()
            process.wait()


def _responds(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _measure(port: int, count: int, seconds: float, rate: float, paths: Iterable[str]) -> Responses:
    """What `bench.api_load.clients` has measured. Raises RuntimeError if a response was no success."""
    numbers = [f"--clients={count}", f"--seconds={seconds}", f"--rate={rate}", *(f"--path={path}" for path in paths)]
    command = [sys.executable, "-m", "bench.api_load.clients", HOST, str(port), *numbers]
    output = subprocess.run(command, check=True, capture_output=True, cwd=CHECKOUT, text=True, encoding="utf-8").stdout
    found = Responses.model_validate_json(output)
    if set(found.statuses) != {200}:
        raise RuntimeError(f"responses by status: {found.statuses}")
    return found
