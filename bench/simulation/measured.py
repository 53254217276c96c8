"""Runs of the service whose stages only wait: their rate, and the CPU that Redis, API and workers use for a chunk."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
from PIL import Image
from scipy.optimize import nnls
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
    """Run a job of so many chunks for each worker, of `chunk` images. seconds: that each image waits, in each group.

    A small job before it is not counted: in it the processes start that decode.
    """
    profiles = _profiles(folder / "profiles", chunk)
    warm_up = _shards(folder / "shards" / "warm-up", workers, 2 * chunk)
    shards = _shards(folder / "shards" / "measured", workers, chunk * chunks)
    arguments = [["--seconds", str(seconds)]] * workers
    settings = {"STRATA_PROFILE": "waiting", "STRATA_PROFILES_DIR": str(profiles)}
    with Fleet(folder, str(folder / "shards"), arguments, settings) as fleet:
        fleet.wait_ready(600)
        with Client(fleet.url) as client:
            client.wait(client.submit(warm_up, profile="waiting").id, poll=0.5)
            pids = [fleet.server.pid or 0, fleet.api.pid, *(worker.pid for worker in fleet.workers)]
            before, began = [_cpu(pid) for pid in pids], time.time()
            view = client.wait(client.submit(shards, profile="waiting").id, poll=2.0)
            redis, api, *rest = (_cpu(pid) - one for pid, one in zip(pids, before, strict=True))
    count = workers * chunks
    if view.request_counts.succeeded != count * chunk:
        raise RuntimeError(f"the job ended otherwise than it should: {view.model_dump_json()}")
    times = [part.stat().st_mtime for part in Path(fleet.store).glob("parts/llm/**/*.parquet")]
    return Measured(steady([at for at in times if at > began]), redis / count, api / count, sum(rest) / count)


def _shards(folder: Path, workers: int, images: int) -> list[str]:
    """A shard of so many images for each worker."""
    paths = [folder / f"{number:05d}.tar" for number in range(workers)]
    for number, path in enumerate(paths):
        write_shard(path, number * images, images)
    return [str(path) for path in paths]


def parts_of(runs: Mapping[tuple[int, int], Measured], seconds: float) -> Parts:
    """The costs of any chunk, from runs by workers and images of a chunk; two of them have one worker.

    These two tell what a chunk and an image cost a worker. Its cycle is its stage and what it does while it computes
    nothing, the finish; the rest of its CPU is spent while the chunk before is computed. What Redis and the scheduler
    cost for a chunk and for a second is the non-negative fit (least squares) of all runs.
    """
    finish, prepare = [], []
    for images, run in sorted((chunk, run) for (workers, chunk), run in runs.items() if workers == 1):
        wait = max(0.0, 1 / run.rate - images * seconds)
        finish.append((images, wait))
        prepare.append((images, max(0.0, run.worker - wait)))
    return Parts(
        prepare=Line.through(prepare[0], prepare[-1]),
        finish=Line.through(finish[0], finish[-1]),
        redis=_fit([(run.rate, workers, run.redis * run.rate) for (workers, _), run in runs.items()]),
        scheduler=_fit([(run.rate, 1, run.api * run.rate) for run in runs.values()]),
    )


def _fit(rows: Sequence[tuple[float, float, float]]) -> Line:
    """The costs of a chunk and of a second, from (chunks/s, how often a second counts, CPU seconds a second)."""
    table = np.array(rows)
    (fixed, each), _ = nnls(table[:, :2], table[:, 2])
    return Line(float(fixed), float(each))


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
