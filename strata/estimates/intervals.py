"""Intervals of 95 % of figures of a whole, by a sample that was drawn from it.

Sums and times: the standard error is that of the bootstrap (Efron, 1979), and the interval reaches Student's t of these
to either side, widened by sqrt(n / (n - 1)), because resamples of n values vary less than samples do; T. Hesterberg,
"What Teachers Should Know About the Bootstrap" (The American Statistician, 2015), tells both. With few values, such as
the times of ten micro-batches, the percentiles of the resamples would be too narrow.

Shares: E. B. Wilson (1927), see `strata.evaluation.intervals`.

A sample that is drawn without replacement from not much more tells more than that: what is counted for each image is
corrected by (N - n) / (N - 1), and a sample of all N has no uncertainty (W. G. Cochran, "Sampling Techniques", 1977).
Times are not: the same images take another time tomorrow.
"""

from __future__ import annotations

import math

import numpy as np

from strata.core import Figure
from strata.evaluation.intervals import Z, ratios, score_bounds

Floats = np.typing.NDArray[np.float64]

RESAMPLES = 1000
LEAST = 3  # values, of which an interval is told
# Student's t at 0.975 for 1 to 30 degrees of freedom
_T: tuple[float, ...] = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_T += (2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860)
_T += (2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423)


def student(values: int) -> float:
    """How many standard errors of so many values an interval reaches to either side; `LEAST` values at least."""
    freedom = values - 1
    # beyond the table, the first terms of its expansion for many degrees of freedom (Abramowitz and Stegun, 26.7.5)
    series = Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
    t = _T[freedom - 1] if freedom <= len(_T) else series
    return t * math.sqrt(values / freedom)


def finite(sampled: int, whole: int) -> float:
    """The part of the variance that is left if so many of a whole were sampled, 0 to 1."""
    return max(0.0, (whole - sampled) / (whole - 1)) if whole > 1 else 0.0


def resampled_means(values: Floats, seed: int) -> Floats:
    """The means of resamples of the rows, (RESAMPLES, columns). values: (rows, columns)."""
    return ratios(values, np.ones_like(values), RESAMPLES, seed)


def of_mean(mean: float, resampled: Floats, sampled: int, whole: int) -> Figure:
    """The sum over a whole, by the mean of a sample and the means of its resamples. It is not negative."""
    if sampled < LEAST:
        exact = mean * whole if finite(sampled, whole) == 0 else None
        return Figure(value=mean * whole, low=exact, high=exact)
    half = student(sampled) * float(resampled.std()) * math.sqrt(finite(sampled, whole)) * whole
    value = mean * whole
    return Figure(value=value, low=max(0.0, value - half), high=value + half)


def of_times(value: float, resampled: Floats, batches: int) -> Figure:
    """A time or another positive figure of so many measured micro-batches, by its resamples; on the scale of factors.

    Times have no upper bound, and their inverses, rates, get the inverse interval.
    """
    if batches < LEAST or value <= 0 or not (resampled > 0).all():
        return Figure(value=value)
    half = student(batches) * float(np.log(resampled).std())
    return Figure(value=value, low=value * math.exp(-half), high=value * math.exp(half))


def of_share(found: int, sampled: int, whole: int) -> Figure:
    """How many of a whole have something, by how many of a sample have it: Wilson's interval.

    The sample counts as one of `sampled / finite` images of an endless whole.
    """
    if not sampled:
        return Figure(value=0.0)
    share, left = found / sampled, finite(sampled, whole)
    if left == 0:
        return Figure(value=share * whole, low=share * whole, high=share * whole)
    low, high = score_bounds(share, Z * Z * left / sampled)
    # those that were found are there
    low = max(found / whole, low)
    high = min((whole - (sampled - found)) / whole, high)
    return Figure(value=share * whole, low=min(low, share) * whole, high=max(high, share) * whole)


def scaled(figure: Figure | None, factor: float) -> Figure | None:
    """A figure in another unit."""
    if figure is None:
        return None
    low, high = (None if end is None else end * factor for end in (figure.low, figure.high))
    return Figure(value=figure.value * factor, low=low, high=high)


def inverse(figure: Figure, of: float) -> Figure:
    """`of` divided by a positive figure, with the inverse interval."""
    low = None if figure.high is None else of / figure.high
    high = None if figure.low is None else of / figure.low
    return Figure(value=of / figure.value, low=low, high=high)
