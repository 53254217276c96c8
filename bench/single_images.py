"""`python -m bench.single_images`: single images on a store of which each call takes 50 ms, as a bucket's does.

The real service and two workers, with stages that compute nothing (`bench.fakes.worker`). Measured: the seconds until
the answer of `POST /v1/captions` with and without `Prefer: wait`; how many storage calls come one after another before
the work starts; the images per second of many callers at once; storage calls for each image by process and name.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
from PIL import Image

from bench.fakes.slow_store import SCHEME, Call, calls_in, chain
from bench.processes import Fleet
from strata.client import Client

CALL_SECONDS = 0.05
WORKERS = (["--groups", "index,vision"], ["--groups", "llm"])  # as `strata serve` starts them
END_SECONDS = 120.0  # for all jobs to end after the last answer


def picture() -> bytes:
    """A small JPEG that no other call returns."""
    file = io.BytesIO()
    Image.frombytes("RGB", (32, 32), os.urandom(32 * 32 * 3)).save(file, "JPEG")
    return file.getvalue()


class Bench:
    """A fleet on a slow store, and what its processes note of their storage calls."""

    def __init__(self, fleet: Fleet, notes: Path) -> None:
        self.fleet, self.notes = fleet, notes

    def calls(self, since: float) -> list[Call]:
        """The storage calls that have begun since a time."""
        return [call for call in calls_in(self.notes) if call.start >= since]

    def names(self) -> dict[int, str]:
        """The processes by their ids."""
        return {self.fleet.api.pid: "api", self.fleet.workers[0].pid: "vision", self.fleet.workers[1].pid: "llm"}

    def one_by_one(self, count: int) -> dict[str, float]:
        """The latency of single images while nothing else runs."""
        waited, accepted, before, whole = [], [], [], []
        with Client(self.fleet.url) as client:
            client.caption(picture(), wait=60)  # the first image also writes the profile to the store
            for _ in range(count):
                # the answer with the record; the calls of this image begin before its answer
                since = time.time()
                client.caption(picture(), wait=60)
                waited.append(time.time() - since)
                calls = self.calls(since)
                work = min(call.start for call in calls if self.names()[call.process] == "vision")
                before.append(chain([call for call in calls if call.end <= work]))
                whole.append(chain(calls))
                time.sleep(1.0)  # for the end of the job
                # the answer without waiting
                since = time.time()
                httpx.post(f"{self.fleet.url}/v1/captions", files={"file": ("a.jpg", picture())}, trust_env=False)
                accepted.append(time.time() - since)
                time.sleep(1.5)
        return {
            "one image, seconds to its record, median": statistics.median(waited),
            "one image, seconds to its record, most": max(waited),
            "one image, seconds to 202, median": statistics.median(accepted),
            "storage calls in a row before the work starts": statistics.median(before),
            "storage calls in a row until the record": statistics.median(whole),
        }

    def many(self, count: int, callers: int) -> dict[str, float]:
        """The rate of many callers, each with one image at a time, and the storage calls for each image."""
        since, before = time.time(), self._cpu_seconds()
        seconds = asyncio.run(_send(self.fleet.url, count, callers))
        elapsed = time.time() - since
        ended = self._wait_for_ends(since)
        figures = {
            f"{callers} callers, images/s": count / elapsed,
            f"{callers} callers, seconds to a record, median": statistics.median(seconds),
            f"{callers} callers, seconds to a record, 95th percentile": statistics.quantiles(seconds, n=20)[-1],
            "seconds from the last answer to the last job's end": ended,
        }
        names, after = self.names(), self._cpu_seconds()
        figures |= {f"CPU ms per image, {name}": 1000 * (after[name] - before[name]) / count for name in after}
        counts = Counter(f"{names[call.process]}: {call.name} {call.folder}" for call in self.calls(since))
        figures |= {f"calls per image, {name}": n / count for name, n in sorted(counts.items())}
        return figures | {"calls per image, all": sum(counts.values()) / count}

    def _cpu_seconds(self) -> dict[str, float]:
        """The processor time that each process has used."""
        times = {name: psutil.Process(pid).cpu_times() for pid, name in self.names().items()}
        return {name: used.user + used.system for name, used in times.items()}

    def _wait_for_ends(self, since: float) -> float:
        """The seconds until no job is open; END_SECONDS if some still are."""
        marks, start = Path(self.fleet.store.removeprefix(f"{SCHEME}://")) / "open", time.time()
        while any(not mark.name.startswith(".") for mark in marks.iterdir()):
            if time.time() - start > END_SECONDS:
                return END_SECONDS
            time.sleep(0.05)
        return time.time() - start


async def _send(url: str, count: int, callers: int) -> list[float]:
    """The seconds of each image."""
    pictures = iter([picture() for _ in range(count)])
    seconds: list[float] = []

    async def call(client: httpx.AsyncClient) -> None:
        for data in pictures:
            start = time.perf_counter()
            files = {"file": ("a.jpg", data)}
            answer = await client.post(f"{url}/v1/captions", files=files, headers={"Prefer": "wait=120"})
            assert answer.status_code == 200, answer.text
            seconds.append(time.perf_counter() - start)

    limits = httpx.Limits(max_connections=callers)
    async with httpx.AsyncClient(timeout=150, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(call(client) for _ in range(callers)))
    return seconds


def measure(singles: int, count: int, callers: int) -> dict[str, float]:
    """All figures of one run."""
    with tempfile.TemporaryDirectory() as work:
        folder, notes = Path(work), Path(work) / "calls"
        notes.mkdir()
        settings = {
            "STRATA_STORE": f"{SCHEME}://{folder}/store",
            "SLOW_STORE_SECONDS": str(CALL_SECONDS),
            "SLOW_STORE_CALLS": str(notes),
        }
        with Fleet(folder, work, WORKERS, settings) as fleet:
            fleet.wait_ready()
            bench = Bench(fleet, notes)
            return bench.one_by_one(singles) | bench.many(count, callers)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--singles", type=int, default=10, help="images that are sent one by one")
    parser.add_argument("--images", type=int, default=1000, help="images of many callers")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.singles, options.images, options.callers)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f"| {name} | {value:.3g} |")


if __name__ == "__main__":
    main()
