"""The evidence filter: which layer entries are kept, by matcher probability, score, contradictions and duplicates.

It works in steps, so that the matcher runs only on entries that can still be kept: `before_matching`,
`regions_matched`, `objects_matched`, and `text_judged` once the text is known. The result is the same as if the matcher
had run on all entries. Layers that were not computed stay null. Without a matcher only the stages' own scores count.

The default thresholds 0.4 (regions), 0.85 (text), 0.5 (objects) and the IoU of 0.6 are those of Monkey's
`data_generation/` (arXiv 2311.06607); a profile may set others that fit its matcher. A dropped entry stays in its
layer with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from models.boxes import iou
from models.items import Failure
from strata.core import Box, Evidence, EvidenceSettings, ObjectMask, Record, Region
from strata.core.layers import TextLine

# PP-OCR reads a character or two in whole pictures that have no text, with scores up to 0.99: a cup from above is "8".
# The share of a picture that a character may cover was measured on samples/photographs (docs/decisions.md).
LARGEST_CHARACTER = 0.25

Entry = TypeVar("Entry", bound=Evidence)


def before_matching(record: Record, settings: EvidenceSettings) -> Record:
    """Drop regions with a low detector score, and regions and objects that contradict one another."""
    # no matcher call for regions that the detector itself is not sure of
    regions = [_judge(region, region.score, settings.region_score, "low_score") for region in record.regions or ()]
    objects = list(record.objects or ())
    if settings.contradiction_iou is not None:
        # both sides are compared with the lists from before, so that the order of comparison does not matter
        least = settings.contradiction_iou
        regions, objects = _undisputed(regions, objects, least), _undisputed(objects, regions, least)
    return _with_layers(record, regions=regions, objects=objects)


# of a matcher, for each of its pairs; None: it cannot judge the phrase, or was not asked
Matches = Sequence[float | Failure | None]


def regions_matched(
    record: Record, matches: Matches | None, settings: EvidenceSettings, second: Matches | None = None
) -> Record:
    """Drop regions that the matcher scores low, rivals of a better region, and duplicates among regions and objects.

    matches: of the caption, if there is one, and of each kept region, in order; None: no matcher. second: likewise of
    the second matcher.
    """
    # the order of the pairs of `Observed.caption_and_regions`: the caption first
    remaining = _opinions(matches, second)
    caption = record.caption and _matched(record.caption, remaining, settings.caption)
    regions = [
        _agreed(
            _matched(region, remaining, settings.region, settings.second_region, settings.unmatched_score),
            settings.agreement,
        )
        for region in record.regions or ()
    ]
    # a region that the matcher drops must not suppress one that it keeps
    if settings.rival_iou is not None:
        regions = _without_rivals(regions, settings.rival_iou)
    if settings.duplicates == "monkey":  # knows duplicates among objects alone
        return _with_layers(record, caption=caption, regions=regions)
    # duplicates last, for the same reason
    regions = _without_duplicates(regions, settings.duplicate_iou)
    record = _with_layers(record, caption=caption, regions=regions)
    # where names are weighed, the matcher is asked about the object's own crop too, and repeats are dropped afterwards
    return record if settings.weight is not None else without_repeats(record, settings)


def without_repeats(record: Record, settings: EvidenceSettings) -> Record:
    """Drop objects that have the phrase of a kept region at nearly the same box."""
    known = [region for region in record.regions or () if region.kept]
    objects = [
        _duplicate(thing) if thing.kept and _repeats(thing, known, settings.duplicate_iou) else thing
        for thing in record.objects or ()
    ]
    return _with_layers(record, objects=objects)


def objects_matched(
    record: Record, matches: Matches | None, settings: EvidenceSettings, second: Matches | None = None
) -> Record:
    """Drop objects that the matcher scores low, or that are duplicates of one with a better match.

    matches: of each kept object that has a phrase, in order; None: no matcher. second: of the second matcher.
    """
    # objects without a phrase (no captioner) cannot be matched and are kept
    remaining = _opinions(matches, second)
    objects = [
        thing if thing.phrase is None else _matched(thing, remaining, settings.object, settings.second_object)
        for thing in record.objects or ()
    ]
    if settings.duplicates == "monkey":
        return _with_layers(record, objects=_first_of_phrase(objects, record, settings.duplicate_iou))
    return _with_layers(record, objects=_without_duplicates(objects, settings.duplicate_iou))


def text_judged(record: Record, settings: EvidenceSettings) -> Record:
    """Drop lines of text with a low OCR score, with too few letters, or whose characters fill the picture.

    No matcher judges text. A star or an arrow that the OCR reads is a drawing: no sentence can quote it.
    """
    text = [_judge(line, line.score, settings.text, "low_score") for line in record.text or ()]
    text = [_drops_if(line, _letters(line) == 0, "no_letters") for line in text]
    text = [_drops_if(line, _letters(line) < (settings.text_letters or 0), "too_short") for line in text]
    text = [_drops_if(line, _fills(line, record), "too_large") for line in text]
    return _with_layers(record, text=text)


def _letters(line: TextLine) -> int:
    return sum(map(str.isalnum, line.text))


def _drops_if(line: TextLine, wrong: bool, reason: str) -> TextLine:
    return _dropped(line, reason) if line.kept and wrong else line


def _fills(line: TextLine, record: Record) -> bool:
    """Whether each letter or digit of a line covers more than LARGEST_CHARACTER of its image."""
    if record.width is None or record.height is None:
        return False
    left, top, right, bottom = line.box
    return (right - left) * (bottom - top) > max(1, _letters(line)) * LARGEST_CHARACTER * record.width * record.height


def _with_layers(record: Record, **layers: Any) -> Record:
    """Replace some layers of a record; a layer that was not computed stays null."""
    known = {name: value for name, value in layers.items() if getattr(record, name) is not None}
    return record.model_copy(update=known)


Opinions = Iterator[tuple[float | Failure | None, float | Failure | None]]  # of the first and of the second matcher


def _opinions(matches: Matches | None, second: Matches | None) -> Opinions | None:
    if matches is None:
        return None
    return iter(zip(matches, [None] * len(matches) if second is None else second, strict=True))


def _matched(
    entry: Entry,
    opinions: Opinions | None,
    threshold: float,
    second_threshold: float | None = None,
    unmatched: float | None = None,
) -> Entry:
    """The entry with its probability, judged by the thresholds of both matchers. The next of `opinions` are its own.

    unmatched: the least score of an entry that the first matcher cannot judge; None: such entries stay.
    """
    # dropped entries had no pair, so they take no probability
    if not entry.kept or opinions is None:
        return entry
    match, second = next(opinions)
    if isinstance(match, Failure):
        return _dropped(entry, match.reason)
    if match is None:
        entry = entry if unmatched is None else _judge(entry, entry.score, unmatched, "low_score")
    else:
        entry = _judge(entry.model_copy(update={"match": match}), match, threshold, "low_match")
    if isinstance(second, Failure):
        return _dropped(entry, second.reason) if entry.kept else entry
    return entry if second_threshold is None else _judge(entry, second, second_threshold, "low_second_match")


def _agreed(region: Region, threshold: float | None) -> Region:
    """Drop a region if detector and matcher together are not sure enough."""
    if threshold is None or region.match is None:
        return region
    return _judge(region, _weight(region), threshold, "low_match")


def _judge(entry: Entry, value: float | None, threshold: float, reason: str) -> Entry:
    """Drop the entry with a reason if its value is below the threshold; without a value it stays as it is."""
    if not entry.kept or value is None or value >= threshold:
        return entry
    return _dropped(entry, reason)


Named = TypeVar("Named", Region, ObjectMask)


def _undisputed(entries: list[Named], others: Sequence[Region | ObjectMask], least_iou: float) -> list[Named]:
    """Drop entries that overlap an entry of `others` with another phrase: one of the two models must be wrong.

    The caller drops both sides, because it is not known which is right. Dropped entries of `others` count too.
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


def _without_rivals(regions: Sequence[Region], threshold: float) -> list[Region]:
    """Drop regions at nearly the same box as a kept one with another phrase that is more trusted."""
    # greedy, from the most trusted region on, as in non-maximum suppression
    best: list[Region] = []
    for region in sorted((region for region in regions if region.kept), key=lambda region: -_weight(region)):
        rivals = (iou(region.box, other.box) >= threshold for other in best if other.phrase != region.phrase)
        if not any(rivals):
            best.append(region)
    kept = {id(region) for region in best}
    return [
        region.model_copy(update={"kept": False, "reason": "contradicted"})
        if region.kept and id(region) not in kept
        else region
        for region in regions
    ]


def _weight(region: Region) -> float:
    """How sure detector and matcher are together; a region that the matcher cannot judge has only its score."""
    return (region.score or 0.0) * (1.0 if region.match is None else region.match)


def _without_duplicates(entries: Sequence[Named], threshold: float) -> list[Named]:
    """Drop duplicates: of entries with the same phrase at nearly the same box, the one with the best match is kept.

    Without a matcher the best score decides. The order of the entries does not change.
    """
    # greedy, from the most trusted entry on, as in non-maximum suppression
    best: list[Named] = []
    for entry in sorted((entry for entry in entries if entry.kept), key=lambda entry: -_trust(entry)):
        if not _repeats(entry, best, threshold):
            best.append(entry)
    # by identity: two entries may be equal in all fields, and only one of them is kept
    kept = {id(entry) for entry in best}
    return [_duplicate(entry) if entry.kept and id(entry) not in kept else entry for entry in entries]


def _first_of_phrase(objects: Sequence[ObjectMask], record: Record, threshold: float) -> list[ObjectMask]:
    """Drop objects with the phrase of an earlier one, by Monkey's measure (data_generation/add_all_json.py).

    That is the IoU of boxes in fractions of the image, with 1 added to each width and height, which is right for pixels
    only: two boxes of a tenth of the image still have 0.83 side by side, 0.69 with another one between them, and 0.02
    in opposite corners. Each object is compared with the first of its phrase alone.
    """
    size = (record.width or 1, record.height or 1) * 2
    first: dict[str, Box] = {}
    remaining = []
    for thing in objects:
        if thing.kept and thing.phrase is not None:
            x1, y1, x2, y2 = (side / whole for side, whole in zip(thing.box, size, strict=True))
            box: Box = (x1, y1, x2, y2)
            known = first.setdefault(thing.phrase, box)
            if known is not box and iou(known, box, border=1.0) >= threshold:
                thing = _duplicate(thing)
        remaining.append(thing)
    return remaining


def _trust(entry: Evidence) -> float:
    """The matcher's probability, or without a matcher the stage's score."""
    return entry.match if entry.match is not None else entry.score or 0.0


def _repeats(entry: Named, others: Sequence[Region | ObjectMask], threshold: float) -> bool:
    if entry.phrase is None:
        return False
    phrase = entry.phrase.lower()
    return any(phrase == (other.phrase or "").lower() and iou(entry.box, other.box) >= threshold for other in others)


def _duplicate(entry: Named) -> Named:
    return _dropped(entry, "duplicate")


def _dropped(entry: Entry, reason: str) -> Entry:
    return entry.model_copy(update={"kept": False, "reason": reason})
