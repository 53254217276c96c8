"""`python -m bench.simulation`: what 64 and 512 GPUs would do, and what gives first.

First the costs of a chunk are measured, with one worker whose stages only wait, for two sizes of chunks; that splits
what a worker does into what a chunk costs and what an image costs. Then the simulation has to tell the rates of other
numbers of workers and of a third size of chunks on this machine, which are measured too. Then the same costs are taken
for machines with eight GPUs and 64 cores, for chunks of 500 photographs of 500 by 375 pixels and stages as fast as
`--rates` images/s on a GPU. Redis and the scheduler have a machine of their own.

The simulated machine has no other work: on a busy one, run this with a high priority, as `nice -n -20` does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.simulation.measured import Measured, measure, parts_of, photograph_seconds
from bench.simulation.model import Parts, Simulation, Site
from bench.simulation.plot import plot
from bench.simulation.scale import Row, scaled

SIZES = (32, 128)  # images of a chunk, from which the costs follow
CHUNKS = 24  # a worker


class Bench:
    """The measured runs, each the median of `rounds`."""

    def __init__(self, folder: Path, rounds: int, seconds: float) -> None:
        self.folder, self.rounds, self.seconds = folder, rounds, seconds

    def all(self, cases: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Measured]:
        """Measure all cases (workers, images of a chunk) in turns, so that other load meets all of them."""
        found: dict[tuple[int, int], list[Measured]] = {case: [] for case in cases}
        for number in range(self.rounds):
            for (workers, chunk), runs in found.items():
                with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                    runs.append(measure(Path(folder), workers, chunk, CHUNKS, self.seconds))
                load = os.getloadavg()[0]
                print(f"round {number}: {workers} workers, {chunk}: {runs[-1]}, load {load:.1f}", file=sys.stderr)
        return {case: _median(runs) for case, runs in found.items()}


def _median(runs: Sequence[Measured]) -> Measured:
    names = ("rate", "redis", "api", "worker")
    return Measured(*(statistics.median(getattr(run, name) for run in runs) for name in names))


def told(parts: Parts, workers: int, chunk: int, seconds: float) -> float:
    """The simulated chunks/s of this machine."""
    site = Site(workers, workers, os.cpu_count() or 1, own_machine=False)
    return Simulation(parts.of(chunk, seconds), site, workers * CHUNKS).run().steady


def checked(found: dict[tuple[int, int], Measured], parts: Parts, seconds: float) -> Table:
    """What was measured, and what is told."""
    table = Table("workers", "images of a chunk", "images/s", "simulated", "simulated over measured", "of ideal")
    for (workers, chunk), run in found.items():
        simulated = told(parts, workers, chunk, seconds)
        table.add_row(
            f"{workers}",
            f"{chunk}",
            f"{run.rate * chunk:.1f}",
            f"{simulated * chunk:.1f}",
            f"{simulated / run.rate:.3f}",
            f"{run.rate * chunk * seconds / workers:.3f}",
        )
    return table


def costs_table(parts: Parts) -> Table:
    """The costs in milliseconds."""
    table = Table("milliseconds of CPU", "a chunk", "an image", "a second")
    for name, line in vars(parts).items():
        each = f"{1000 * line.each:.3f}"
        table.add_row(name, f"{1000 * line.fixed:.2f}", *((each, "") if name in ("prepare", "finish") else ("", each)))
    return table


def scale_table(rows: Sequence[Row]) -> Table:
    """What many GPUs do."""
    table = Table("images/s of a GPU", "GPUs", "images/s", "of the stages' rate", "Redis", "scheduler", "busiest")
    for row in rows:
        busy = f"{row.redis:.1%}", f"{row.scheduler:.1%}"
        table.add_row(f"{row.rate:g}", f"{row.gpus}", f"{row.images:,.0f}", f"{row.share:.3f}", *busy, row.first)
    return table


def main() -> None:
    """Measure, check, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="2,4,8", help="numbers of workers that are measured")
    parser.add_argument("--chunk", type=int, default=64, help="a size of chunks that no cost is measured with")
    parser.add_argument("--seconds", type=float, default=0.02, help="what an image waits in each group")
    parser.add_argument("--rounds", type=int, default=1, help="of which the medians are taken")
    parser.add_argument("--rates", default="3.32,25,500", help="images/s of one GPU")
    parser.add_argument("--gpus", default="8,64,512,2048")
    parser.add_argument("--picture", type=Path, help="write an SVG there")
    options = parser.parse_args()
    cases = [(1, chunk) for chunk in SIZES]
    cases += [(int(workers), chunk) for chunk in (SIZES[0], options.chunk) for workers in options.workers.split(",")]
    with tempfile.TemporaryDirectory(prefix="strata-simulation-") as work:
        found = Bench(Path(work), options.rounds, options.seconds).all(cases)
    parts, decode = parts_of(found, options.seconds), photograph_seconds()
    console = Console(width=120)
    console.print(costs_table(parts))
    console.print(f"decoding a photograph takes {1000 * decode:.2f} ms")
    console.print(checked(found, parts, options.seconds))
    rates, gpus = [float(one) for one in options.rates.split(",")], [int(one) for one in options.gpus.split(",")]
    rows = scaled(parts, decode, rates, gpus)
    console.print(scale_table(rows))
    if options.picture:
        plot(rows, options.picture)


if __name__ == "__main__":
    main()
