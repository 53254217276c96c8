"""Which observations are kept: the matcher's probability, the OCR's confidence, contradictions, duplicates.

In steps, so that the matcher is asked only about what can still be kept: `before_matching`, `regions_matched`,
`objects_matched`, and `text_judged` whenever the text is there. What is kept is the same as if it had been asked about
everything. Layers that were not computed stay null; without a matcher the stages' own scores decide alone.

The thresholds 0.4 (regions), 0.85 (text), 0.5 (objects) and the IoU of 0.6 are those of Monkey's
`data_generation/` (arXiv 2311.06607); a profile may set others that fit its matcher. A dropped entry stays in its
layer with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from models.boxes import iou
from strata.core import Evidence, EvidenceSettings, ObjectMask, Record, Region

Entry = TypeVar("Entry", bound=Evidence)


def before_matching(record: Record, settings: EvidenceSettings) -> Record:
    """The record with regions and objects dropped that their own score or another stage's phrase speaks against."""
    regions = [_judge(region, region.score, settings.region_score, "low_score") for region in record.regions or ()]
    objects = list(record.objects or ())
    if settings.contradiction_iou is not None:
        least = settings.contradiction_iou
        regions, objects = _undisputed(regions, objects, least), _undisputed(objects, regions, least)
    return _with_layers(record, regions=regions, objects=objects)


def regions_matched(record: Record, matches: Sequence[float] | None, settings: EvidenceSettings) -> Record:
    """The record with regions dropped that the matcher scores low, and duplicates among regions and objects.

    matches: probabilities of the caption, if there is one, and of each kept region, in order; None: no matcher.
    """
    asked = None if matches is None else iter(matches)
    caption = record.caption and _matched(record.caption, asked, settings.caption)
    regions = [_matched(region, asked, settings.region) for region in record.regions or ()]
    regions = _without_duplicates(regions, settings.duplicate_iou)
    objects = _without_repeats(record.objects or (), regions, settings.duplicate_iou)
    return _with_layers(record, caption=caption, regions=regions, objects=objects)


def objects_matched(record: Record, matches: Sequence[float] | None, settings: EvidenceSettings) -> Record:
    """The record with objects dropped that the matcher scores low, or that repeat one with a better match.

    matches: probabilities of each kept object that has a phrase, in order; None: no matcher.
    """
    asked = None if matches is None else iter(matches)
    objects = [
        thing if thing.phrase is None else _matched(thing, asked, settings.object) for thing in record.objects or ()
    ]
    return _with_layers(record, objects=_without_duplicates(objects, settings.duplicate_iou))


def text_judged(record: Record, settings: EvidenceSettings) -> Record:
    """The record with lines dropped that the OCR scores low; the matcher is not asked about text."""
    text = [_judge(line, line.score, settings.text, "low_score") for line in record.text or ()]
    return _with_layers(record, text=text)


def _with_layers(record: Record, **layers: Any) -> Record:
    """The record with some layers replaced; a layer that was not computed stays null."""
    known = {name: value for name, value in layers.items() if getattr(record, name) is not None}
    return record.model_copy(update=known)


def _matched(entry: Entry, matches: Iterator[float] | None, threshold: float) -> Entry:
    """The entry with its probability, the next one, if the matcher was asked about it."""
    if not entry.kept or matches is None:
        return entry
    match = next(matches)
    return _judge(entry.model_copy(update={"match": match}), match, threshold, "low_match")


def _judge(entry: Entry, value: float | None, threshold: float, reason: str) -> Entry:
    if not entry.kept or value is None or value >= threshold:
        return entry
    return entry.model_copy(update={"kept": False, "reason": reason})


Named = TypeVar("Named", Region, ObjectMask)


def _undisputed(entries: list[Named], others: Sequence[Region | ObjectMask], least_iou: float) -> list[Named]:
    """Drop entries that overlap one of `others` with another phrase: one of the two models must be wrong.

    Both sides are dropped, since nothing tells which is right; entries of `others` count even if they are dropped.
    """
    disputed = [entry.kept and any(_contradicts(entry, other, least_iou) for other in others) for entry in entries]
    return [
        entry.model_copy(update={"kept": False, "reason": "contradicted"}) if wrong else entry
        for entry, wrong in zip(entries, disputed, strict=True)
    ]


def _contradicts(entry: Region | ObjectMask, other: Region | ObjectMask, least_iou: float) -> bool:
    if entry.phrase is None or other.phrase is None or entry.phrase.lower() == other.phrase.lower():
        return False
    return iou(entry.box, other.box) >= least_iou


def _without_duplicates(entries: Sequence[Named], threshold: float) -> list[Named]:
    """Entries in their order; of those with one phrase at nearly the same box the best match is kept.

    Without a matcher it is the best score.
    """
    best: list[Named] = []
    for entry in sorted((entry for entry in entries if entry.kept), key=lambda entry: -_trust(entry)):
        if not _repeats(entry, best, threshold):
            best.append(entry)
    kept = {id(entry) for entry in best}
    return [_duplicate(entry) if entry.kept and id(entry) not in kept else entry for entry in entries]


def _trust(entry: Evidence) -> float:
    return entry.match if entry.match is not None else entry.score or 0.0


def _without_repeats(objects: Sequence[ObjectMask], regions: Sequence[Region], threshold: float) -> list[ObjectMask]:
    """Objects in their order; those with the phrase of a kept region at nearly the same box are dropped."""
    said = [region for region in regions if region.kept]
    return [_duplicate(thing) if thing.kept and _repeats(thing, said, threshold) else thing for thing in objects]


def _repeats(entry: Named, others: Sequence[Region | ObjectMask], threshold: float) -> bool:
    if entry.phrase is None:
        return False
    phrase = entry.phrase.lower()
    return any(phrase == (other.phrase or "").lower() and iou(entry.box, other.box) >= threshold for other in others)


def _duplicate(entry: Named) -> Named:
    return entry.model_copy(update={"kept": False, "reason": "duplicate"})
