"""`python -m bench.chaos --seed 1`: run a job of 10,000 images while processes are killed, and compare every row.

Workers, the Redis server and the API get SIGKILL; workers are stopped for longer than their lease and continued; and
once the disk is full for ten seconds (a small file system, for which a mount namespace is needed). All the time the
parts are bundled and taken apart by a compaction that is killed too. Two images crash every worker that decodes them;
some files are not images. Then each row is compared with that of an undisturbed run, once more when all parts are
bundled, and a plain Parquet reader counts them.

The last line is `lost L doubled D wrong W of N, kills W/R/A/S/C`: workers, Redis, API, workers stopped, compactions.
The exit code is 0 only if these three are 0 and the number of kills is as planned.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pyarrow.dataset

from bench.fakes.worker import DEADLY
from bench.inputs.s3_server import S3, s3_server
from bench.inputs.tiny_shards import plain_image, write_shard
from bench.processes import Fleet, Process
from strata.client import ApiError, Client
from strata.core import FINAL_GROUP, JobRequest, JobView, Record, ShardSummaries
from strata.store import Compaction, Store
from strata.store.bundles import locks

SHARD = 1000  # images
LEASE = 2.0  # seconds
KILLS = {"worker": 21, "redis": 5, "api": 3, "stop": 3, "compaction": 7, "disk": 1}
FULL_SECONDS = 10.0
DISK_BYTES = 512 * 2**20
BUDGET = 600.0  # seconds for the whole
WORKERS = (["--groups", "index,vision"], ["--groups", "vision"], ["--groups", "llm"])
DEMO_SHARD = Path(__file__).resolve().parents[1] / "samples" / "shards" / "00000.tar"


def make_shards(folder: Path, images: int) -> tuple[list[str], int]:
    """Write shards of tiny images, with files that are no images and two that crash workers, and the demo's 64."""
    special = dict.fromkeys(range(333, images, 1009), b"this is no image")
    special |= dict.fromkeys((images // 3, images // 2 + 1), plain_image(DEADLY))
    for first in range(0, images, SHARD):
        write_shard(folder / f"{first // SHARD:05d}.tar", first, min(SHARD, images - first), special)
    (folder / "demo.tar").write_bytes(DEMO_SHARD.read_bytes())
    return [str(path) for path in sorted(folder.glob("*.tar"))], len(special)


class Chaos:
    """The events that disturb a fleet while it works; a seed determines their order and times."""

    def __init__(self, fleet: Fleet, seed: int, disk: Path | None, pauses: tuple[float, float]) -> None:
        self.fleet, self.random, self.disk, self.pauses = fleet, random.Random(seed), disk, pauses
        self.left = [name for name, times in KILLS.items() for _ in range(times) if name != "disk" or disk]
        self.random.shuffle(self.left)
        self.done: Counter[str] = Counter()
        self.next = time.monotonic() + 5
        log = fleet.folder / "compaction.log"
        self.compaction = Process(["-m", "bench.fakes.compactor", str(seed)], fleet.settings, log)
        self._full_until: float | None = None

    def beat(self) -> None:
        """Cause the next event if it is due, and restart the processes that have ended."""
        now = time.monotonic()
        # free the disk after its time
        if self._full_until is not None and now > self._full_until:
            self._ballast.unlink()
            self._full_until = None
        if self._full_until is None:  # a server cannot start on a full disk
            self.fleet.look_after()
            self.compaction.look_after()
        # the next event, after a random pause
        if now >= self.next and self.left:
            name = self.left.pop()
            getattr(self, f"_{name}")()
            self.done[name] += 1
            self.next = now + self.random.uniform(*self.pauses)

    def _worker(self) -> None:
        self.random.choice(self.fleet.workers).send(signal.SIGKILL)

    def _redis(self) -> None:
        if self.fleet.server.pid:
            os.kill(self.fleet.server.pid, signal.SIGKILL)

    def _api(self) -> None:
        self.fleet.api.send(signal.SIGKILL)

    def _compaction(self) -> None:
        self.compaction.send(signal.SIGKILL)

    def _stop(self) -> None:
        pid = self.random.choice(self.fleet.workers).pid
        os.kill(pid, signal.SIGSTOP)

        def wake() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        threading.Timer(LEASE + 2, wake).start()

    @property
    def _ballast(self) -> Path:
        assert self.disk is not None
        return self.disk / "ballast"

    def _disk(self) -> None:
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**20))
        self._full_until = time.monotonic() + FULL_SECONDS


def run_job(fleet: Fleet, shards: list[str], chaos: Chaos | None = None) -> JobView:
    """Submit a job, and call `beat` until it has ended. Raises TimeoutError."""
    began = told = time.monotonic()
    job_id: str | None = None
    while time.monotonic() - began < BUDGET:
        time.sleep(0.1)
        # disturb only once the job exists
        chaos.beat() if chaos and job_id else fleet.look_after()
        with suppress(httpx.HTTPError, ApiError), Client(fleet.url, timeout=5) as client:
            # the idempotency key makes repeated submissions harmless
            if job_id is None:
                job_id = client.submit(shards, idempotency_key="chaos").id
            view = client.job(job_id)
            if view.status.final:
                return view
            if time.monotonic() - told > 10:
                told = time.monotonic()
                done = dict(chaos.done) if chaos else {}
                print(f"  {told - began:4.0f} s: {view.request_counts.model_dump()} {done}", flush=True)
    raise TimeoutError(f"job {job_id} did not end within {BUDGET:.0f} s")


def read_rows(store: Store, view: JobView) -> list[Record]:
    """All rows of the job's final parts, without the fields that differ between runs."""
    # the chunks follow from the request and the shards' summaries
    request = JobRequest.model_validate_json(store.read_job_file(view.id, "request") or b"")
    kept = ShardSummaries.model_validate_json(store.read_job_file(view.id, "shards") or b"")
    chunks = [chunk for summary in kept.shards for chunk in request.chunks(summary, FINAL_GROUP)]
    return [row.model_copy(update={"seconds": {}}) for chunk in chunks for row in store.read_records(chunk)]


def bundled_as_well(store: Store, view: JobView, rows: list[Record]) -> bool:
    """Bundle all parts; whether the rows stay the same, and a plain Parquet reader finds as many."""
    locks.LOCK_SECONDS = 2.0  # of a bucket, where a compaction was killed
    time.sleep(5)
    compaction = Compaction(store)
    done = compaction.run(list(compaction.plans()), undo=False, advance=lambda _: None)
    plain = pyarrow.dataset.dataset(store.path("parts", "llm"), format="parquet", filesystem=store.fs).count_rows()
    same = read_rows(store, view) == rows
    print(f"{done.files} files into {done.bundles} bundles: {plain} rows for a plain reader, the same rows: {same}")
    return same and plain == len(rows) and not done.busy


def compare(expected: list[Record], found: list[Record]) -> tuple[int, int, int]:
    """Count rows that are lost, doubled, or wrong (not as expected), by shard and key."""

    def name(row: Record) -> tuple[str, str]:
        return row.image.uri, row.key

    # compare by shard and key
    times = Counter(map(name, found))
    wanted = {name(row): row for row in expected}
    lost = sum(key not in times for key in wanted)
    doubled = sum(n - 1 for n in times.values())
    wrong = sum(name(row) not in wanted or row != wanted[name(row)] for row in found)
    return lost, doubled, wrong


def run(folder: Path, images: int, seed: int, s3: S3 | None, disk: Path | None) -> int:
    """Do both runs and compare them; return the exit code."""
    print(f"seed {seed}: {images} images in shards of {SHARD}", flush=True)
    # 1. an undisturbed run gives the expected rows
    shards, bad = make_shards(folder / "shards", images)
    base: dict[str, str] = {"STRATA_LEASE_SECONDS": str(LEASE), "STRATA_HIGH_WATER": "20"}
    with Fleet(folder / "calm", str(folder / "shards"), WORKERS, base) as fleet:
        expected_view = run_job(fleet, shards)
        expected = read_rows(Store(fleet.store), expected_view)
    print(f"undisturbed: {expected_view.status}, {expected_view.request_counts.model_dump()}", flush=True)
    if expected_view.request_counts.failed != bad:
        print(f"{bad} images are bad, and the undisturbed run failed {expected_view.request_counts.failed}")
        return 1
    # 2. the same job with slower workers, disturbed
    settings = base | (s3.settings("chaos") if s3 else {})
    # the job must last longer than the events: two vision workers, and half of the time lost by disturbances
    pauses = (2.0, 5.0)
    seconds = sum(KILLS.values()) * sum(pauses) / 2 / images
    slow = [[*arguments, "--seconds", f"{seconds:.4f}"] for arguments in WORKERS]
    home = (disk or folder) / "chaos"
    with Fleet(home, str(folder / "shards"), slow, settings) as fleet:
        chaos = Chaos(fleet, seed, disk, pauses)
        try:
            view = run_job(fleet, shards, chaos)
        finally:
            chaos.compaction.end()
        if s3:
            os.environ.update(s3.environment)
        found = read_rows(Store(fleet.store), view)
        whole = bundled_as_well(Store(fleet.store), view, found)
    return report(view, chaos, expected, found) or int(not whole)


def report(view: JobView, chaos: Chaos, expected: list[Record], found: list[Record]) -> int:
    """Print the result; return the exit code."""
    # the job's own counts must agree with the rows
    lost, doubled, wrong = compare(expected, found)
    counts = view.request_counts
    adds_up = counts.total == counts.succeeded + counts.failed == len(found) and view.status == "completed"
    if not adds_up:
        print(f"the counts do not add up: {view.model_dump_json()}")
    # the run is valid only if all planned events happened
    kills = [chaos.done[name] for name in ("worker", "redis", "api", "stop", "compaction")]
    enough = not chaos.left
    full = f", disk full {chaos.done['disk']} time" if chaos.disk else ", no disk of its own to fill"
    print(f"{view.status}: {counts.model_dump()}, events left {len(chaos.left)}{full}")
    print(f"lost {lost} doubled {doubled} wrong {wrong} of {len(expected)}, kills {'/'.join(map(str, kills))}")
    return 0 if adds_up and enough and not (lost or doubled or wrong) else 1


def in_namespace(arguments: list[str]) -> int:
    """Run the same command in a new mount namespace, where a small disk can be mounted without privileges."""
    rights = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    return subprocess.call(["unshare", *rights, sys.executable, "-m", "bench.chaos", "--mounted", *arguments])


def mount(folder: Path) -> Path:
    """Mount a small file system in memory. Raises OSError if that is not permitted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)],
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise OSError(errno.EPERM, done.stderr.strip())
    return folder


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=10_000 - 64)
    parser.add_argument("--s3", action="store_true", help="the store is an S3 server (moto); no disk is filled")
    parser.add_argument("--mounted", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # restart this program in a namespace of its own, to be able to fill a disk
    can_mount = not options.s3 and subprocess.run(["unshare", "--user", "--mount", "true"]).returncode == 0
    if can_mount and not options.mounted:
        sys.exit(in_namespace(sys.argv[1:]))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        disk = mount(folder / "disk") if options.mounted else None
        stack.callback(lambda: disk and subprocess.run(["umount", "-l", str(disk)]))
        s3: Any = stack.enter_context(s3_server()) if options.s3 else None
        code = run(folder, options.images, options.seed, s3, disk)
    sys.exit(code)


if __name__ == "__main__":
    main()
