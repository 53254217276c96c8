"""Sentences and texts on their images, as a profile's matcher judges them.

A matcher gives a probability: a model of the CLIP family from a cosine, `blip2` from its head, and `yes` is the
probability of "Yes" that a model which sees images gives to a question. So the same figures come from all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from models.base import MatcherStage
from models.building import build_stage, load_stages
from models.crops import crop_box
from models.items import Failure, Pair
from models.sentences import sentences_of
from models.stages.matcher import OpenClipMatcher
from models.weights.cache import fetched_for
from strata.core import LAYERS, Box, Profile, Record
from strata.evaluation.figures import Counts
from strata.evaluation.texts import Text, texts_of

CLIP_WEIGHT = 2.5  # Hessel et al., "CLIPScore", 2021, arXiv 2104.08718, section 3
TOGETHER = 16  # images whose pairs are scored together; a text is compared with the next image of them
LONGEST = 768  # pixels of a side of an image that is scored
MATCHERS = ("matcher", "second_matcher")
_QUOTED = re.compile(r"“[^“”]*”|[\"“][^\"”]*[\"”]|«[^»]*»|「[^」]*」")


class Seen(NamedTuple):
    """A record with its image, and its key in the evaluation."""

    key: str
    record: Record
    image: Image.Image


@dataclass(frozen=True)
class _Asked:
    """One pair that is scored, and what it counts for. figure: "own", "other" or "sentence"."""

    key: str
    text: str
    figure: str
    pair: Pair


def matched(
    profile: Profile, images: Iterator[Seen], advance: Callable[[int], None]
) -> Iterator[tuple[str, dict[str, Counts]]]:
    """The figures of each image's texts by the profile's matchers. advance: is called with the number of images so far.

    Raises the errors of `load_stages`.
    """
    stages: dict[str, MatcherStage] = {
        name: build_stage(name, profile.stages[name]) for name in MATCHERS if name in profile.stages
    }
    with fetched_for(profile.name):
        load_stages(stages)
    done = 0
    batch: list[Seen] = []
    for seen in images:
        seen.image.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC)
        batch.append(seen)
        if len(batch) == TOGETHER:
            yield from _of_batch(stages, batch)
            done += len(batch)
            advance(done)
            batch = []
    yield from _of_batch(stages, batch)
    advance(done + len(batch))


def _of_batch(stages: dict[str, MatcherStage], batch: Sequence[Seen]) -> Iterator[tuple[str, dict[str, Counts]]]:
    asked = [pair for place, seen in enumerate(batch) for pair in _pairs(seen, batch, place)]
    found: dict[str, dict[str, Counts]] = {seen.key: {} for seen in batch}
    for name, stage in stages.items():
        scores = _scores(stage, [one.pair for one in asked])
        suffix = "" if name == "matcher" else "_second"
        for (key, text), counts in _counted(asked, scores, suffix).items():
            found[key].setdefault(text, {}).update(counts)
        if isinstance(stage, OpenClipMatcher) and not suffix:
            own = [one for one in asked if one.figure == "own"]
            for one, cosine in zip(own, stage.cosines([one.pair for one in own]), strict=True):
                found[one.key][one.text]["clip_score"] = (CLIP_WEIGHT * max(0.0, cosine), 1)
    yield from found.items()


def _pairs(seen: Seen, batch: Sequence[Seen], place: int) -> Iterator[_Asked]:
    """A text on its own image and on the next one, and each sentence on the crop of its evidence."""
    other = batch[(place + 1) % len(batch)]
    for text in texts_of(seen.record):
        if not text.text or text.listed:
            continue
        yield _Asked(seen.key, text.name, "own", Pair(seen.image, text.text))
        if other.key != seen.key:
            yield _Asked(seen.key, text.name, "other", Pair(other.image, text.text))
        for sentence, crop in _sentences(text, seen):
            yield _Asked(seen.key, text.name, "sentence", Pair(crop, sentence))


def _sentences(text: Text, seen: Seen) -> Iterator[tuple[str, Image.Image]]:
    """The sentences of a text with the crops that show what they rest on; a quotation alone is for no matcher."""
    told = text.sentences or ()
    known = {one.text: one.evidence for one in told}
    for sentence in known or dict.fromkeys(sentences_of(text.text)):
        if _QUOTED.sub("", sentence).strip(" .!?"):
            boxes = [box for name in known.get(sentence, ()) if (box := _box(seen.record, name))]
            yield sentence, _cropped(seen, boxes) if boxes else seen.image


def _box(record: Record, name: str) -> Box | None:
    """The box of an entry by its name, such as "regions/0"; None if it has none."""
    layer, _, number = name.partition("/")
    if layer not in LAYERS or not LAYERS[layer].boxed or not number.isdigit():
        return None
    entries = getattr(record, layer) or ()
    return entries[int(number)].box if int(number) < len(entries) else None


def _cropped(seen: Seen, boxes: Sequence[Box]) -> Image.Image:
    """The part of the image around all boxes. The image may have been made smaller than the record says."""
    width, height = seen.record.width or seen.image.width, seen.record.height or seen.image.height
    across, down = seen.image.width / width, seen.image.height / height
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return crop_box(seen.image, (min(lefts) * across, min(tops) * down, max(rights) * across, max(bottoms) * down))


def _scores(stage: MatcherStage, pairs: Sequence[Pair]) -> list[float | None]:
    """The probability of each pair, None where the matcher fails or cannot judge."""
    found: list[float | None] = []
    step = 2 * stage.settings.batch_size
    for first in range(0, len(pairs), step):
        results = stage.run(pairs[first : first + step])
        found += [None if isinstance(one, Failure) or one is None else float(one) for one in results]
    return found


def _counted(asked: Sequence[_Asked], scores: Sequence[float | None], suffix: str) -> dict[tuple[str, str], Counts]:
    by_text: dict[tuple[str, str], dict[str, list[float]]] = {}
    for one, score in zip(asked, scores, strict=True):
        if score is not None:
            by_text.setdefault((one.key, one.text), {}).setdefault(one.figure, []).append(score)
    counts: dict[tuple[str, str], Counts] = {}
    for place, by_figure in by_text.items():
        sentences = by_figure.get("sentence", [])
        counts[place] = {f"sentences_matched{suffix}": (sum(sentences), len(sentences))}
        if "own" in by_figure and "other" in by_figure:
            own, other = by_figure["own"][0], by_figure["other"][0]
            counts[place][f"own_image_preferred{suffix}"] = ((own > other) + (own == other) / 2, 1)
    return counts
