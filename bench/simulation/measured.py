"""Runs of the service whose stages only wait: their rate, and the CPU that Redis, API and workers use for a chunk."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
from PIL import Image
from sklearn.datasets import load_sample_image

from bench.inputs.tiny_shards import write_shard
from bench.processes import BENCH_PROFILES, Fleet
from bench.simulation.model import Line, Parts, steady
from strata.client import Client
from strata.images import decode

PHOTOGRAPH = (500, 375)  # pixels
DECODED = 50  # photographs


@dataclass(frozen=True)
class Measured:
    """A run. rate: chunks/s without start and end; CPU seconds that its processes used for one chunk."""

    rate: float
    redis: float
    api: float
    worker: float


def measure(folder: Path, workers: int, chunk: int, chunks: int, seconds: float) -> Measured:
    """Run a job of so many chunks for each worker, of `chunk` images. seconds: that each image waits, in each group."""
    profiles = _profiles(folder / "profiles", chunk)
    shards = []
    for number in range(workers):
        path = folder / "shards" / f"{number:05d}.tar"
        write_shard(path, number * chunk * chunks, chunk * chunks)
        shards.append(str(path))
    arguments = [["--seconds", str(seconds)]] * workers
    settings = {"STRATA_PROFILE": "waiting", "STRATA_PROFILES_DIR": str(profiles)}
    with Fleet(folder, str(folder / "shards"), arguments, settings) as fleet:
        fleet.wait_ready(600)
        with Client(fleet.url) as client:
            pids = [fleet.server.pid or 0, fleet.api.pid, *(worker.pid for worker in fleet.workers)]
            before = [_cpu(pid) for pid in pids]
            view = client.wait(client.submit(shards, profile="waiting").id, poll=2.0)
            redis, api, *rest = (_cpu(pid) - one for pid, one in zip(pids, before, strict=True))
    if view.request_counts.succeeded != workers * chunks * chunk:
        raise RuntimeError(f"the job ended otherwise than it should: {view.model_dump_json()}")
    times = [part.stat().st_mtime for part in Path(fleet.store).glob("parts/llm/**/*.parquet")]
    count = workers * chunks
    return Measured(steady(times), redis / count, api / count, sum(rest) / count)


def parts_of(small: tuple[int, Measured], large: tuple[int, Measured], seconds: float) -> Parts:
    """The costs of any chunk, from runs of one worker with two sizes of chunks.

    A worker's cycle is its stage and what it does while it computes nothing, the finish; the rest of its CPU is spent
    while the chunk before is computed.
    """
    finish, prepare = [], []
    for images, run in (small, large):
        wait = max(0.0, 1 / run.rate - images * seconds)
        finish.append((images, wait))
        prepare.append((images, max(0.0, run.worker - wait)))
    (few, one), (many, other) = small, large
    return Parts(
        prepare=Line.through(*prepare),
        finish=Line.through(*finish),
        redis=Line.through((few * seconds, one.redis), (many * seconds, other.redis)),
        scheduler=Line.through((few * seconds, one.api), (many * seconds, other.api)),
    )


def photograph_seconds() -> float:
    """The CPU seconds that decoding a JPEG of 500 by 375 pixels takes."""
    width, height = PHOTOGRAPH
    pixels, buffer = load_sample_image("china.jpg")[:height, :width], io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=90)
    began = time.process_time()
    for _ in range(DECODED):
        decode(buffer.getvalue(), width * height)
    return (time.process_time() - began) / DECODED


def _profiles(folder: Path, chunk: int) -> Path:
    """A folder with the profile `waiting`, in chunks of so many images."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (BENCH_PROFILES / "waiting.toml").read_text(encoding="utf-8")
    changed = [f"chunk_size = {chunk}" if line.startswith("chunk_size") else line for line in text.splitlines()]
    (folder / "waiting.toml").write_text("\n".join(changed) + "\n", encoding="utf-8")
    return folder


def _cpu(pid: int) -> float:
    """The CPU seconds of a process and its children."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))
