"""What both commands share: shards of tiny images, a profile of small chunks, and waiting for jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from bench.inputs.tiny_shards import write_shard
from bench.processes import BENCH_PROFILES, Fleet
from strata.client import ApiError, Client
from strata.core import JobView

WORKERS = (["--groups", "index,vision"], ["--groups", "vision"], ["--groups", "llm"])
SHARD = 256  # images
CHUNK = 32  # images: small, so that many chunks are in flight when something is done
LEASE = 2.0  # seconds
BUDGET = 300.0  # seconds for one job


def prepared(folder: Path, images: int) -> tuple[list[str], dict[str, str]]:
    """Write shards and the profile; the shards' paths, and the settings of a fleet."""
    for first in range(0, images, SHARD):
        write_shard(folder / "shards" / f"{first // SHARD:05d}.tar", first, min(SHARD, images - first))
    profiles = folder / "profiles"
    profiles.mkdir()
    text = (BENCH_PROFILES / "fake.toml").read_text(encoding="utf-8")
    for name, number in (("chunk_size", CHUNK), ("micro_batch", CHUNK)):
        before, _, after = text.partition(f"{name} = ")
        text = f"{before}{name} = {number}\n{after.partition(chr(10))[2]}"
    (profiles / "fake.toml").write_text(text, encoding="utf-8")
    settings = {"STRATA_LEASE_SECONDS": str(LEASE), "STRATA_PROFILES_DIR": str(profiles)}
    return sorted(map(str, (folder / "shards").glob("*.tar"))), settings


def slow_workers(seconds: float) -> list[list[str]]:
    """WORKERS that take so many seconds for an image in each group."""
    return [[*one, "--seconds", str(seconds)] for one in WORKERS]


def followed(
    fleet: Fleet, job_ids: Sequence[str], look: Callable[[list[JobView]], None] | None = None
) -> list[JobView]:
    """The jobs when all have ended; look is called with them several times a second. Raises TimeoutError."""
    until = time.monotonic() + BUDGET
    while time.monotonic() < until:
        time.sleep(0.1)
        fleet.server.ensure_running()
        with suppress(httpx.HTTPError, ApiError), Client(fleet.url, timeout=10) as client:
            views = [client.job(job_id) for job_id in job_ids]
            if look is not None:
                look(views)
            if all(view.status.final for view in views):
                return views
    raise TimeoutError(f"not all of the jobs {', '.join(job_ids)} ended within {BUDGET:.0f} s")


def adds_up(views: Sequence[JobView], rows: int) -> bool:
    """Whether all jobs are completed without a failed image, and have as many images as rows were read."""
    counts = [view.request_counts for view in views]
    good = all(view.status == "completed" and not view.request_counts.failed for view in views)
    return good and sum(one.total for one in counts) == sum(one.succeeded for one in counts) == rows
