"""`python -m bench.api_load [BEFORE] [.]`: load on the API, of one checkout or of several in one run.

Each checkout's service gets the same: (1) 500 clients that ask for jobs, as fast as they can and at two fixed rates,
and a server without an application at the same rates; (2) 200 and 1,000 requests that wait with `Prefer: wait`; (3) an
idle scheduler with queued images; (4) one caller's image behind 200 images of another. (1) to (3) have no worker, so
that only the API and Redis work. The machine's load is printed with the figures: other work on it makes rates lower
bounds and times upper bounds. A part for which the machine is too busy says so.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.api_load.callers import HOST, OTHER_CALLER, processor_share, queue_images, upload
from bench.api_load.clients import connect
from bench.api_load.jobs import ask_for_jobs
from bench.api_load.waiting import open_jobs, wait_for_records
from bench.processes import CHECKOUT, Fleet

QUEUED, FIRST = 3000, 200  # images that are queued: for an idle scheduler, and by the first caller
WORKERS = (["--groups", "index,vision", "--seconds", "0.05"], ["--groups", "llm"])
# the bounds of the queue are not what is measured
LIMITS = {"STRATA_QUEUE_IMAGES": "100000", "STRATA_CALLER_SHARE": "1"}

Figures = dict[str, float]


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
        queued, start = open_jobs(fleet), time.perf_counter()
        status = await one.send(upload(120))
        seconds, left = time.perf_counter() - start, open_jobs(fleet)
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


def attempt(checkout: Path, part: str) -> Figures:
    """The figures of `measure`; none, and a line that says why, if the machine is too busy for them."""
    try:
        return measure(checkout, part)
    except RuntimeError as error:
        print(f"{part} of {checkout}: not measured: {error}", flush=True)
        return {}


def main() -> None:
    """Print the figures of each checkout side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[CHECKOUT], help="folders with the code")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    options = parser.parse_args()
    checkouts = [path.resolve() for path in options.checkouts]
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    for part in options.part or PARTS:
        found = [attempt(checkout, part) for checkout in checkouts]
        for name in dict.fromkeys(name for figures in found for name in figures):
            shown = (f"{figures[name]:.3g}" if name in figures else "-" for figures in found)
            print(f"| {name} | {' | '.join(shown)} |", flush=True)
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
