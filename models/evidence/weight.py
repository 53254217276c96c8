"""The weight of evidence for each name of a place: what detector, captioner and matcher say of it, added up.

For models with a closed vocabulary, whose different names for one place cannot both be true. The weight of a name is a
weighted sum of what was observed: as a naive Bayes classifier adds log odds (Good: Probability and the Weighing of
Evidence, 1950), but with factors that a profile gives, since the observers are not independent of each other. Those of
`demo` are a logistic regression (`python -m samples.name_weights`). Of the names of one place the heaviest is
kept, if it is heavy enough. A thing that no model knows gets names too, but seldom the same one from all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.boxes import iou
from models.evidence.support import names
from strata.core import THINGS, NameWeights, ObjectMask, Record, Region

SAME_PLACE = 0.5  # IoU from which two boxes are one place
MOST_SURE = 1e-6  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True)
class Named:
    """A region or an object with a phrase; layer and index: where it stands in the record."""

    layer: str
    index: int
    entry: Region | ObjectMask

    @property
    def phrase(self) -> str:
        return (self.entry.phrase or "").lower()

    def same_place(self, other: Named) -> bool:
        return iou(self.entry.box, other.entry.box) >= SAME_PLACE


def weighed(record: Record, least: float, weights: NameWeights | None = None) -> Record:
    """Drop regions and objects whose name has less weight than `least`, or than another name of the same place.

    An entry that was dropped as a duplicate speaks for the entry that it repeats. Without a matcher, a captioner or a
    detector the others decide.
    """
    entries = list(named(record))
    factors = (weights or NameWeights()).model_dump()
    found = [observed(one, entries, record) for one in entries]
    totals = [sum(factors[name] * value for name, value in of_name.items()) for of_name in found]
    weight = {(one.layer, one.index): total for one, total in zip(entries, totals, strict=True)}
    # greedy, from the heaviest name on, as in non-maximum suppression; of equal ones the first stays
    best: list[Named] = []
    reasons: dict[tuple[str, int], str] = {}
    for one in sorted(entries, key=lambda one: -weight[one.layer, one.index]):
        rivals = (other for other in best if other.phrase != one.phrase and other.same_place(one))
        if next(rivals, None):
            reasons[one.layer, one.index] = "contradicted"
            continue
        best.append(one)
        if weight[one.layer, one.index] < least:
            reasons[one.layer, one.index] = "low_evidence"
    return _without(record, reasons)


def named(record: Record) -> Iterator[Named]:
    """The regions and objects of a record that names are weighed for: those that are kept, and their duplicates."""
    for layer in THINGS:
        for index, entry in enumerate(getattr(record, layer.name) or ()):
            if entry.phrase and (entry.kept or entry.reason == "duplicate"):
                yield Named(layer.name, index, entry)


def observed(one: Named, entries: Sequence[Named], record: Record) -> dict[str, float]:
    """What was observed of an entry's name at its place, by the fields of `NameWeights`: log odds, and 1 for true."""
    place = [other for other in entries if other is one or other.same_place(one)]
    alike = [other.entry for other in place if other.phrase == one.phrase]
    regions = [entry for entry in alike if isinstance(entry, Region)]
    objects = [entry for entry in alike if isinstance(entry, ObjectMask)]
    caption = record.caption
    return {
        "region": bool(regions),
        "region_score": max((_log_odds(region.score) for region in regions), default=0.0),
        "region_match": max((_log_odds(region.match) for region in regions), default=0.0),
        "object": bool(objects),
        "object_match": max((_log_odds(thing.match) for thing in objects), default=0.0),
        "caption": bool(caption and caption.kept and names(caption.text, one.phrase)),
        "other_region": not regions and any(isinstance(other.entry, Region) for other in place),
        "other_object": not objects and any(isinstance(other.entry, ObjectMask) for other in place),
    }


def _log_odds(probability: float | None) -> float:
    """The log odds of a probability; 0 where a stage gave none."""
    if probability is None:
        return 0.0
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
