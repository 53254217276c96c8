"""What a matcher says of the phrases of a job and of those of other images: from it `thresholds.py` finds thresholds.

A phrase that describes another image is wrong for a crop, nearly always. So the share of such mismatched pairs that
reaches a threshold tells how many wrong phrases it keeps, and the threshold that a given share of them reaches is found
from the user's own images. What is lost by it only labelled pairs can tell: the share of right phrases that it keeps.
What people said in review gives such pairs: then a threshold is raised until enough of the judged phrases that reach it
are right.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from models.base import MatcherStage
from models.building import build_stage, load_stages
from models.crops import crop_box, crop_segment, decode_mask
from models.evidence.thresholds import LEAST_JUDGED, LEAST_PASSING, Scores
from models.items import Failure, Pair, Segment
from models.weights.cache import fetched_for
from strata.core import Box, Profile, Record
from strata.errors import InvalidInput

LAYERS = ("region", "object")  # the thresholds of a profile that are found
PER_CROP = 8  # mismatched phrases of a crop
LONGEST = 768  # pixels of a side of a crop
_SEED = 0  # of the choice of phrases, so that the same job gives the same thresholds

# an image, a box in it (None: all of it), a phrase, whether it is right, and the layer: that of strata.data
LabelledPair = tuple[Image.Image, Box | None, str, bool, str]
Advance = Callable[[int, int], None]  # pairs that are scored, and all


@dataclass(frozen=True, eq=False)
class Crop:
    """A crop as the matcher sees it, the phrase that it got, its layer ("region", "object"), and its image's number.

    entry: its name in the record ("regions/0").
    """

    image: Image.Image
    phrase: str
    layer: str
    number: int
    entry: str = ""


@dataclass(frozen=True, eq=False)
class Judged:
    """Crops with phrases that people have judged: whether each is right. judgments: how many were used.

    The others were not: stale ones judge sentences that the description has no more, other ones the description of
    another version of a profile (fingerprint).
    """

    crops: list[tuple[Crop, bool]]
    judgments: int
    stale: int = 0
    other: int = 0

    @classmethod
    def of(
        cls, images: Iterable[tuple[Record, Image.Image, tuple[Mapping[str, bool], int, int]]], other: int
    ) -> Judged:
        """From records, their images, and what `strata.judgments.labels_of` says of each. Raises what images raises."""
        crops: list[tuple[Crop, bool]] = []
        judgments = stale = 0
        for number, (record, image, (right, used, unused)) in enumerate(images):
            found = [crop for crop in crops_of(record, image, number) if crop.entry in right]
            crops += [(crop, right[crop.entry]) for crop in found]
            judgments += used if found else 0
            stale += unused
        return cls(crops, judgments, stale, other)

    def of_layer(self, layer: str) -> list[tuple[Crop, bool]]:
        return [(crop, right) for crop, right in self.crops if crop.layer == layer]

    def refused(self) -> str | None:
        """Why they cannot be used, in one line; None if one layer has enough."""
        counts = {layer: len(self.of_layer(layer)) for layer in LAYERS}
        if max(counts.values()) >= LEAST_JUDGED:
            return None
        told = " and ".join(f"{count} of {layer}s" for layer, count in counts.items())
        return f"too few judgments: {LEAST_JUDGED} judged phrases are needed, and there are {told}{self.unused()}"

    def unused(self) -> str:
        """How many judgments were not used, and why."""
        notes = [f"; {self.stale} more are of sentences that the descriptions do not have"] if self.stale else []
        notes += [f"; {self.other} more are of other versions of these images' descriptions"] if self.other else []
        return "".join(notes)


def crops_of(record: Record, image: Image.Image, number: int) -> Iterator[Crop]:
    """The crops of a record's regions and objects that have phrases, whether they were kept or not."""
    for place, region in enumerate(record.regions or ()):
        yield Crop(_reduced(crop_box(image, region.box)), region.phrase, "region", number, f"regions/{place}")
    for place, thing in enumerate(record.objects or ()):
        if thing.phrase is not None:
            crop = crop_segment(image, Segment(decode_mask(thing.mask), thing.box, 1.0))
            yield Crop(_reduced(crop), thing.phrase, "object", number, f"objects/{place}")


def _reduced(crop: Image.Image) -> Image.Image:
    """The crop with at most LONGEST pixels a side: matchers see fewer, and all crops of a calibration are in memory."""
    crop.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC)
    return crop


def mismatched(crops: Sequence[Crop]) -> list[Pair]:
    """Each crop with up to PER_CROP phrases of other images, none of which its own image has."""
    chance = random.Random(_SEED)
    own: dict[int, set[str]] = {}
    for crop in crops:
        own.setdefault(crop.number, set()).add(crop.phrase.lower())
    pairs = []
    for crop in crops:
        others = chance.sample(crops, min(len(crops), 4 * PER_CROP))
        phrases = {other.phrase for other in others if other.phrase.lower() not in own[crop.number]}
        pairs += [Pair(crop.image, phrase) for phrase in sorted(phrases)[:PER_CROP]]
    return pairs


def scores_of(
    profile: Profile,
    crops: Sequence[Crop],
    labels: Sequence[LabelledPair],
    share: float,
    advance: Advance,
    judged: Judged | None = None,
) -> dict[str, Scores]:
    """Score the pairs of each layer that has enough phrases with the profile's matcher.

    advance: is called once the matcher is loaded, and after every two batches.
    Raises InvalidInput for too few phrases, and the errors of `load_stages`.
    """
    by_layer = {layer: [crop for crop in crops if crop.layer == layer] for layer in LAYERS}
    wrong = {layer: mismatched(found) for layer, found in by_layer.items()}
    # before the weights are loaded
    layers = _scored(wrong, math.ceil(LEAST_PASSING / share), share)
    stage: MatcherStage = build_stage("matcher", profile.stages["matcher"])
    with fetched_for(profile.name):
        load_stages({"matcher": stage})
    told = {layer: [(_pair(*one), one[3]) for one in labels if one[4] == layer] for layer in layers}
    said = {layer: _judged_pairs(judged, layer) for layer in layers}
    total = sum(len(pairs[layer]) for pairs in (wrong, by_layer, told, said) for layer in layers)
    advance(0, total)
    run = _Scorer(stage, total, advance)
    result = {}
    for layer in layers:
        own = run.scores([Pair(crop.image, crop.phrase) for crop in by_layer[layer]])
        known, answers = run.labelled(told[layer]), run.labelled(said[layer])
        result[layer] = Scores(_known(run.scores(wrong[layer])), _known(own), known, answers)
    return result


def _judged_pairs(judged: Judged | None, layer: str) -> list[tuple[Pair, bool]]:
    """The judged pairs of a layer; none if they are too few."""
    found = judged.of_layer(layer) if judged is not None else []
    return [(Pair(crop.image, crop.phrase), right) for crop, right in found] if len(found) >= LEAST_JUDGED else []


def _scored(wrong: Mapping[str, Sequence[Pair]], needed: int, share: float) -> list[str]:
    """The layers with enough mismatched pairs. Raises InvalidInput if there is none."""
    layers = [layer for layer, pairs in wrong.items() if len(pairs) >= needed]
    if not layers:
        told = " and ".join(f"{len(pairs)} of {layer}s" for layer, pairs in wrong.items())
        raise InvalidInput(
            f"too few phrases: a share of {share:g} needs {needed} pairs of a crop and another image's phrase, "
            f"and there are {told}; describe more images"
        )
    return layers


def _pair(image: Image.Image, box: Box | None, phrase: str, *_: object) -> Pair:
    return Pair(crop_box(image, box) if box else image, phrase)


def _known(scores: Sequence[float | None]) -> list[float]:
    return [score for score in scores if score is not None]


class _Scorer:
    """Runs a matcher on pairs, two batches at a time, and reports how many are scored."""

    def __init__(self, stage: MatcherStage, total: int, advance: Advance) -> None:
        self._stage, self._total, self._advance, self._done = stage, total, advance, 0

    def scores(self, pairs: Sequence[Pair]) -> list[float | None]:
        """The probability of each pair; None where the matcher fails or cannot judge the phrase."""
        found: list[float | None] = []
        step = 2 * self._stage.settings.batch_size
        for first in range(0, len(pairs), step):
            results = self._stage.run(pairs[first : first + step])
            found += [None if isinstance(result, Failure) or result is None else float(result) for result in results]
            self._done += len(results)
            self._advance(self._done, self._total)
        return found

    def labelled(self, pairs: Sequence[tuple[Pair, bool]]) -> list[tuple[float, bool]]:
        """The probability of each pair with its label; without those that the matcher cannot judge."""
        scores = self.scores([pair for pair, _ in pairs])
        return [(score, right) for score, (_, right) in zip(scores, pairs, strict=True) if score is not None]
