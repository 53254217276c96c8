"""A plain composition from the layers, for a record of whose composed text nothing is left."""

from __future__ import annotations

from models.kinds.counting import counts_and_places
from strata.core import NOTHING_FOUND, Record, Region, kept

MOST_NOTES = 12  # things, and lines of text


def plain_text(record: Record) -> str:
    """Counts, places and text by a fixed grammar; else the caption; else NOTHING_FOUND."""
    regions = list(kept(record.regions))
    # objects alone, where there is no detector
    if not regions:
        objects = [thing for thing in kept(record.objects) if thing.phrase]
        regions = [
            Region(box=thing.box, phrase=thing.phrase, score=thing.score, match=thing.match) for thing in objects
        ]
    text = counts_and_places(record.model_copy(update={"regions": regions}), MOST_NOTES)
    if text == NOTHING_FOUND and record.caption and record.caption.kept:
        return record.caption.text
    return text
