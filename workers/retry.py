"""Retries for what is unavailable for a while: the store, a full disk, a model's server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from strata.core import growing_pause
from strata.errors import QueueUnavailable
from strata.telemetry import COUNTERS

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
Result = TypeVar("Result")


class WorkInterrupted(Exception):
    """The work on a chunk ends before it is finished: the worker is stopping, or the chunk's job was cancelled."""


def retry_until_done(
    act: Callable[[], Result],
    errors: tuple[type[Exception], ...],
    stop: Event,
    wanted: Callable[[], bool],
    tell: Callable[[Exception, int], None] = lambda error, attempts: None,
) -> Result:
    """Call `act` until it returns, with growing pauses after each of `errors`, and return its result.

    stop: ends a pause at once. wanted: asked after each pause whether the work shall go on. tell: called before each
    pause with the error and the number of attempts. FileNotFoundError is raised even if `errors` includes it: waiting
    does not bring a file back. Raises WorkInterrupted.
    """
    attempt = 0
    while True:
        try:
            return act()
        except FileNotFoundError:
            raise
        except errors as error:
            pause = growing_pause(attempt, FIRST_PAUSE, LONGEST_PAUSE)
            log.warning("waiting %.1f s: %s: %s", pause, type(error).__name__, error)
            COUNTERS.add("strata_retries", "redis" if isinstance(error, QueueUnavailable) else "storage")
            tell(error, attempt + 1)
            if stop.wait(pause) or not wanted():
                raise WorkInterrupted from error
        attempt += 1
