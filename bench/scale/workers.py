"""Measure images/s for several numbers of workers, with stages that only wait (`bench.fakes.worker --seconds`).

The size of each job is in proportion to its workers, so that a job's fixed costs have equal weight. Waiting uses no
CPU: only the service itself can keep the rates from growing in proportion.
"""

from __future__ import annotations

import time
from pathlib import Path

from bench.inputs.tiny_shards import write_shard
from bench.processes import Fleet
from strata.client import Client

COUNTS = (1, 2, 16)
SECONDS = 0.05  # an image in each group: so long that 16 processes leave 2 cores idle
CHUNK = 32  # images, as in profiles/waiting.toml; the real profiles have 500
CHUNKS = 60  # a worker


def scaling(folder: Path) -> dict[str, float]:
    """The images/s for each number of workers, and their ratios to one worker."""
    figures: dict[str, float] = {}
    rates = {count: _rate(folder / f"{count}", count) for count in COUNTS}
    for count, rate in rates.items():
        figures[f"{count} worker processes that wait, images/s"] = rate
    return figures | {f"{count} worker processes over one": rates[count] / rates[1] for count in COUNTS[1:]}


def _rate(folder: Path, workers: int) -> float:
    """The images/s from submission to completion; all workers are ready before."""
    shards, images = [], CHUNK * CHUNKS
    for number in range(workers):
        # a shard for each worker, so that the work is in proportion
        path = folder / "shards" / f"{number:05d}.tar"
        write_shard(path, number * images, images)
        shards.append(str(path))
    print(f"{workers} worker processes: {workers * images} images", flush=True)
    arguments = [["--seconds", str(SECONDS)]] * workers
    with Fleet(folder, str(folder / "shards"), arguments, {"STRATA_PROFILE": "waiting"}) as fleet:
        fleet.wait_ready()
        with Client(fleet.url) as client:
            began = time.monotonic()
            view = client.wait(client.submit(shards, profile="waiting").id, poll=0.1)
            seconds = time.monotonic() - began
    if view.request_counts.succeeded != workers * images:
        raise RuntimeError(f"the job ended otherwise than it should: {view.model_dump_json()}")
    return workers * images / seconds
