"""Whether a stage gives the same results for a batch as for each of its items alone."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.boxes import iou
from models.devices import best_precision
from models.items import Failure, Segment
from models.prove.checks import at_least, shortened
from strata.core import Check

# Least likeness of the results, 0..1. In half precision a text of a hundred words may part after some of them, where
# two words had nearly the same probability (see `models.stages.captioner`); a batch that is padded wrongly, or whose
# results are in another order, gives other texts altogether.
EXACT, ROUNDED = 0.99, 0.75
SAME_PLACE = 0.9  # IoU of two boxes or masks that are one
SAME_SCORE = 0.02  # greatest difference of two probabilities that are one; in half precision
SAME_EXACT_SCORE = 0.001  # in float32


def batch_check(stage: str, together: Sequence[Any], alone: Sequence[Any], names: Sequence[str]) -> Check:
    """Compare results of a batch with those of the same items alone. names: of the items."""
    exact = best_precision().itemsize == 4
    alike = [likeness(one, other, exact) for one, other in zip(together, alone, strict=True)]
    least = EXACT if exact else ROUNDED
    faults = [
        f"{name}: {_told(together[i])} for the batch, {_told(alone[i])} alone"
        for i, name in enumerate(names)
        if alike[i] < least
    ]
    return at_least(stage, "batch", sum(alike) / max(1, len(alike)), least, faults)


def likeness(one: Any, other: Any, exact: bool) -> float:
    """How much two results are alike, 0..1. exact: whether they come from float32."""
    if isinstance(one, Failure) or isinstance(other, Failure):
        return float(type(one) is type(other))
    if isinstance(one, str):
        return difflib.SequenceMatcher(None, one.split(), other.split(), autojunk=False).ratio()
    if isinstance(one, list | tuple):
        return _likeness_of_lists(list(one), list(other))
    if isinstance(one, Mapping):  # the columns of a feature
        return min(_same_values(one[name], other[name], exact) for name in one)
    if one is None or other is None:  # a matcher that cannot judge the phrase
        return float(one is other)
    near = SAME_EXACT_SCORE if exact else SAME_SCORE
    return float(math.isclose(one, other, rel_tol=0.0, abs_tol=near))


def _same_values(one: Any, other: Any, exact: bool) -> float:
    """Whether two numbers, or the numbers of two vectors, are one; other values must be equal."""
    if not isinstance(one, float | int | np.ndarray):
        return float(one == other)
    near = SAME_EXACT_SCORE if exact else SAME_SCORE
    some, others = np.atleast_1d(one), np.atleast_1d(other)
    return float(some.shape == others.shape and np.allclose(some, others, rtol=near, atol=near))


def _likeness_of_lists(some: list[Any], others: list[Any]) -> float:
    """The share of entries that have an equal one in the other list."""
    if not some and not others:
        return 1.0
    left, found = list(others), 0
    for entry in some:
        partner = next((other for other in left if _same(entry, other)), None)
        if partner is not None:
            left = [other for other in left if other is not partner]
            found += 1
    return 2 * found / (len(some) + len(others))


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:  # no mask for a box
        return one is other
    if isinstance(one, Segment):
        shared, either = np.logical_and(one.mask, other.mask).sum(), np.logical_or(one.mask, other.mask).sum()
        return bool(shared >= SAME_PLACE * either)
    if hasattr(one, "box") and iou(one.box, other.box) < SAME_PLACE:
        return False
    return all(getattr(one, name, None) == getattr(other, name, None) for name in ("phrase", "text", "word"))


def _told(result: Any) -> str:
    if isinstance(result, str):
        return repr(shortened(result, 40))
    return f"{len(result)} entries" if isinstance(result, list | tuple) else str(result)
