"""What each stage is asked about the pictures, and how its answers are judged.

A bound is the least that a model of the kind must reach, not what good ones reach: those of the drawings follow from
many scenes (`bench.quality`), those of the photographs are one clear thing a picture, which must be found and named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from models.boxes import iou
from models.crops import encode_mask
from models.evidence.filter import objects_matched, regions_matched, text_judged
from models.evidence.weight import weighed
from models.items import BoxedImage, CaptionRequest, ComposeRequest, Detection, Pair, ReadLine, Segment
from models.prove.checks import at_least, at_most, share_at_least, share_at_most
from models.prove.features import feature_questions
from models.prove.pictures import Picture, Thing, World, named
from models.prove.questions import Questions
from strata.core import Box, Caption, Check, EvidenceSettings, ImageReference, ObjectMask, Record, Region, kept
from strata.core.layers import TextLine

SAME_PLACE = 0.5  # IoU from which a box is that of a thing; the usual one of PASCAL VOC
# the least shares of things that are found and named, and the greatest share of texts with something that is not there
FOUND: Mapping[World, float] = {"photographs": 1.0, "drawings": 0.75}
NAMED_CROPS: Mapping[World, float] = {"photographs": 0.66, "drawings": 0.75}
REPEATED = 0.75
FILLED = 0.5  # share of given boxes with a mask that fills them
TAGGED = 0.3  # a list of words may lack those for some things, and a high threshold gives few tags
INVENTED = 0.1
MASKS: Mapping[World, float] = {"photographs": 0.6, "drawings": 0.75}  # mean IoU
PREFERRED = 0.9
MARGIN = 1.0  # mean difference of log odds; a right phrase is then e times as likely as a wrong one
JUDGING = 0.4  # share of phrases that a matcher of a closed vocabulary can judge
JUDGED = 0.7  # share of phrases on the right side of the profile's threshold
LEAST_PROBABILITY = 1e-9  # of a phrase; keeps log odds finite
UNDECIDED = 0.5  # confidence of a detector that speaks neither for nor against a name


def questions_of(
    stage: str,
    pictures: Sequence[Picture],
    world: World,
    evidence: EvidenceSettings,
    with_image: bool = False,
    boxed: bool = False,
    rated: Sequence[Any] = (),
) -> Questions | None:
    """The questions to a stage; None for a stage that is not known here.

    with_image: whether a composer sees the image; boxed: whether a segmenter makes masks of given boxes;
    rated: embeddings for rising ratings, of a stage that has them.
    """
    match stage:
        case "detector":
            return _of_detector(pictures, world)
        case "segmenter":
            return _of_segmenter(pictures, world, boxed)
        case "ocr":
            return _of_ocr(pictures, evidence)
        case "matcher" | "second_matcher":
            return _of_matcher(stage, pictures, evidence)
        case "captioner":
            return _of_captioner(pictures, world)
        case "tagger":
            return _of_tagger(pictures)
        case "composer":
            return _of_composer(pictures, with_image)
    return feature_questions(stage, pictures, rated)


def _of_detector(pictures: Sequence[Picture], world: World) -> Questions:
    """Every thing found and named; in photographs also where everything is there twice.

    A writer that may not repeat words, as Florence-2's published checkpoints say, breaks the second region of a kind.
    The demo's detector knows no pictures of that shape, and writes no texts.
    """
    twice = [picture.doubled() for picture in pictures if picture.things and world == "photographs"]
    asked = [*pictures, *twice]

    def judge(results: list[list[Detection]]) -> list[Check]:
        once = list(zip(pictures, results, strict=False))
        again = _things_with(zip(twice, results[len(pictures) :], strict=True))
        repeated = [_misnamed(*one) for one in again]
        return [
            share_at_least("detector", "finds", [_lost(*one) for one in _things_with(once)], FOUND[world]),
            share_at_least("detector", "names", [_misnamed(*one) for one in _things_with(once)], FOUND[world]),
            *([share_at_least("detector", "repeats", repeated, REPEATED)] if repeated else []),
            share_at_most("detector", "invents", [_invented(*one) for one in _phrases(once)], INVENTED),
        ]

    return Questions([picture.image for picture in asked], [picture.name for picture in asked], judge)


def _things_with(results: Iterable[tuple[Picture, Any]]) -> Iterator[tuple[Picture, Thing, Any]]:
    for picture, result in results:
        for thing in picture.things:
            yield picture, thing, result


def _phrases(results: Sequence[tuple[Picture, list[Detection]]]) -> Iterator[tuple[Picture, str]]:
    for picture, result in results:
        for entry in result:
            yield picture, entry.phrase


def _lost(picture: Picture, thing: Thing, found: list[Detection]) -> str | None:
    nearest = max((iou(entry.box, thing.box) for entry in found), default=0.0)
    return None if nearest >= SAME_PLACE else f"{picture.name}: no box at {thing.phrase} (best IoU {nearest:.2f})"


def _misnamed(picture: Picture, thing: Thing, found: list[Detection]) -> str | None:
    there = [entry.phrase for entry in found if iou(entry.box, thing.box) >= SAME_PLACE]
    if any(named(phrase, thing.words) for phrase in there):
        return None
    return f"{picture.name}: {thing.phrase} is called {', '.join(there) or 'nothing'}"


def _invented(picture: Picture, text: str) -> str | None:
    words = named(text, picture.absent)
    return f"{picture.name}: {', '.join(words)} in {text!r}" if words else None


def _of_segmenter(pictures: Sequence[Picture], world: World, boxed: bool) -> Questions:
    """The best mask of each thing whose mask is known, compared with those that are right."""

    def judge_boxed(results: list[list[Segment | None]]) -> list[Check]:
        # it may give no mask; a mask must fill the box of its thing
        lost = [
            None if one and iou(one.box, thing.box) >= SAME_PLACE else f"{picture.name}: {thing.phrase}"
            for picture, result in zip(pictures, results, strict=True)
            for thing, one in zip(picture.things, result, strict=True)
        ]
        return [share_at_least("segmenter", "masks", lost, FILLED)]

    def judge(results: list[list[Segment | None]]) -> list[Check]:
        shares, faults = [], []
        for picture, result in zip(pictures, results, strict=True):
            for thing in (thing for thing in picture.things if thing.masks):
                shares.append(
                    max((_mask_iou(one.mask, own) for one in result if one for own in thing.masks), default=0.0)
                )
                if shares[-1] < MASKS[world]:
                    faults.append(f"{picture.name}: {thing.phrase} {shares[-1]:.2f}")
        return [at_least("segmenter", "masks", float(np.mean(shares)), MASKS[world], faults)]

    items = [
        BoxedImage(one.image, tuple(thing.box for thing in one.things)) if boxed else one.image for one in pictures
    ]
    return Questions(items, [picture.name for picture in pictures], judge_boxed if boxed else judge)


def _mask_iou(one: np.typing.NDArray[np.bool_], other: np.typing.NDArray[np.bool_]) -> float:
    return float(np.logical_and(one, other).sum() / max(1, np.logical_or(one, other).sum()))


def _of_ocr(pictures: Sequence[Picture], evidence: EvidenceSettings) -> Questions:
    """Every line of the sign read where it is; nothing kept that is not there."""
    asked = [picture for picture in pictures if picture.lines is not None]

    def judge(results: list[list[ReadLine]]) -> list[Check]:
        unread: list[str | None] = []
        invented: list[str] = []
        for picture, result in zip(asked, results, strict=True):
            told = _kept_lines(picture, result, evidence)
            known = picture.lines or ()
            for line in known:
                is_read = any(_same_line(line.text, line.box, one) for one in told)
                unread.append(None if is_read else f"{line.text!r} is read as {_texts(told)}")
            plain = [_plain(line.text) for line in known]
            invented += [f"{picture.name}: {one.text!r}" for one in told if _plain(one.text) not in plain]
        return [
            share_at_least("ocr", "reads", unread, 1.0),
            at_most("ocr", "invents", float(len(invented)), 0.0, invented),
        ]

    return Questions([picture.image for picture in asked], [picture.name for picture in asked], judge)


def _kept_lines(picture: Picture, found: Sequence[ReadLine], evidence: EvidenceSettings) -> list[TextLine]:
    """The lines that the profile's filter keeps."""
    lines = [TextLine(box=line.box, text=line.text, score=line.score) for line in found]
    record = record_of(picture).model_copy(update={"text": lines})
    return kept(text_judged(record, evidence).text)


def _same_line(text: str, box: Box, read: TextLine) -> bool:
    return _plain(text) == _plain(read.text) and iou(box, read.box) >= SAME_PLACE


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


def _texts(lines: Sequence[TextLine]) -> str:
    return ", ".join(repr(line.text) for line in lines) or "nothing"


def _of_matcher(stage: str, pictures: Sequence[Picture], evidence: EvidenceSettings) -> Questions:
    """Each right phrase of a thing preferred to each wrong one, with a margin, and on the right side of the threshold.

    The phrases are asked with the crop that the pipeline would make of the thing.
    """
    asked: list[tuple[Picture, Thing, str, bool]] = [
        (picture, thing, phrase, right)
        for picture in pictures
        for thing in picture.things
        for phrases, right in ((thing.right, True), (thing.wrong, False))
        for phrase in phrases
    ]
    pairs = [Pair(thing.crop_of(picture.image), phrase) for picture, thing, phrase, _ in asked]

    def judge(results: list[float | None]) -> list[Check]:
        # a matcher of a closed vocabulary gives None for what it cannot judge
        unjudged = [repr(one[2]) if score is None else None for one, score in zip(asked, results, strict=True)]
        scored = [(*one, score) for one, score in zip(asked, results, strict=True) if score is not None]
        reversed_: list[str | None] = []
        odds: list[float] = []
        staying, dropped = list[str | None](), list[str | None]()
        for picture, thing, phrase, right, score in scored:
            told = f"{picture.name}: {phrase!r} {score:.4f}"
            stays = _is_kept(stage, phrase, thing, score, evidence)
            if stays is not None:
                (staying if right else dropped).append(told if stays is not right else None)
            if not right:
                continue
            rivals = [(other, value) for _, of, other, true, value in scored if of is thing and not true]
            reversed_ += [None if score > value else f"{told}, {other!r} {value:.4f}" for other, value in rivals]
            odds += [_log_odds(score) - _log_odds(value) for _, value in rivals]
        return [
            share_at_least(stage, "judges", unjudged, JUDGING),
            share_at_least(stage, "prefers", reversed_, PREFERRED),
            at_least(stage, "margin", float(np.mean(odds)), MARGIN),
            share_at_least(stage, "keeps", staying, JUDGED),
            share_at_least(stage, "drops", dropped, JUDGED),
        ]

    return Questions(pairs, [f"{picture.name}, {phrase}" for picture, _, phrase, _ in asked], judge)


def _is_kept(stage: str, phrase: str, thing: Thing, score: float, evidence: EvidenceSettings) -> bool | None:
    """Whether the profile's filter keeps an entry with this probability, of a detector or segmenter that is sure.

    None for a second matcher that the profile does not ask about such entries. If the profile weighs names, this
    probability must decide there too.
    """
    if stage == "second_matcher":
        least = getattr(evidence, "second_object" if thing.masks else "second_region", None)
        return None if least is None else bool(score >= least)
    # this matcher's opinion alone, whatever a second one would say
    evidence = evidence.model_copy(update={"second_region": None, "second_object": None})
    if evidence.weight is not None and not _weighs_enough(phrase, thing, score, evidence):
        return False
    reference = ImageReference(uri="", size=0)
    if thing.masks:
        one = ObjectMask(box=thing.box, mask=encode_mask(thing.masks[0]), area=1, phrase=phrase, score=1.0)
        return bool(kept(objects_matched(Record(key="", image=reference, objects=[one]), [score], evidence).objects))
    region = Region(box=thing.box, phrase=phrase, score=1.0)
    return bool(kept(regions_matched(Record(key="", image=reference, regions=[region]), [score], evidence).regions))


def _weighs_enough(phrase: str, thing: Thing, score: float, evidence: EvidenceSettings) -> bool:
    """Whether a name with this probability has enough weight if captions and an undecided detector give it too."""
    region = Region(box=thing.box, phrase=phrase, score=UNDECIDED, match=score)
    masks = [
        ObjectMask(box=thing.box, mask=encode_mask(mask), area=1, phrase=phrase, match=score)
        for mask in thing.masks[:1]
    ]
    caption = Caption(text=phrase, score=1.0)
    record = Record(key="", image=ImageReference(uri="", size=0), caption=caption, regions=[region], objects=masks)
    return bool(kept(weighed(record, evidence.weight or 0.0, evidence.weights).regions))


def _log_odds(probability: float) -> float:
    inside = min(max(probability, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)
    return math.log(inside / (1 - inside))


def _of_captioner(pictures: Sequence[Picture], world: World) -> Questions:
    """A caption of each picture, and a phrase for the crop of each thing."""
    crops = [(picture, thing) for picture in pictures for thing in picture.things]
    items = [CaptionRequest(picture.image) for picture in pictures]
    items += [CaptionRequest(thing.crop_of(picture.image), "crop") for picture, thing in crops]
    names = [picture.name for picture in pictures] + [f"{picture.name}, {thing.phrase}" for picture, thing in crops]

    def judge(results: list[str]) -> list[Check]:
        scenes, phrases = list(zip(pictures, results, strict=False)), results[len(pictures) :]
        whole = [_unnamed(*one) for one in _things_with(scenes)]
        parts = [_unnamed(*crop, phrase) for crop, phrase in zip(crops, phrases, strict=True)]
        invented = [_invented(*one) for one in [*scenes, *zip((one for one, _ in crops), phrases, strict=True)]]
        return [
            share_at_least("captioner", "names", whole, FOUND[world]),
            share_at_least("captioner", "crops", parts, NAMED_CROPS[world]),
            share_at_most("captioner", "invents", invented, INVENTED),
        ]

    return Questions(items, names, judge)


def _unnamed(picture: Picture, thing: Thing, text: str) -> str | None:
    return None if named(text, thing.words) else f"{picture.name}: {thing.phrase} is not in {text!r}"


def _of_tagger(pictures: Sequence[Picture]) -> Questions:
    """Words for whole pictures: one for each thing, and none for what is absent."""

    def judge(results: list[list[Any]]) -> list[Check]:
        # a high threshold gives few tags: a picture without any tells nothing wrong
        tagged = list(zip(pictures, (", ".join(tag.word for tag in result) for result in results), strict=True))
        said = [_unnamed(*one) for one in _things_with(tagged) if one[2]]
        return [
            share_at_least("tagger", "names", said or [None], TAGGED),
            share_at_most("tagger", "invents", [_invented(*one) for one in tagged], INVENTED),
        ]

    return Questions([picture.image for picture in pictures], [picture.name for picture in pictures], judge)


def _of_composer(pictures: Sequence[Picture], with_image: bool) -> Questions:
    """A description from the notes of each picture: it has every thing and every line of text, and nothing else."""
    items = [ComposeRequest(record_of(picture), picture.image if with_image else None) for picture in pictures]

    def judge(results: list[str]) -> list[Check]:
        told = list(zip(pictures, results, strict=True))
        unread = [
            None if _plain(line.text) in _plain(text) else f"{picture.name}: {line.text!r} is not in {text!r}"
            for picture, text in told
            for line in picture.lines or ()
        ]
        return [
            share_at_least("composer", "names", [_unnamed(*one) for one in _things_with(told)], 1.0),
            share_at_least("composer", "quotes", unread, 0.5),
            share_at_most("composer", "invents", [_invented(*one) for one in told], 0.0),
        ]

    return Questions(items, [picture.name for picture in pictures], judge)


def record_of(picture: Picture) -> Record:
    """A record with the truth of a picture as its layers."""
    return Record(
        key=picture.name,
        image=ImageReference(uri=picture.name, size=0),
        width=picture.image.width,
        height=picture.image.height,
        caption=Caption(text=picture.caption, score=1.0),
        regions=[Region(box=thing.box, phrase=thing.phrase, score=1.0) for thing in picture.things],
        text=[TextLine(box=line.box, text=line.text, score=1.0) for line in picture.lines or ()],
    )
