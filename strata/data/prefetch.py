"""Work done ahead of whoever takes its results: in threads, in order, and never more of it than asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(act: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """The result of each item, in order, computed by threads; at most `threads` results wait to be taken.

    Raises what `act` raises, at its place.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(act, item))
            if len(waiting) >= threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
