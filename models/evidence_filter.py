"""Which observations are kept: the matcher's probability, the OCR's confidence, contradictions, duplicates.

In steps, so that the matcher is asked only about what can still be kept: `before_matching`, `regions_matched`,
`objects_matched`, and `text_judged` whenever the text is there. What is kept is the same as if it had been asked about
everything.

The thresholds 0.4 (regions), 0.85 (text), 0.5 (objects) and the IoU of 0.6 are those of Monkey's
`data_generation/` (arXiv 2311.06607); a profile may set others that fit its matcher. Nothing is thrown away: what is
dropped stays in the layer with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from models.boxes import iou
from strata.core.profiles import EvidenceSettings
from strata.core.records import Evidence, ObjectMask, Record, Region

Entry = TypeVar("Entry", bound=Evidence)


def before_matching(record: Record, settings: EvidenceSettings) -> Record:
    """The record without the regions and objects that a stage's own score or another observer speaks against."""
    regions = [_judge(region, region.score, settings.region_score, "low_score") for region in record.regions or ()]
    objects = list(record.objects or ())
    if settings.contradiction_iou is not None:
        least = settings.contradiction_iou
        regions, objects = _undisputed(regions, objects, least), _undisputed(objects, regions, least)
    return record.model_copy(update={"regions": regions, "objects": objects})


def regions_matched(record: Record, matches: Sequence[float], settings: EvidenceSettings) -> Record:
    """The record without the regions that the matcher doubts, and without what repeats the others.

    matches: probabilities of the caption and of each kept region, in order.
    """
    asked = iter(matches)
    caption = record.caption and _matched(record.caption, asked, settings.caption)
    regions = [_matched(region, asked, settings.region) for region in record.regions or ()]
    regions = _without_duplicates(regions, settings.duplicate_iou)
    objects = _without_repeats(record.objects or (), regions, settings.duplicate_iou)
    return record.model_copy(update={"caption": caption, "regions": regions, "objects": objects})


def objects_matched(record: Record, matches: Sequence[float], settings: EvidenceSettings) -> Record:
    """The record without the objects that the matcher doubts or that repeat a better match.

    matches: probabilities of each kept object, in order.
    """
    asked = iter(matches)
    objects = [_matched(thing, asked, settings.object) for thing in record.objects or ()]
    return record.model_copy(update={"objects": _without_duplicates(objects, settings.duplicate_iou)})


def text_judged(record: Record, settings: EvidenceSettings) -> Record:
    """The record without the lines that the OCR doubts; the matcher has no say in them."""
    text = [_judge(line, line.score, settings.text, "low_score") for line in record.text or ()]
    return record.model_copy(update={"text": text})


def _matched(entry: Entry, matches: Iterator[float], threshold: float) -> Entry:
    """The entry with its probability, the next one, if the matcher was asked about it."""
    if not entry.kept:
        return entry
    match = next(matches)
    return _judge(entry.model_copy(update={"match": match}), match, threshold, "low_match")


def _judge(entry: Entry, value: float | None, threshold: float, reason: str) -> Entry:
    if not entry.kept or value is None or value >= threshold:
        return entry
    return entry.model_copy(update={"kept": False, "reason": reason})


Named = TypeVar("Named", Region, ObjectMask)


def _undisputed(entries: list[Named], others: Sequence[Region | ObjectMask], least_iou: float) -> list[Named]:
    """Entries without those that another observer calls differently: what no model knows, each names as it likes.

    Who is right is not asked, and what is dropped already is heard all the same.
    """
    disputed = [
        entry.kept
        and any(iou(o.box, entry.box) >= least_iou and o.phrase.lower() != entry.phrase.lower() for o in others)
        for entry in entries
    ]
    return [
        entry.model_copy(update={"kept": False, "reason": "contradicted"}) if wrong else entry
        for entry, wrong in zip(entries, disputed, strict=True)
    ]


def _without_duplicates(entries: Sequence[Named], threshold: float) -> list[Named]:
    """Entries in their order; of those that say the same of nearly the same box the best match is kept."""
    best: list[Named] = []
    for entry in sorted((entry for entry in entries if entry.kept), key=lambda entry: -(entry.match or 0.0)):
        if not _repeats(entry, best, threshold):
            best.append(entry)
    kept = {id(entry) for entry in best}
    return [_duplicate(entry) if entry.kept and id(entry) not in kept else entry for entry in entries]


def _without_repeats(objects: Sequence[ObjectMask], regions: Sequence[Region], threshold: float) -> list[ObjectMask]:
    """Objects in their order, without those that say what a kept region says of nearly the same box."""
    said = [region for region in regions if region.kept]
    return [_duplicate(thing) if thing.kept and _repeats(thing, said, threshold) else thing for thing in objects]


def _repeats(entry: Named, others: Sequence[Region | ObjectMask], threshold: float) -> bool:
    phrase = entry.phrase.lower()
    return any(phrase == other.phrase.lower() and iou(entry.box, other.box) >= threshold for other in others)


def _duplicate(entry: Named) -> Named:
    return entry.model_copy(update={"kept": False, "reason": "duplicate"})
