"""`python -m bench.throughput`: the service compared with the same stages in a bare loop; latency of single images.

In one run, on one machine: seconds from `strata serve` to ready; the bundled shard as a job, first time; the same
stages called in a bare loop of one process with all cores (what a user would write without Strata); the shard a second
time; and single images through `POST /v1/captions` with `Prefer: wait` while nothing else runs, and while a job does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from samples.service import running_service
from samples.shards import ShardOptions, encode_sample, write_shards
from strata.client import Client
from strata.core import Record

SHARD = Path(__file__).resolve().parent.parent / "samples" / "shards" / "00000.tar"
FIRST_SEED = 4_000_000
SINGLES_BESIDE = 1000  # first seed of the single images during a job, which must not have been described before
BULK_IMAGES = 480
MICRO_BATCH = 16  # of the demo profile


def bare_loop(threads: int) -> float:
    """The images/s of the bundled shard through both pipelines with warm models, in a separate process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "STRATA_THREADS": str(threads)}
    command = [sys.executable, "-m", "bench.throughput", "--bare"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, encoding="utf-8")
    return float(done.stdout.split()[-1])


def run_bare_loop() -> float:
    """The process of `bare_loop`: decode, vision, llm, one micro-batch after another, without queue and parts."""
    from models.items import ComposeRequest
    from models.pipeline import LlmPipeline, VisionPipeline
    from strata.core import ImageReference, Settings, load_profile
    from strata.images import decode

    settings = Settings()
    profile = load_profile("demo", settings.profiles_dir)
    vision, llm = VisionPipeline(profile), LlmPipeline(profile)
    # loading is not counted
    vision.load()
    llm.load()
    with tarfile.open(SHARD) as tar:
        images = [(m.name, tar.extractfile(m).read()) for m in tar if m.name.endswith(".jpg")]  # type: ignore[union-attr]
    started = time.perf_counter()
    # decode and compute one micro-batch after another
    for start in range(0, len(images), profile.micro_batch):
        batch = [
            (Record(key=name, image=ImageReference(uri=name, size=len(data))), decode(data, settings.max_pixels))
            for name, data in images[start : start + profile.micro_batch]
        ]
        llm.run([ComposeRequest(record) for record in vision.run(batch)])
    return len(images) / (time.perf_counter() - started)


def job_seconds(client: Client) -> tuple[float, int]:
    """The seconds from submission to completion, and the number of succeeded images."""
    started = time.perf_counter()
    job = client.submit([str(SHARD)])
    end = client.wait(job.id, poll=0.1)
    return time.perf_counter() - started, end.request_counts.succeeded


def single_images(client: Client, count: int, first: int = 0) -> tuple[list[float], dict[str, float]]:
    """The seconds of each request, and the median seconds of each stage."""
    seconds: list[float] = []
    stages: dict[str, list[float]] = defaultdict(list)
    for seed in range(first, first + count + 1):
        scene = make_scene(HELD_OUT_SEED + FIRST_SEED + seed, SceneOptions(min_objects=2, max_objects=5))
        data, _ = encode_sample(scene, f"{seed:09d}", seed)
        started = time.perf_counter()
        record = client.caption(data, wait=120)
        assert isinstance(record, Record), record
        if seed > first:  # the first one warms up
            seconds.append(time.perf_counter() - started)
            for stage, share in record.seconds.items():
                stages[stage].append(share)
    return seconds, {stage: statistics.median(values) for stage, values in stages.items()}


def p95(seconds: Sequence[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def singles_beside_a_job(client: Client, shard: str, count: int) -> dict[str, float]:
    """Latencies of single images while a job uses both groups; and the seconds of the job's micro-batches per group."""
    job = client.submit([shard])
    # wait until both groups are at work
    while not client.job(job.id).request_counts.succeeded:
        time.sleep(0.2)
    seconds, _ = single_images(client, count, first=SINGLES_BESIDE)
    # the measurement is valid only if the job is still running
    still = not client.job(job.id).status.final
    records = list(itertools.islice(client.results(job.id), MICRO_BATCH))
    client.cancel(job.id)
    # the composer's seconds are those of `llm`, the others those of `vision`
    llm = MICRO_BATCH * statistics.mean(record.seconds["composer"] for record in records)
    vision = MICRO_BATCH * statistics.mean(sum(record.seconds.values()) for record in records) - llm
    return {
        "one image beside a job, p50 seconds": statistics.median(seconds),
        "one image beside a job, p95 seconds": p95(seconds),
        "a micro-batch of the job in vision, seconds": vision,
        "a micro-batch of the job in llm, seconds": llm,
        "the job went on all the while": float(still),
    }


def measure(singles: int) -> dict[str, float]:
    """Measure all figures of one run."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as work:
        # a shard for the job that keeps the service busy
        bulk = Path(work) / "bulk"
        write_shards(bulk, ShardOptions(count=BULK_IMAGES, seed=FIRST_SEED + 100_000))
        roots = json.dumps([str(SHARD.parent), str(bulk)])
        started = time.perf_counter()
        with running_service(Path(work), SHARD.parent, shard_roots=roots, profile="demo") as client:
            figures["seconds from serve to ready"] = time.perf_counter() - started
            # 1. latency without other load
            seconds, stages = single_images(client, singles)
            figures["one image, p50 seconds"] = statistics.median(seconds)
            figures["one image, p95 seconds"] = p95(seconds)
            figures |= {f"of it in {stage}, median seconds": share for stage, share in stages.items()}
            # 2. the job, and the same again from its parts
            elapsed, images = job_seconds(client)
            figures["job, images"] = images
            figures["job, images/s"] = images / elapsed
            figures["the same shard again, seconds"] = job_seconds(client)[0]
            # 3. latency during a job; it may wait for one micro-batch in each group
            beside = singles_beside_a_job(client, str(bulk / "00000.tar"), singles)
            allowed = figures["one image, p95 seconds"] + sum(v for name, v in beside.items() if "micro-batch" in name)
            figures |= beside | {"allowed beside a job: p95 and a micro-batch in each group, seconds": allowed}
    # 4. the bare loop, after the service has ended
    for threads in (1, os.cpu_count() or 1):
        figures[f"bare loop, {threads} threads, images/s"] = bare_loop(threads)
    best = max(value for name, value in figures.items() if name.startswith("bare loop"))
    figures["job over the best bare loop"] = figures["job, images/s"] / best
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--singles", type=int, default=20)
    parser.add_argument("--bare", action="store_true", help="only the bare loop, with the threads of this process")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.bare:
        print(run_bare_loop())
        return
    figures = measure(options.singles)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f"| {name} | {value:.3f} |")


if __name__ == "__main__":
    main()
