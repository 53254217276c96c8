"""What the status of a job, its plan and the lists of parts take in a store of many images."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.store.planted import FINGERPRINTS
from strata.core import JobEnd, JobRequest, ShardSummaries
from strata.jobs import Jobs, Scheduler
from strata.queue import EmbeddedServer, Queue
from strata.search.listing import PartListing
from strata.snapshots import Cleaning
from strata.store import PartsOf, Store

REPEATS = 20  # of what takes milliseconds
HIGH_WATER = 1000


class Measured:
    """The figures of one store. Each method measures one, in a process of its own."""

    def __init__(self, folder: Path, request: JobRequest) -> None:
        self.folder, self.request = folder, request

    @property
    def store(self) -> Store:
        """The store, opened anew."""
        return Store(str(self.folder / "store"))

    def list_parts(self) -> dict[str, float]:
        """All parts of a group, as search, `clean` and data sets list them."""
        return {"parts": len(self.store.find("parts", "llm"))}

    def parts_of_job(self) -> dict[str, float]:
        """The parts of the job, as a snapshot asks for them."""
        return {"parts": len(PartsOf(self.store).sources([self.request.id]))}

    def data_set(self) -> dict[str, float]:
        """The parts of the data set, as a snapshot asks for them."""
        return {"parts": len(PartsOf(self.store).sources([FINGERPRINTS["llm"]]))}

    def search_listing(self) -> dict[str, float]:
        """What the search index compares itself with, every half minute while there are searches."""
        return {"parts": PartListing(self.store).table().num_rows}

    def clean(self) -> dict[str, float]:
        """What `strata clean` lists."""
        return {"files": len(Cleaning(self.store).unreferenced())}

    def counts(self) -> dict[str, float]:
        """The counts by which a job ends, from the footers of all its parts."""
        jobs = Jobs(Queue("redis://127.0.0.1:1"), self.store)
        found = self.store.parse_job_file(self.request.id, "shards", ShardSummaries)
        assert found is not None
        return {"images": jobs.parts.counts(self.request, found.shards).total()}

    def plan(self) -> dict[str, float]:
        """The job again, all of whose parts exist: from its submission to its end, and its status in between."""
        store = self.store
        store.remove_job_file(self.request.id, "end")
        with EmbeddedServer(self.folder / "redis") as server:
            queue = Queue(server.url)
            scheduler = Scheduler(queue, store, HIGH_WATER)
            scheduler.jobs.restore(self.request.id)
            ticks, statuses = [], []
            while store.read_job_file(self.request.id, "end") is None:
                ticks.append(_seconds(scheduler.tick))
                statuses.append(_seconds(lambda: scheduler.jobs.view(self.request.id)))
            used = queue.peak_memory()
        return {
            "longest tick, s": max(ticks),
            "status while it runs, median ms": 1000 * statistics.median(statuses),
            "status while it runs, most ms": 1000 * max(statuses),
            "Redis, MiB": used / 2**20,
        }

    def status(self) -> dict[str, float]:
        """The status of the job after its end, as the service reads it, and as `strata status --store`."""
        with EmbeddedServer(self.folder / "redis") as server:
            jobs = Jobs(Queue(server.url), self.store)
            service = [_seconds(lambda: jobs.stored_view(self.request.id)) for _ in range(REPEATS)]
        command = [sys.executable, "-m", "strata", "status", self.request.id, "--store", str(self.folder / "store")]
        whole = _seconds(lambda: subprocess.run([*command, "--json"], check=True, stdout=subprocess.DEVNULL))
        stored = [_seconds(lambda: self.store.parse_job_file(self.request.id, "end", JobEnd)) for _ in range(REPEATS)]
        return {
            "ended, service, ms": 1000 * statistics.median(service),
            "ended, the file, ms": 1000 * statistics.median(stored),
            "`strata status --store`, its start included, ms": 1000 * whole,
        }


FIGURES: tuple[Callable[[Measured], dict[str, float]], ...] = (
    Measured.plan,
    Measured.status,
    Measured.counts,
    Measured.parts_of_job,
    Measured.data_set,
    Measured.list_parts,
    Measured.search_listing,
    Measured.clean,
)


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _figure(of: Measured, name: str, pipe: Any) -> None:
    found: dict[str, float] = {}
    before = time.process_time()
    found["s"] = _seconds(lambda: found.update(getattr(of, name)()))
    found["CPU s"] = time.process_time() - before
    found["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send(found)


def alone(of: Measured, name: str) -> dict[str, float]:
    """One figure, in a process of its own. Raises RuntimeError if it fails."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_figure, args=(of, name, theirs))
    process.start()
    theirs.close()
    try:
        return dict(ours.recv())
    except EOFError:
        raise RuntimeError(f"{name} has failed") from None
    finally:
        process.join()
