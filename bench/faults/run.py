"""`python -m bench.faults.run --seed 1`: run jobs of 2,000 images while faults are injected, and compare every row.

1,936 images have fake stages and a chat server as their composer; 64 have the demo's vision models. Injected are CUDA
errors that stay in the process, out of memory, a stage that ends its process, one that hangs, also with the
interpreter's lock, an image that hangs in every process, an error in building a pipeline; a chat server's 401, 404,
429, 500, garbage and half responses; a store of which half of the calls fail, and a full disk; Redis that is read-only,
loads, or is killed; a truncated part and one with a flipped bit; a worker whose clock is an hour off; SIGKILL and
SIGSTOP; and all processes killed at once and started again.

The last line is `lost L doubled D false F of N, faults M of K kinds`. False are rows that differ from those of an
undisturbed run in anything but seconds and usage (a response that was lost is paid for, and its cost is told). Floats
may differ by 0.001, because models compute them in batches of other sizes. The image that hangs must be the only failed
row, and say why. The exit code is 0 if these three are 0.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import fsspec
import httpx

from bench.chaos import DEMO_SHARD, read_rows
from bench.faults.chat import chat_server
from bench.faults.orders import VARIABLE, Orders
from bench.faults.schedule import CLOCK_OFF, KINDS, Schedule
from bench.faults.stages import HANG_IMAGE
from bench.faults.store import FaultyFileSystem
from bench.inputs.s3_server import S3, s3_server
from bench.inputs.tiny_shards import plain_image, write_shard
from bench.processes import BENCH_PROFILES, PYTHONPATH, Fleet
from strata.client import ApiError, Client
from strata.core import LAYERS, JobStatus, JobView, Record, Status
from strata.store import Store
from workers.watchdog import TIME_LIMIT

DEMO_IMAGES = 64
SHARD = 500  # images
LEASE = 2.0  # seconds
BUDGET = 600.0  # seconds for one run
TOLERANCE = 1e-3  # of floats
WORK_SECONDS = 20.0  # that each stage takes for all images together: the work must outlast the faults
HANG_SECONDS = 10.0  # STRATA_HANG_SECONDS: a call of these stages takes less than a second
HANGING = 5  # the number of the image that hangs if the schedule has that kind
HOUR = 3600.0
PAUSES = (3.0, 6.0)  # seconds between two faults, least and most
WORKER = "bench.faults.worker"
WORKERS = (["--groups", "index,vision"], ["--groups", "vision"], ["--groups", "llm"])
MODEL_PROFILES = Path(__file__).resolve().parents[2] / "models" / "profiles"
_COMPOSER = """
[stages.composer]
backend = "openai"
model = "server:{url}"
revision = "1"

[stages.composer.parameters]
served_model = "fake"
prompt = "small"
prompt_sha256 = "{sha256}"
retries = 2
timeout = 10
"""


def write_profiles(folder: Path, chat_url: str) -> None:
    """Write the profiles `faults`, with fake stages, and `faults-demo`, with the demo's; both ask the chat server."""
    folder.mkdir(parents=True)
    demo = (MODEL_PROFILES / "demo.toml").read_text(encoding="utf-8")
    sha256 = tomllib.loads(demo)["stages"]["composer"]["parameters"]["prompt_sha256"]
    composer = _COMPOSER.format(url=chat_url, sha256=sha256)
    fake = (BENCH_PROFILES / "fake.toml").read_text(encoding="utf-8").partition("[stages.composer]")[0]
    fake = fake.replace("chunk_size = 256", "chunk_size = 64").replace("micro_batch = 32", "micro_batch = 16")
    stages = "".join(
        f'[stages.{name}]\nbackend = "fake"\nmodel = "builtin:fake"\nrevision = "1"\n\n'
        for name in ("detector", "segmenter", "ocr", "matcher")
    )
    (folder / "faults.toml").write_text(f"{fake}\n{stages}{composer}", encoding="utf-8")
    vision = demo.partition("[stages.composer]")[0]
    (folder / "faults-demo.toml").write_text(f"{vision}{composer}", encoding="utf-8")


def submit(client: Client, shards: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Submit one job for each profile; their ids. Repeating it is harmless."""
    return [client.submit(paths, profile=profile, idempotency_key=f"faults-{profile}").id for profile, paths in shards]


def run_jobs(fleet: Fleet, shards: Sequence[tuple[str, list[str]]], schedule: Schedule | None = None) -> list[JobView]:
    """Submit the jobs, cause faults, and wait until all have ended. Raises TimeoutError.

    A job that ended as failed is retried, as its owner would when the reason (a key that was refused) is mended.
    """
    fleet.wait_ready(BUDGET / 2)
    began = told = time.monotonic()
    ids: list[str] = []
    works = False
    while time.monotonic() - began < BUDGET:
        time.sleep(0.1)
        schedule.beat() if schedule and works else fleet.look_after()
        with suppress(httpx.HTTPError, ApiError), Client(fleet.url, timeout=5) as client:
            ids = ids or submit(client, shards)
            views = [client.job(job_id) for job_id in ids]
            for view in views:
                if view.status is JobStatus.FAILED:
                    print(f"  job failed, and is retried: {view.error}", flush=True)
                    client.retry(view.id)
            works = works or any(view.groups["vision"].images for view in views)
            over = schedule is None or schedule.is_over()
            if over and all(view.status is JobStatus.COMPLETED for view in views):
                return views
            if time.monotonic() - told > 10:
                told = time.monotonic()
                _tell(told - began, views, schedule)
    raise TimeoutError(f"the jobs did not end within {BUDGET:.0f} s")


def _tell(seconds: float, views: Sequence[JobView], schedule: Schedule | None) -> None:
    counts: Counter[str] = Counter()
    for view in views:
        counts.update(view.request_counts.model_dump())
    waiting = [waiting.reason for view in views if (waiting := view.waiting)]
    left = len(schedule.left) if schedule else 0
    print(f"  {seconds:4.0f} s: {dict(counts)}, faults left {left}, {waiting or ''}", flush=True)


def verify(fleet: Fleet, views: Sequence[JobView]) -> list[JobView]:
    """Check every part of the jobs, as `strata verify` does, and wait until broken ones are computed again."""
    ours = {"PYTHONPATH": PYTHONPATH, "STRATA_URL": fleet.url, "REDIS_URL": fleet.server.url}
    environment = {**os.environ, **fleet.settings, **ours}
    for view in views:
        command = [sys.executable, "-m", "strata", "verify", view.id]
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
        print(f"  strata verify: exit code {done.returncode}, {' '.join(done.stdout.split())[:200]}", flush=True)
    return run_jobs_again(fleet, views)


def run_jobs_again(fleet: Fleet, views: Sequence[JobView]) -> list[JobView]:
    """Wait until the jobs have ended again. Raises TimeoutError."""
    until = time.monotonic() + BUDGET / 2
    while time.monotonic() < until:
        fleet.look_after()
        time.sleep(0.2)
        with suppress(httpx.HTTPError, ApiError), Client(fleet.url, timeout=5) as client:
            found = [client.job(view.id) for view in views]
            if all(view.status.final for view in found):
                return found
    raise TimeoutError("the jobs did not end again after the check of their parts")


def differs(row: Any, expected: Any) -> bool:
    """Whether two rows, as JSON values, differ by more than TOLERANCE in a float or at all in anything else."""
    if isinstance(row, float) and isinstance(expected, float):
        return abs(row - expected) > TOLERANCE
    if isinstance(row, dict) and isinstance(expected, dict):
        return row.keys() != expected.keys() or any(differs(row[key], expected[key]) for key in row)
    if isinstance(row, list) and isinstance(expected, list):
        return len(row) != len(expected) or any(map(differs, row, expected))
    return bool(row != expected)


def compare(expected: Sequence[Record], found: Sequence[Record]) -> tuple[int, int, int]:
    """Count rows that are lost, doubled or false, by shard and key."""

    def content(row: Record) -> dict[str, Any]:
        # how many seconds a call may take depends on what others have taken
        detail: Any = {"detail"} if row.failure and row.failure.error_type == TIME_LIMIT else set()
        return row.model_dump(mode="json", exclude={"seconds": True, "usage": True, "failure": detail})

    times = Counter((row.image.uri, row.key) for row in found)
    wanted = {(row.image.uri, row.key): content(row) for row in expected}
    lost = sum(name not in times for name in wanted)
    doubled = sum(n - 1 for n in times.values())
    false = [row for row in found if differs(content(row), wanted.get((row.image.uri, row.key)))]
    for row in false[:5]:
        print(f"  false: {row.key} {row.status} {row.failure} {row.description}", flush=True)
    return lost, doubled, len(false)


def as_it_hangs(row: Record) -> Record:
    """The expected row of an image if that of HANGING hangs in every process: what is left of it, and why."""
    if row.key != f"{HANGING:09d}" or not row.image.uri.endswith("/00000.tar"):
        return row
    layers = [name for name, layer in LAYERS.items() if layer.stage]
    seen = row.model_copy(update=dict.fromkeys((*layers, "width", "height")))
    return seen.failed("captioner", TIME_LIMIT, "")


def write_shards(folder: Path, images: int) -> list[tuple[str, list[str]]]:
    """Write the shards; the paths for each profile."""
    for first in range(0, images - DEMO_IMAGES, SHARD):
        count = min(SHARD, images - DEMO_IMAGES - first)
        write_shard(folder / f"{first // SHARD:05d}.tar", first, count, {HANGING: plain_image((255, 0, 0))})
    fake = sorted(str(path) for path in folder.glob("0*.tar"))
    (folder / "demo.tar").write_bytes(DEMO_SHARD.read_bytes())
    return [("faults", fake), ("faults-demo", [str(folder / "demo.tar")])]


def rows_of(fleet: Fleet, views: Sequence[JobView]) -> list[Record]:
    """All rows of the jobs."""
    return [row for view in views for row in read_rows(Store(fleet.store), view)]


def run(folder: Path, images: int, seed: int, kinds: Sequence[str], s3: S3 | None) -> int:
    """Run the jobs undisturbed and disturbed, and compare; returns the exit code."""
    shards, orders = write_shards(folder / "shards", images), Orders(folder / "orders")
    with chat_server(orders) as chat:
        write_profiles(folder / "profiles", chat.url)
        base = {
            "STRATA_LEASE_SECONDS": str(LEASE),
            "STRATA_HANG_SECONDS": str(HANG_SECONDS),
            "STRATA_PROFILES_DIR": str(folder / "profiles"),
            "STRATA_PROFILE": "faults",
            VARIABLE: str(folder / "orders"),
            "OMP_NUM_THREADS": "1",  # the workers import torch before they read their settings
        }
        # 1. an undisturbed run gives the expected rows
        with Fleet(folder / "calm", str(folder / "shards"), WORKERS, base, WORKER) as fleet:
            expected = rows_of(fleet, run_jobs(fleet, shards))
        print(f"undisturbed: {dict(Counter(str(row.status) for row in expected))}", flush=True)
        # 2. the same jobs with slower workers, one with a wrong clock, on a store that fails, disturbed
        disturbed = folder / "disturbed"
        store = s3.settings("faults") if s3 else {"STRATA_STORE": f"faulty://{disturbed}/store"}
        os.environ.update(s3.environment if s3 else {})
        workers = [[*arguments, "--seconds", str(WORK_SECONDS / images)] for arguments in WORKERS]
        workers[1] += ["--clock", str(HOUR)]
        with Fleet(disturbed, str(folder / "shards"), workers, base | store, WORKER) as fleet:
            schedule = Schedule(fleet, orders, disturbed / "store", seed, kinds, PAUSES)
            views = verify(fleet, run_jobs(fleet, shards, schedule))
            found = rows_of(fleet, views)
    return report(expected, found, views, schedule, kinds)


def report(
    expected: list[Record], found: list[Record], views: list[JobView], schedule: Schedule, kinds: Sequence[str]
) -> int:
    """Print the result; returns the exit code."""
    hangs = HANG_IMAGE in kinds
    lost, doubled, false = compare([as_it_hangs(row) if hangs else row for row in expected], found)
    # the jobs' own counts must agree with their rows
    counts = sum((Counter(view.request_counts.model_dump()) for view in views), Counter[str]())
    adds_up = counts["succeeded"] == sum(row.status is Status.SUCCEEDED for row in found) == len(expected) - hangs
    if not adds_up:
        print(f"the counts do not add up: {[view.model_dump_json() for view in views]}")
    caused = schedule.caused()
    done = {*caused, CLOCK_OFF}
    print(f"{[str(view.status) for view in views]}: {dict(counts)}, {dict(caused)}")
    number, of = sum(caused.values()) + 1, len({*kinds, CLOCK_OFF})
    print(f"lost {lost} doubled {doubled} false {false} of {len(expected)}, faults {number} of {len(done)} kinds")
    return 0 if adds_up and len(done) == of and not (lost or doubled or false) else 1


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kinds", help="kinds of faults, separated by commas; by default all")
    parser.add_argument("--s3", action="store_true", help="the store is an S3 server (moto), without faults of its own")
    parser.add_argument("--keep", type=Path, help="a new folder for shards, stores and logs, which is kept")
    options = parser.parse_args()
    kinds = options.kinds.split(",") if options.kinds else [kind for kind, n in KINDS.items() for _ in range(n)]
    if options.s3:
        kinds = [kind for kind in kinds if not kind.startswith(("part_", "store_", "disk_"))]
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        fsspec.register_implementation("faulty", FaultyFileSystem)
        s3 = stack.enter_context(s3_server()) if options.s3 else None
        code = run(folder, options.images, options.seed, kinds, s3)
    sys.exit(code)


if __name__ == "__main__":
    main()
