"""`python -m bench.job_list`: pages of the list of jobs among a million jobs of one image, and the memory of its index.

The index is filled with synthetic jobs, and the files of the jobs that the measured pages show are written to the
store. Then the pages are asked for over HTTP, as `strata jobs` asks for them: each time is that of the whole request.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx

from bench.processes import Fleet
from strata.core import GROUPS, JobEnd, JobRequest, JobStatus, RequestCounts, ShardCounts
from strata.queue import JobFilter, ListedJob, Queue, entry_of
from strata.store import Store

STEP_MS = 50  # milliseconds between two jobs
FAILED_EVERY, BATCH_EVERY, RARE_EVERY = 10_000, 1000, 400_000
REPEATS = 30
LIMIT = 20


def request_of(number: int, start_ms: int) -> JobRequest:
    """The request of one job: mostly of one image; every BATCH_EVERY-th of shards, few of a rare profile."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    batch = number % BATCH_EVERY == 0
    created = start_ms + number * STEP_MS
    return JobRequest(
        id=f"{created:012x}{digest[:10]}",
        kind="batch" if batch else "image",
        shards=["a.tar"] if batch else [f"upload:{digest}"],
        profile="rare" if number % RARE_EVERY == 7 else "demo",
        fingerprints=dict.fromkeys(GROUPS, digest[:16]),
        chunk_size=64,
        priority="lo" if batch else "hi",
        metadata={},
        created_at=datetime.fromtimestamp(created / 1000, UTC),
    )


def status_of(number: int) -> JobStatus:
    """The status of one job."""
    return JobStatus.FAILED if number % FAILED_EVERY == 3 else JobStatus.COMPLETED


def listed(count: int, start_ms: int) -> Iterator[ListedJob]:
    """All jobs, as the index has them."""
    for number in range(count):
        request = request_of(number, start_ms)
        text = entry_of(request).partition(":")[2]
        yield ListedJob(request.id, request.kind, status_of(number), text)


def write_files(store: Store, request: JobRequest, status: JobStatus) -> None:
    """The files of a job that has ended."""
    end = JobEnd(
        **request.model_dump(include={"id", "kind", "profile", "priority", "created_at"}),
        status=status,
        request_counts=RequestCounts(total=1, succeeded=1),
        shards=ShardCounts(total=1, indexed=1),
        groups={},
        finished_at=request.created_at,
    )
    store.write_job_file(request.id, "request", request)
    store.write_job_file(request.id, "end", end)


def seconds_of(url: str, query: str) -> tuple[float, float, int]:
    """The median and the longest time of a page, in ms, and its number of jobs."""
    with httpx.Client(base_url=url, trust_env=False) as client:
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            answer = client.get(f"/v1/jobs?{query}")
            times.append(1000 * (time.perf_counter() - start))
            assert answer.status_code == 200, answer.text
    return statistics.median(times), max(times), len(answer.json()["jobs"])


def pages(count: int, start_ms: int) -> dict[str, tuple[JobFilter, str, str | None]]:
    """The measured pages: filter, query and cursor by what they are called."""
    middle = request_of(count // 2, start_ms)
    moment = middle.created_at.isoformat().replace("+00:00", "Z")
    return {
        "the newest": (JobFilter(), "", None),
        "from the middle, by a cursor": (JobFilter(), f"cursor={middle.id}", middle.id),
        "failed ones (1 of 10,000)": (JobFilter(status=JobStatus.FAILED), "status=failed", None),
        "of shards (1 of 1,000)": (JobFilter(kind="batch"), "kind=batch", None),
        "created before the middle": (JobFilter(before=middle.id[:12]), f"created_before={moment}", None),
        "of a profile that almost all have": (JobFilter(profile="demo"), "profile=demo", None),
        "of a profile that none of the newest has": (JobFilter(profile="rare"), "profile=rare", None),
    }


def measure(count: int) -> dict[str, float]:
    """Fill the index, and measure all pages."""
    start_ms = int(time.time() * 1000) - count * STEP_MS
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as work, Fleet(Path(work), work, ()) as fleet:
        fleet.wait_ready()
        queue, store = Queue(fleet.server.url), Store(fleet.store)
        # the service has found an empty store, so that its list is complete
        while not queue.job_list.is_complete():
            time.sleep(0.05)
        empty, start = queue.peak_memory(), time.monotonic()
        jobs = listed(count, start_ms)
        while batch := [job for job, _ in zip(jobs, range(10_000), strict=False)]:
            queue.job_list.add_missing(batch)
        figures["seconds to fill the index"] = time.monotonic() - start
        figures["bytes of Redis memory for each job"] = (queue.peak_memory() - empty) / count
        numbers = {request_of(number, start_ms).id: number for number in range(count)}
        for name, (chosen, query, cursor) in pages(count, start_ms).items():
            for job_id in queue.job_list.page(chosen, LIMIT, cursor)[0]:
                number = numbers[job_id]
                write_files(store, request_of(number, start_ms), status_of(number))
            median, longest, found = seconds_of(fleet.url, f"limit={LIMIT}&{query}")
            figures |= {f"{name}: ms, median": median, f"{name}: ms, longest": longest, f"{name}: jobs": found}
        # how long a caller looks for the first job of the rare profile, page by page
        start, cursor, looked = time.monotonic(), None, 0
        while True:
            ids, cursor = queue.job_list.page(JobFilter(profile="rare"), 1, cursor)
            looked += 1
            if ids or cursor is None:
                break
        figures["pages until the first job of the rare profile"] = looked
        figures["ms for each of them in Redis"] = 1000 * (time.monotonic() - start) / looked
        queue.close()
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.jobs)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f"| {name} | {value:.4g} |")


if __name__ == "__main__":
    main()
