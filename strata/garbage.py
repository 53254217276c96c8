"""The garbage collector in processes that run for long, which stops all their threads while it looks at objects."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 50_000  # after which they are looked at; Python's own number is 700
ROUNDS = 20  # of one generation, after which the next older one is looked at; Python's own number is 10


@contextmanager
def collector_spared() -> Iterator[None]:
    """Within the block the garbage collector skips what is loaded already, and collects new objects less often.

    The modules, routes and models of the service are 110,000 objects, a worker's more. To look at all of them takes 0.1
    s and more, in the service about once a second at 1,000 requests a second. They stay as long as their process.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, ROUNDS, ROUNDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()  # else triton's bindings report the frozen objects as leaks when the process ends
