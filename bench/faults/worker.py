"""A real worker, whose stages fail when the harness orders it: `python -m bench.faults.worker --groups vision`."""

from __future__ import annotations

import argparse
import datetime
import logging
import sys
import time
from typing import Any

from bench.faults.groups import run_worker
from bench.faults.orders import Orders
from bench.faults.stages import FaultyStages


def shift_clock(seconds: float) -> None:
    """Set the clock of our own packages off. Libraries in C cannot work with another class in place of `datetime`."""
    real_time, real_class = time.time, datetime.datetime

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return real_class.now(tz) + datetime.timedelta(seconds=seconds)

    time.time = lambda: real_time() + seconds
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("strata", "workers", "models") and vars(module).get("datetime") is real_class:
            module.__dict__["datetime"] = Shifted


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", required=True)
    parser.add_argument("--seconds", type=float, default=0.0, help="what an item costs in each stage")
    parser.add_argument("--clock", type=float, default=0.0, help="seconds by which this worker's clock is off")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    if options.clock:
        shift_clock(options.clock)
    orders = Orders.from_environment()
    assert orders is not None, "the harness sets BENCH_FAULTS"
    sys.exit(run_worker(options.groups.split(","), FaultyStages(orders, options.seconds)))


if __name__ == "__main__":
    main()
