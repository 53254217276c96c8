"""Comparing an evaluation with an earlier one: which figures dropped beyond noise.

Both are resampled with the same images (the paired bootstrap), so that an image that is hard for both adds no noise. A
figure has dropped if in all but a share of the resamples the new value is worse. The share is ALPHA, divided by the
number of figures that are compared (Bonferroni), so that without any change a comparison seldom tells of a drop.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import numpy as np
from pydantic import BaseModel

from strata.errors import InvalidInput
from strata.evaluation.evaluation import Evaluation, Measured
from strata.evaluation.figures import FIGURES, Better
from strata.evaluation.intervals import Floats, bounds, ratios

ALPHA = 0.05
LEAST_IMAGES = 10  # with a denominator in both; of fewer the bootstrap knows too little of the noise
TAIL_RESAMPLES = 10  # resamples beyond the quantile that decides
MOST_RESAMPLES = 20_000


class Change(BaseModel):
    """One figure in both evaluations, over their common images. low, high: the interval of the difference."""

    text: str
    figure: str
    base: float
    new: float
    low: float
    high: float
    better: Better
    images: int
    dropped: bool
    improved: bool


class Comparison(BaseModel):
    """images: the common ones. missing: texts that the base has and the new evaluation does not.

    unsure: figures of fewer than LEAST_IMAGES images, which are not compared.
    """

    base: str
    images: int
    changes: list[Change]
    missing: list[str]
    unsure: list[str]

    @property
    def dropped(self) -> list[Change]:
        return [change for change in self.changes if change.dropped]

    @property
    def passed(self) -> bool:
        """Whether no figure dropped and no text is missing."""
        return not self.dropped and not self.missing


def compared(new: Evaluation, base: Evaluation, base_name: str) -> Comparison:
    """Compare two evaluations. Raises InvalidInput if they have no image in common."""
    places = {key: place for place, key in enumerate(base.keys)}
    common = [(places[key], place) for place, key in enumerate(new.keys) if key in places]
    check_common(new.keys, places, new.source, base_name)
    of_base, of_new = (np.array(side) for side in zip(*common, strict=True))
    columns, unsure = [], []
    for text, measured in new.texts.items():
        for figure in measured.figures:
            pair = _pair(measured, base.texts.get(text), figure, of_new, of_base)
            if pair is None:
                continue
            if min(np.count_nonzero(one[:, 1]) for one in pair) < LEAST_IMAGES:
                unsure.append(f"{text} {figure}")
            else:
                columns.append((text, figure, pair))
    missing = [text for text in base.texts if text not in new.texts]
    changes = _changes(columns, new.seed) if columns else []
    return Comparison(base=base_name, images=len(common), changes=changes, missing=missing, unsure=unsure)


def check_common(new: Iterable[str], base: Collection[str], new_name: str, base_name: str) -> None:
    """Raises InvalidInput if two evaluations have no image in common. new, base: the keys of their images."""
    known = frozenset(base)
    if known.isdisjoint(new):
        raise InvalidInput(f"{base_name} and {new_name} have no image in common: nothing can be compared")


Pair = tuple[Floats, Floats]  # of the new evaluation and of the base, (images, 2)


def _pair(
    new: Measured,
    base: Measured | None,
    figure: str,
    of_new: np.typing.NDArray[np.int64],
    of_base: np.typing.NDArray[np.int64],
) -> Pair | None:
    """The counts of a figure on the common images; None if it is not compared."""
    compares = figure in FIGURES and FIGURES[figure].better != "neither"
    if base is None or not compares or figure not in base.counts or figure not in new.counts:
        return None
    return np.array(new.counts[figure]).T[of_new], np.array(base.counts[figure]).T[of_base]


def _changes(columns: list[tuple[str, str, Pair]], seed: int) -> list[Change]:
    tail = ALPHA / len(columns)
    resamples = min(MOST_RESAMPLES, max(1000, math.ceil(TAIL_RESAMPLES / tail)))
    # the same seed draws the same images for both
    sides = []
    for side in (0, 1):
        counts = np.stack([pair[side] for _, _, pair in columns], axis=1)
        sides.append((counts, ratios(counts[..., 0], counts[..., 1], resamples, seed)))
    differences = sides[0][1] - sides[1][1]
    low, high = bounds(differences, tail)
    found = []
    for place, (text, figure, _) in enumerate(columns):
        new, base = (_value(counts[:, place]) for counts, _ in sides)
        better = FIGURES[figure].better
        # sums of floats in another order differ in the last digits
        below, above = high[place] < -1e-9, low[place] > 1e-9
        worse, improved = (below, above) if better == "higher" else (above, below)
        images = int(np.count_nonzero(sides[0][0][:, place, 1]))
        found.append(
            Change(
                text=text,
                figure=figure,
                base=base,
                new=new,
                low=float(low[place]),
                high=float(high[place]),
                better=better,
                images=images,
                dropped=bool(worse),
                improved=bool(improved),
            )
        )
    return found


def _value(counts: Floats) -> float:
    told, total = counts.sum(axis=0)
    return float(told / total)
