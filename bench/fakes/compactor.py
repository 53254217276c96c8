"""`python -m bench.fakes.compactor SEED`: bundles the parts of STRATA_STORE and takes them apart, for ever."""

from __future__ import annotations

import random
import sys
import time

from strata.core import load_settings
from strata.store import Compaction, Store
from strata.store.bundles import locks


def main() -> None:
    """Run for ever."""
    chance = random.Random(int(sys.argv[1]))
    # the lock of a compactor that was killed must not outlast the run; only a bucket's lock lapses by time
    locks.LOCK_SECONDS = 2.0
    compaction = Compaction(Store(load_settings().store_uri))
    while True:
        try:
            done = compaction.run(list(compaction.plans()), chance.random() < 0.5, lambda _: None)
            print(done, flush=True)
        except OSError as error:  # the disk is full, or the server is away
            print(error, flush=True)
        time.sleep(chance.uniform(0.0, 0.5))


if __name__ == "__main__":
    main()
