"""Bootstrap intervals of figures that are ratios of sums over images (Efron, "Bootstrap Methods", 1979).

The images are resampled with replacement, and all figures of an evaluation on the same resamples. The interval is the
percentile interval: of 95 % of the resamples' values.
"""

from __future__ import annotations

import numpy as np

Floats = np.typing.NDArray[np.float64]

RESAMPLES = 1000
CONFIDENCE = 0.95
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
