"""Intervals: by bootstrap of figures that are ratios of sums over images, and of plain shares.

Bootstrap (Efron, "Bootstrap Methods", 1979): the images are resampled with replacement, and all figures of an
evaluation on the same resamples. The interval is the percentile interval: of 95 % of the resamples' values.

Shares: E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (Journal of the American
Statistical Association, 1927), at 95 %: it holds for few judgments, and for rates near 0 and 1.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import BaseModel

Floats = np.typing.NDArray[np.float64]

RESAMPLES = 1000
CONFIDENCE = 0.95
Z = 1.959964  # of the normal distribution, for 95 %
AT_ONCE = 64  # resamples whose weights are in memory: 64 rows of as many numbers as there are images


def ratios(numerators: Floats, denominators: Floats, resamples: int, seed: int) -> Floats:
    """The figures of resamples, (resamples, figures); NaN where the denominators of a resample are all 0.

    numerators, denominators: (images, figures).
    """
    images, figures = numerators.shape
    random = np.random.default_rng(seed)
    found = np.full((resamples, figures), np.nan)
    for first in range(0, resamples, AT_ONCE):
        rows = min(AT_ONCE, resamples - first)
        # how often each image is drawn in each resample
        drawn = random.integers(0, images, (rows, images)) + np.arange(rows)[:, None] * images
        weights = np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(float)
        sums = weights @ denominators
        np.divide(weights @ numerators, sums, out=found[first : first + rows], where=sums > 0)
    return found


def bounds(values: Floats, tail: float) -> tuple[Floats, Floats]:
    """The quantiles `tail` and 1 - `tail` of each column of resampled figures; NaN for a column that is all NaN."""
    low, high = (np.full(values.shape[1], np.nan) for _ in range(2))
    for place, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        if len(known):
            low[place], high[place] = np.quantile(known, [tail, 1 - tail])
    return low, high


def certain(images: int, tail: float) -> float:
    """How far from 0 or 1 a share may be that is 0 or 1 in all of so many images: 1 - tail ** (1 / images).

    The bootstrap gives such a share no interval, since all resamples are alike. This is the exact bound of images that
    each are wholly right or wrong; Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", 1983.
    """
    return float(1 - tail ** (1 / images)) if images else 1.0


class Rate(BaseModel):
    """A share with its interval. right: of `judged` many; rate, low and high: 0 to 1, null if none was judged."""

    right: int
    judged: int
    rate: float | None
    low: float | None
    high: float | None


def wilson(right: int, judged: int) -> Rate:
    """A share with its interval of 95 %."""
    if not judged:
        return Rate(right=0, judged=0, rate=None, low=None, high=None)
    share = right / judged
    low, high = score_bounds(share, Z * Z / judged)
    return Rate(right=right, judged=judged, rate=share, low=max(0.0, low), high=min(1.0, high))


def score_bounds(share: float, square: float) -> tuple[float, float]:
    """Both ends of Wilson's interval of a share. square: Z² by the number of those that were judged."""
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square * square / 4) / (1 + square)
    return middle - half, middle + half
