"""The weight of evidence for each name of a place: what detector, captioner and matcher say of it, added up.

For models with a closed vocabulary, whose different names for one place cannot both be true. The weight of a name is a
sum of log odds, as in a naive Bayes classifier (Good: Probability and the Weighing of Evidence, 1950): that of the
matcher, that of the detector's score, and a constant for each observer that gives the name by itself, which are the
detector for the box, the captioner for the mask, and the captioner for the whole image. Of the names of one place the
heaviest is kept, if it is heavy enough. A thing that no model knows gets names too, but seldom the same one from all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.boxes import iou
from models.evidence.support import names
from strata.core import THINGS, ObjectMask, Record, Region

SAME_PLACE = 0.5  # IoU from which two boxes are one place
OBSERVER = 2.0  # log odds: of one more observer that gives a name, and factor of the detector's own log odds
MOST_SURE = 1e-6  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True)
class _Named:
    """A region or an object with a phrase; layer and index: where it stands in the record."""

    layer: str
    index: int
    entry: Region | ObjectMask

    @property
    def phrase(self) -> str:
        return (self.entry.phrase or "").lower()

    def same_place(self, other: _Named) -> bool:
        return iou(self.entry.box, other.entry.box) >= SAME_PLACE


def weighed(record: Record, least: float) -> Record:
    """Drop regions and objects whose name has less weight than `least`, or than another name of the same place.

    An entry that was dropped as a duplicate speaks for the entry that it repeats. Without a matcher, a captioner or a
    detector the others decide.
    """
    entries = list(_entries(record))
    weights = {(one.layer, one.index): _weight(one, entries, record) for one in entries}
    # greedy, from the heaviest name on, as in non-maximum suppression; of equal ones the first stays
    best: list[_Named] = []
    reasons: dict[tuple[str, int], str] = {}
    for one in sorted(entries, key=lambda one: -weights[one.layer, one.index]):
        rivals = (other for other in best if other.phrase != one.phrase and other.same_place(one))
        if next(rivals, None):
            reasons[one.layer, one.index] = "contradicted"
            continue
        best.append(one)
        if weights[one.layer, one.index] < least:
            reasons[one.layer, one.index] = "low_evidence"
    return _without(record, reasons)


def _entries(record: Record) -> Iterator[_Named]:
    for layer in THINGS:
        for index, entry in enumerate(getattr(record, layer.name) or ()):
            if entry.phrase and (entry.kept or entry.reason == "duplicate"):
                yield _Named(layer.name, index, entry)


def _weight(one: _Named, entries: Sequence[_Named], record: Record) -> float:
    """The weight of an entry's name at its place, in log odds."""
    alike = [other.entry for other in entries if other.phrase == one.phrase and (other is one or other.same_place(one))]
    # of the matcher's opinions of the crops the lowest: both show the same thing; 0 if it gave none
    weight = min((_log_odds(entry.match) for entry in alike if entry.match is not None), default=0.0)
    # the observers: a detector that is not sure counts less, or against the name
    scores = [entry.score for entry in alike if isinstance(entry, Region)]
    if scores:
        weight += OBSERVER * (1 + max(_log_odds(0.5 if score is None else score) for score in scores))
    weight += OBSERVER * any(isinstance(entry, ObjectMask) for entry in alike)
    caption = record.caption
    return weight + OBSERVER * bool(caption and caption.kept and names(caption.text, one.phrase))


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, MOST_SURE), 1 - MOST_SURE)
    return math.log(bounded / (1 - bounded))


def _without(record: Record, reasons: dict[tuple[str, int], str]) -> Record:
    """The record with these entries dropped for these reasons."""
    changed = {
        layer.name: [
            entry.model_copy(update={"kept": False, "reason": reasons[layer.name, index]})
            if (layer.name, index) in reasons
            else entry
            for index, entry in enumerate(getattr(record, layer.name))
        ]
        for layer in THINGS
        if getattr(record, layer.name) is not None
    }
    return record.model_copy(update=changed)
