"""What a process has counted since it last told: numbers by the names of fields, which are added to sums in Redis."""

from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Callable, Mapping

from strata.telemetry.families import SUMMED

BETWEEN = "|"  # between a metric's name and the values of its labels in a field
SUM = "sum"  # the last part of a histogram's field with the sum of its values
INFINITE = "+Inf"  # the last part of the field of values above all buckets
OTHER = "other"
MOST_VALUES = 100  # of a label that a process tells; all others are OTHER
_STRANGE = re.compile(r"[^A-Za-z0-9_.:+-]")
_known: dict[tuple[str, int], set[str]] = {}


def field_of(name: str, *values: str) -> str:
    """The field of a metric of SUMMED with the values of its labels, in the order of the table.

    Values are cut to 64 plain characters, and a process uses at most MOST_VALUES of each label: names of errors may
    come from packages of others. Raises KeyError for a name, and ValueError for a number of labels, not in the table.
    """
    if len(values) != len(SUMMED[name].labels):
        raise ValueError(f"{name} has the labels {SUMMED[name].labels}")
    return BETWEEN.join([name, *(_bounded(name, place, value) for place, value in enumerate(values))])


def _bounded(name: str, place: int, value: str) -> str:
    plain = _STRANGE.sub("_", value)[:64]
    known = _known.setdefault((name, place), set())
    if plain not in known and len(known) >= MOST_VALUES:
        return OTHER
    known.add(plain)
    return plain


class Counters:
    """Counts by field. Safe to use from several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sums: dict[str, float] = {}

    def add(self, name: str, *values: str, by: float = 1.0) -> None:
        """Add to a counter. values: of its labels."""
        self.add_all({field_of(name, *values): by})

    def observe(self, name: str, value: float, *values: str) -> None:
        """Add a value to a histogram. values: of its labels."""
        field, buckets = field_of(name, *values), SUMMED[name].buckets
        place = bisect.bisect_left(buckets, value)
        bucket = f"{buckets[place]:g}" if place < len(buckets) else INFINITE
        self.add_all({f"{field}{BETWEEN}{bucket}": 1.0, f"{field}{BETWEEN}{SUM}": value})

    def add_all(self, sums: Mapping[str, float]) -> None:
        """Add to several fields."""
        with self._guard:
            for field, number in sums.items():
                self._sums[field] = self._sums.get(field, 0.0) + number

    def drain(self) -> dict[str, float]:
        """All counts since the last call, which are forgotten here."""
        with self._guard:
            sums, self._sums = self._sums, {}
        return sums

    def tell(self, add: Callable[[Mapping[str, float]], None]) -> None:
        """Give all counts to `add`, which adds them to sums. Raises its error; then they are given the next time."""
        sums = self.drain()
        try:
            add(sums)
        except Exception:
            self.add_all(sums)
            raise


COUNTERS = Counters()
"""Those of this process."""
