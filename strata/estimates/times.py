"""The time that a group takes for a whole, by what the micro-batches of a sample took of a worker.

A chunk of the whole begins with a micro-batch whose images are decoded with nothing beside them; those of the next ones
are decoded while the one before is computed, so that the slower of both counts. At its end its part is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strata.core import Work
from strata.estimates.intervals import Floats, resampled_means


@dataclass(frozen=True)
class Whole:
    """What a group has to compute: images in chunks, of which `batch` are computed together."""

    images: float
    chunks: int
    batch: int

    def seconds(self, computing: Floats, decoding: Floats, writing: Floats) -> Floats:
        """The time of one worker, by the seconds of an image (the first two) and of a chunk."""
        first = min(self.images, float(self.chunks * self.batch))
        further = np.maximum(computing, decoding) * (self.images - first)
        return (computing + decoding) * first + further + writing * self.chunks


@dataclass(frozen=True)
class Times:
    """The time of one worker for a whole, and its resamples. batches: how many were measured."""

    value: float
    resampled: Floats
    batches: int

    @classmethod
    def of(cls, works: Sequence[Work], whole: Whole, seed: int) -> Times | None:
        """The time by these micro-batches; None without any, and if nothing was measured of them."""
        values = np.array([[one.images, one.computing, one.decoding, one.writing] for one in works], dtype=float)
        if not len(values):
            return None
        # the means of all columns in a resample are those of the same micro-batches
        every = np.vstack([values.mean(axis=0), resampled_means(values, seed)])
        images, computing, decoding, writing = every.T
        seconds = whole.seconds(computing / images, decoding / images, writing)
        return cls(float(seconds[0]), seconds[1:], len(values)) if seconds[0] > 0 else None


def device_of(works: Sequence[Work]) -> str | None:
    """The device of most micro-batches."""
    found = Counter(work.device for work in works).most_common(1)
    return found[0][0] if found else None


def loading_of(works: Sequence[Work]) -> float | None:
    """The mean seconds of loading the models, of the processes that have begun with these micro-batches.

    Without any, as when they had computed others before, of all.
    """
    known = [work.loading for work in works if work.loading is not None and work.first]
    known = known or [work.loading for work in works if work.loading is not None]
    return sum(known) / len(known) if known else None
