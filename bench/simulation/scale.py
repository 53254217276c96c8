"""What the measured costs say of many machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.simulation.model import Parts, Simulation, Site

GPUS_A_MACHINE, CORES_A_MACHINE = 8, 64
CHUNK = 500  # images, as in the real profiles
CHUNKS_A_GPU = 24


@dataclass(frozen=True)
class Row:
    """rate: images/s of one GPU; images: of all. share: of the stages' own rate. The rest: shares of the time."""

    rate: float
    gpus: int
    images: float
    share: float
    redis: float
    scheduler: float
    first: str


def scaled(parts: Parts, decode: float, rates: Sequence[float], gpus: Sequence[int]) -> list[Row]:
    """What so many GPUs do whose stages make `rate` images/s each. decode: CPU seconds of an image's decoding."""
    rows = []
    for rate in rates:
        costs = parts.of(CHUNK, 1 / rate, decode)
        for count in gpus:
            site = Site(count, GPUS_A_MACHINE, CORES_A_MACHINE, own_machine=True)
            outcome = Simulation(costs, site, count * CHUNKS_A_GPU).run()
            images = outcome.steady * CHUNK
            rows.append(
                Row(rate, count, images, images / (rate * count), outcome.redis, outcome.scheduler, outcome.first)
            )
    return rows
