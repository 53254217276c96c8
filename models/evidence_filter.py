"""Which observations are kept: the matcher's probability, the OCR's confidence, contradictions, duplicates.

The thresholds 0.4 (regions), 0.85 (text), 0.5 (objects) and the IoU of 0.6 are those of Monkey's
`data_generation/` (arXiv 2311.06607); a profile may set others that fit its matcher. Nothing is thrown away: what is
dropped stays in the layer with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from models.boxes import iou
from strata.profiles import EvidenceSettings
from strata.records import Evidence, ObjectMask, Record, Region

Entry = TypeVar("Entry", bound=Evidence)


def keep(record: Record, settings: EvidenceSettings) -> Record:
    """The record with `kept` and `reason` of every entry decided."""
    caption = record.caption and _judge(record.caption, record.caption.match, settings.caption, "low_match")
    regions = [_judge(region, region.score, settings.region_score, "low_score") for region in record.regions or ()]
    regions = [_judge(region, region.match, settings.region, "low_match") for region in regions]
    objects = [_judge(thing, thing.match, settings.object, "low_match") for thing in record.objects or ()]
    text = [_judge(line, line.score, settings.text, "low_score") for line in record.text or ()]
    if settings.contradiction_iou is not None:
        least = settings.contradiction_iou
        regions, objects = _undisputed(regions, objects, least), _undisputed(objects, regions, least)
    regions = _without_duplicates(regions, (), settings.duplicate_iou)
    objects = _without_duplicates(objects, regions, settings.duplicate_iou)
    return record.model_copy(update={"caption": caption, "regions": regions, "objects": objects, "text": text})


def _judge(entry: Entry, value: float | None, threshold: float, reason: str) -> Entry:
    if not entry.kept or value is None or value >= threshold:
        return entry
    return entry.model_copy(update={"kept": False, "reason": reason})


Named = TypeVar("Named", Region, ObjectMask)


def _undisputed(entries: list[Named], others: Sequence[Region | ObjectMask], least_iou: float) -> list[Named]:
    """Entries without those that another observer calls differently: what no model knows, each names as it likes.

    What the matcher doubts is heard all the same; who is right is not asked.
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


def _without_duplicates(entries: list[Named], others: Iterable[Region], threshold: float) -> list[Named]:
    """Entries in their order; of those that say the same of nearly the same box the best match is kept."""
    said = [(other.phrase.lower(), other.box) for other in others if other.kept]
    duplicates: set[int] = set()
    for i in sorted(range(len(entries)), key=lambda i: -(entries[i].match or 0.0)):
        entry = entries[i]
        if not entry.kept:
            continue
        phrase = entry.phrase.lower()
        if any(phrase == other and iou(entry.box, box) >= threshold for other, box in said):
            duplicates.add(i)
        else:
            said.append((phrase, entry.box))
    return [
        entry.model_copy(update={"kept": False, "reason": "duplicate"}) if i in duplicates else entry
        for i, entry in enumerate(entries)
    ]
