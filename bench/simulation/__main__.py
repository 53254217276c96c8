"""`python -m bench.simulation`: what 64 and 512 GPUs would do, and what gives first.

First the costs of a chunk are measured with one worker whose stage only waits; then the simulation has to tell the
rates of 2, 4, 8 and 16 workers on this machine, which are measured too: their ratios stand beside each other. Then the
same costs are taken for machines with eight GPUs, for stages as fast as `--rates` images/s on a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from bench.inputs.tiny_shards import write_shard
from bench.processes import Fleet
from bench.simulation.model import Costs, Simulation, Site, larger
from strata.client import Client

CHUNK = 32  # images, as in profiles/waiting.toml
SECONDS = 0.05  # an image
CHUNKS = 40  # a worker
GPUS_A_MACHINE, CORES_A_MACHINE = 8, 64
REAL_CHUNK = 500  # images, as in the real profiles


@dataclass(frozen=True)
class Measured:
    """A run: chunks/s, and the CPU seconds that its processes used for one chunk."""

    rate: float
    redis: float
    api: float
    worker: float


def measure(folder: Path, workers: int) -> Measured:
    """Run a job whose size is in proportion to its workers."""
    shards, images = [], CHUNK * CHUNKS
    for number in range(workers):
        path = folder / "shards" / f"{number:05d}.tar"
        write_shard(path, number * images, images)
        shards.append(str(path))
    arguments = [["--seconds", str(SECONDS)]] * workers
    with Fleet(folder, str(folder / "shards"), arguments, {"STRATA_PROFILE": "waiting"}) as fleet:
        fleet.wait_ready(600)
        with Client(fleet.url) as client:
            pids = [fleet.server.pid or 0, fleet.api.pid, *(worker.pid for worker in fleet.workers)]
            before, began = list(map(_cpu, pids)), time.monotonic()
            view = client.wait(client.submit(shards, profile="waiting").id, poll=0.2)
            seconds = time.monotonic() - began
            redis, api, *rest = (after - one for after, one in zip(map(_cpu, pids), before, strict=True))
    chunks = workers * CHUNKS
    if view.request_counts.succeeded != chunks * CHUNK:
        raise RuntimeError(f"the job ended otherwise than it should: {view.model_dump_json()}")
    return Measured(chunks / seconds, redis / chunks, api / chunks, sum(rest) / chunks)


def _cpu(pid: int) -> float:
    """The CPU seconds of a process and its children."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def costs_of(one: Measured) -> Costs:
    """The costs of a chunk, from a run with one worker: what its cycle is longer than its stage is its finish."""
    stage = CHUNK * SECONDS
    finish = max(0.0, 1 / one.rate - stage)
    return Costs(stage, max(0.0, one.worker - finish), finish, one.redis, one.api)


def told(costs: Costs, workers: int) -> float:
    """The simulated chunks/s of this machine."""
    site = Site(workers, workers, os.cpu_count() or 1, own_machine=False)
    return Simulation(costs, site, workers * CHUNKS).run().rate


def checked(folder: Path, counts: list[int]) -> tuple[Costs, Table]:
    """The costs, and a table of what was told and what was measured."""
    table = Table("workers", "measured, images/s", "simulated", "simulated over measured")
    one = measure(folder / "1", 1)
    costs = costs_of(one)
    print(f"a chunk of {CHUNK} images: {costs}", file=sys.stderr)
    for workers in counts:
        rate = measure(folder / str(workers), workers).rate
        simulated = told(costs, workers)
        table.add_row(str(workers), f"{rate * CHUNK:.1f}", f"{simulated * CHUNK:.1f}", f"{simulated / rate:.3f}")
    return costs, table


def scaled(costs: Costs, rates: list[float], gpus: list[int]) -> Table:
    """What many GPUs do at so many images/s each."""
    table = Table("images/s of a GPU", "GPUs", "images/s", "of ideal", "Redis busy", "scheduler busy", "busiest")
    for rate in rates:
        for count in gpus:
            site = Site(count, GPUS_A_MACHINE, CORES_A_MACHINE, own_machine=True)
            # a chunk of 500 costs its images' share more to prepare and to write, the rest once
            share = REAL_CHUNK / CHUNK
            bigger = Costs(0, costs.prepare * share, costs.finish * share, costs.redis, costs.scheduler)
            outcome = Simulation(larger(bigger, REAL_CHUNK / rate), site, count * 40).run()
            images = outcome.rate * REAL_CHUNK
            table.add_row(
                f"{rate:g}",
                str(count),
                f"{images:,.0f}",
                f"{images / (rate * count):.3f}",
                f"{outcome.redis:.2%}",
                f"{outcome.scheduler:.2%}",
                outcome.first,
            )
    return table


def main() -> None:
    """Measure, check, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="2,4,8,16", help="numbers of workers that are measured")
    parser.add_argument("--rates", default="3.32,25,500", help="images/s of one GPU")
    parser.add_argument("--gpus", default="8,64,512")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strata-simulation-") as work:
        costs, table = checked(Path(work), [int(one) for one in options.workers.split(",")])
    Console().print(table)
    rates, gpus = (
        [kind(one) for one in text.split(",")] for kind, text in ((float, options.rates), (int, options.gpus))
    )
    Console().print(scaled(costs, rates, [int(one) for one in gpus]))


if __name__ == "__main__":
    main()
