"""`python -m bench.api_load [BEFORE] [.]`: load on the API, of one checkout or of several in one run.

Each checkout's service gets the same: (1) 500 clients that ask for jobs, as fast as they can and at 1,000 requests a
second; (2) requests that wait with `Prefer: wait`; (3) an idle scheduler with queued images; (4) one caller's image
behind 200 images of another. (1) to (3) have no worker, so that only the API and Redis work. The machine's load is
printed with the figures: other work on it makes rates lower bounds and times upper bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from bench.api_load.clients import Caller, Responses, connect
from bench.processes import CHECKOUT, Fleet
from bench.single_images import picture

HOST = "127.0.0.1"
OTHER_CALLER = "127.0.0.2"  # the address of the second caller
CLIENTS, RATE = 500, 1000
JOBS = 50  # jobs that the clients ask for, each of them many
WAITING = (200, 500)  # requests that wait; the service lets no more wait at a time
QUEUED, FIRST = 3000, 200  # images that are queued: for an idle scheduler, and by the first caller
UPLOADERS = 32
CPU_SECONDS = 8.0  # for which the processor time of the API is measured
WORKERS = (["--groups", "index,vision", "--seconds", "0.05"], ["--groups", "llm"])
# the bounds of the queue are not what is measured
LIMITS = {"STRATA_QUEUE_IMAGES": "100000", "STRATA_CALLER_SHARE": "1"}

Figures = dict[str, float]


def upload(prefer: float | None = None) -> bytes:
    """A request for an image that no other request has."""
    data = picture()
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + data + b"\r\n--x--\r\n"
    wait = f"Prefer: wait={prefer:g}\r\n" if prefer is not None else ""
    head = f"POST /v1/captions HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: multipart/form-data; boundary=x\r\n{wait}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def queue_images(port: int, count: int, source: str | None = None) -> None:
    """Send so many images without waiting for them. Raises RuntimeError if one is refused."""
    left = iter(range(count))

    async def send_all(caller: Caller) -> None:
        for _ in left:
            status = await caller.send(upload())
            if status != 202:
                raise RuntimeError(f"an image was answered with status {status}")
        caller.close()

    await asyncio.gather(*(send_all(caller) for caller in await connect(HOST, port, UPLOADERS, source)))


def processor_share(pid: int, seconds: float = CPU_SECONDS) -> float:
    """Seconds of processor time that a process takes in a second."""
    before, start = _processor_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    return (_processor_seconds(pid) - before) / (time.perf_counter() - start)


def _processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _open_jobs(fleet: Fleet) -> int:
    return sum(1 for _ in (Path(fleet.store) / "open").glob("*"))


def ask_for_jobs(fleet: Fleet) -> Figures:
    """500 clients on `GET /v1/jobs/ID`, and the latency of one client alone."""
    asyncio.run(queue_images(fleet.port, JOBS))
    jobs = httpx.get(f"{fleet.url}/v1/jobs", params={"limit": JOBS}, trust_env=False).json()["jobs"]
    paths = [job["links"]["self"] for job in jobs]
    alone = _clients(fleet, 1, 3.0, 0.0, paths)
    figures = {"one client: p50, ms": alone.at(0.5), "one client: p99, ms": alone.at(0.99)}
    for name, rate in (("as fast as they can", 0.0), (f"{RATE}/s", float(RATE))):
        before = _processor_seconds(fleet.api.pid)
        found = _clients(fleet, CLIENTS, 10.0, rate, paths)
        used = _processor_seconds(fleet.api.pid) - before
        figures |= {
            f"{CLIENTS} clients, {name}: the API's processor ms a response": 1000 * used / len(found.milliseconds),
            f"{CLIENTS} clients, {name}: responses/s": len(found.milliseconds) / found.seconds,
            f"{CLIENTS} clients, {name}: p50, ms": found.at(0.5),
            f"{CLIENTS} clients, {name}: p99, ms": found.at(0.99),
        }
        if set(found.statuses) != {200}:
            raise RuntimeError(f"responses by status: {found.statuses}")
    return figures


def _clients(fleet: Fleet, count: int, seconds: float, rate: float, paths: Iterable[str]) -> Responses:
    """What `bench.api_load.clients` has measured."""
    numbers = [f"--clients={count}", f"--seconds={seconds}", f"--rate={rate}", *(f"--path={path}" for path in paths)]
    command = [sys.executable, "-m", "bench.api_load.clients", HOST, str(fleet.port), *numbers]
    output = subprocess.run(command, check=True, capture_output=True, cwd=CHECKOUT, text=True, encoding="utf-8").stdout
    return Responses.model_validate_json(output)


def wait_for_records(fleet: Fleet) -> Figures:
    """The processor time of the API while requests wait. Raises RuntimeError if one is answered."""

    async def wait() -> Figures:
        figures: Figures = {}
        callers: list[Caller] = []
        sent: list[asyncio.Task[int]] = []
        for count in WAITING:
            # few at a time: the service refuses an image if too many others wait to be decoded
            while len(sent) < count:
                new = await connect(HOST, fleet.port, min(UPLOADERS, count - len(sent)))
                callers += new
                sent += [asyncio.create_task(caller.send(upload(120))) for caller in new]
                while _open_jobs(fleet) < len(sent):
                    _refuse_answers(sent)
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)
            share = await asyncio.to_thread(processor_share, fleet.api.pid)
            _refuse_answers(sent)
            figures[f"{count} requests wait: processor s/s"] = share
        for caller in callers:
            caller.close()
        await asyncio.gather(*sent)
        return figures

    return asyncio.run(wait())


def _refuse_answers(sent: Iterable[asyncio.Task[int]]) -> None:
    """Raise RuntimeError if a request that should wait was answered."""
    statuses = [request.result() for request in sent if request.done()]
    if statuses:
        raise RuntimeError(f"a request that should wait was answered with status {statuses[0]}")


def idle_scheduler(fleet: Fleet) -> Figures:
    """The processor time of the API with queued images that nobody computes."""
    idle = processor_share(fleet.api.pid)
    asyncio.run(queue_images(fleet.port, QUEUED))
    time.sleep(6.0)  # each job is looked at once, some seconds after its creation
    return {
        "nothing queued: processor s/s": idle,
        f"{QUEUED} images queued: processor s/s": processor_share(fleet.api.pid),
    }


def fair_turns(fleet: Fleet) -> Figures:
    """How long one caller's image takes behind 200 images of another caller, and how many of those end before it."""

    async def compare() -> Figures:
        (one,) = await connect(HOST, fleet.port, 1, OTHER_CALLER)
        await one.send(upload(60))  # warm
        await queue_images(fleet.port, FIRST)
        queued, start = _open_jobs(fleet), time.perf_counter()
        status = await one.send(upload(120))
        seconds, left = time.perf_counter() - start, _open_jobs(fleet)
        one.close()
        if status != 200:
            raise RuntimeError(f"the second caller's image was answered with status {status}")
        return {
            f"an image behind {FIRST} of another caller: s": seconds,
            "images of the other caller that end before it": float(queued - left),
        }

    return asyncio.run(compare())


PARTS: dict[str, tuple[Callable[[Fleet], Figures], bool]] = {  # and whether workers run
    "jobs": (ask_for_jobs, False),
    "wait": (wait_for_records, False),
    "idle": (idle_scheduler, False),
    "fair": (fair_turns, True),
}


def measure(checkout: Path, part: str) -> Figures:
    """One part's figures of one checkout, with a fresh service."""
    act, with_workers = PARTS[part]
    with tempfile.TemporaryDirectory() as work:
        workers = WORKERS if with_workers else ()
        with Fleet(Path(work), work, workers, LIMITS, checkout=checkout) as fleet:
            fleet.wait_ready()
            return act(fleet)


def main() -> None:
    """Print the figures of each checkout side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[CHECKOUT], help="folders with the code")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    options = parser.parse_args()
    checkouts = [path.resolve() for path in options.checkouts]
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    for part in options.part or PARTS:
        found = [measure(checkout, part) for checkout in checkouts]
        for name in found[0]:
            print(f"| {name} | {' | '.join(f'{figures[name]:.3g}' for figures in found)} |", flush=True)
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
