"""Deadlines: what this process does now, and after how many seconds each of it counts as hung.

Whoever may hang (a stage on a batch, the loading of a pipeline, a call to a storage) says so with `DEADLINES.watch`.
What is said here is published to `workers.watchdog`, a process of its own, which ends this one when a time is over.
Nothing is interrupted here: code in C that holds the interpreter's lock would not notice it.
"""

from __future__ import annotations

import itertools
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

FACTOR = 20  # times the usual seconds: other work on the machine makes a call slower, but not so much
KNOWN_CALLS = 2  # of a stage in this process, before its usual seconds count: the first one is its probe, or a warm-up
REMEMBERED_CALLS = 64
PROGRESS_SECONDS = 1.0  # between two reports of progress


@dataclass(frozen=True)
class Limits:
    """Seconds after which something counts as hung. floor: the least for a call of a stage (STRATA_HANG_SECONDS)."""

    floor: float = 60.0

    @property
    def first(self) -> float:
        """For a call of a stage of which nothing is known yet."""
        return 5 * self.floor

    @property
    def storage(self) -> float:
        """For a call to a storage, and for an index between two rows."""
        return 15 * self.floor

    @property
    def loading(self) -> float:
        """For loading a pipeline: tens of gigabytes may come from a slow disk."""
        return 60 * self.floor


class Pace:
    """What the calls of one stage take in this process, in seconds for each unit of work (`models.items.work_of`)."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=REMEMBERED_CALLS)

    def add(self, work: float, seconds: float) -> None:
        """Note a call that has ended."""
        self._rates.append(seconds / work)

    def limit(self, work: float, limits: Limits) -> float:
        """The seconds after which a call counts as hung; as long as little is known, a generous number."""
        if len(self._rates) < KNOWN_CALLS:
            return limits.first + work
        return limits.floor + FACTOR * statistics.median(self._rates) * work


@dataclass(frozen=True)
class Activity:
    """Something that this process does now.

    group: whose work it is, as of a chunk. part: what does it, as a stage's name. seconds: after which it counts as
    hung. about: which image, profile or shard, for the log. kind: whom it accuses if it hangs: rows, the storage, or
    nobody. claims: pickled, what it accuses; if empty, all rows of the group that are in flight. between: its time
    counts only while the group has no other activity, such as that of a stage. progress: grows with each step, and its
    time begins anew then, but not when it has taken `longest` seconds: it ends at last after `longest` and `seconds`.
    """

    group: str
    part: str
    seconds: float
    about: str = ""
    kind: Literal["rows", "storage", "nobody"] = "rows"
    claims: bytes = b""
    between: bool = False
    progress: int = 0
    longest: float = math.inf


@dataclass(frozen=True)
class Flight:
    """The rows of a group that are in flight. keys: of their images; rows: pickled, for the isolation notes."""

    keys: tuple[str, ...]
    rows: bytes


Publish = Callable[[Mapping[int, Activity], Mapping[str, Flight]], None]


class Deadlines:
    """The activities of this process and its rows in flight. Safe to use from several threads.

    publish: is called with all of them after each change.
    """

    def __init__(self) -> None:
        self.limits = Limits()
        self._publish: Publish | None = None
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._activities: dict[int, Activity] = {}
        self._flights: dict[str, Flight] = {}

    def report(self, publish: Publish | None, limits: Limits) -> None:
        """Report to a watchdog from now on; None: to none."""
        with self._guard:
            self._publish, self.limits = publish, limits
            self._changed()

    @contextmanager
    def watch(self, activity: Activity) -> Iterator[Callable[[], None]]:
        """Within the block the activity's time counts. Yields a function to call after each step of progress."""
        number = next(self._numbers)
        self._set(number, activity)
        told = time.monotonic()
        steps = itertools.count(1)

        def progress() -> None:
            nonlocal told
            now = time.monotonic()
            if told + PROGRESS_SECONDS < now:
                told = now
                # another thread of a call that has failed may still report: what has ended is not set again
                with self._guard:
                    if number in self._activities:
                        self._activities[number] = replace(activity, progress=next(steps))
                        self._changed()

        try:
            yield progress
        finally:
            with self._guard:
                del self._activities[number]
                self._changed()

    def fly(self, group: str, flight: Flight | None) -> None:
        """Note the rows of a group that are in flight from now on; None: none are."""
        with self._guard:
            if flight is None:
                self._flights.pop(group, None)
            else:
                self._flights[group] = flight
            self._changed()

    def _set(self, number: int, activity: Activity) -> None:
        with self._guard:
            self._activities[number] = activity
            self._changed()

    def _changed(self) -> None:
        if self._publish is not None:
            self._publish(self._activities, self._flights)


DEADLINES = Deadlines()
"""Those of this process: a process has one watchdog."""
