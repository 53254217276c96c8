"""Compute results in threads before they are needed, in order and up to a limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")


def prefetch_map(act: Callable[[Input], Output], inputs: Iterable[Input], threads: int) -> Iterator[Output]:
    """Map `act` over inputs in threads. Yields the outputs in order; at most `threads` of them are computed ahead.

    An exception of `act` is raised when its output would be yielded.
    """
    waiting: deque[Future[Output]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        # read an input only when there is room for its output
        for value in inputs:
            waiting.append(pool.submit(act, value))
            if len(waiting) >= threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # the consumer may have stopped early: cancel the calls that have not begun
        pool.shutdown(wait=False, cancel_futures=True)
