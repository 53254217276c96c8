"""Patience: what is away for a while (the store, a model's server, a full disk) is waited for, not failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event
from typing import TypeVar

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
Answer = TypeVar("Answer")


class LeftOff(Exception):
    """The work in hand ends here, unfinished: the worker stops, or nobody wants it any more."""


def patiently(
    act: Callable[[], Answer], errors: tuple[type[Exception], ...], stop: Event, wanted: Callable[[], bool]
) -> Answer:
    """What act answers, tried again with growing pauses while it raises one of errors.

    A file that is not there is no matter of time: FileNotFoundError is raised. Raises LeftOff when stop is set or
    the work is wanted no more.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return act()
        except FileNotFoundError:
            raise
        except errors as error:
            log.warning("waiting %.1f s: %s: %s", pause, type(error).__name__, error)
            if stop.wait(pause) or not wanted():
                raise LeftOff from error
        pause = min(2 * pause, LONGEST_PAUSE)
