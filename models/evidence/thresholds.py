"""Thresholds of a matcher, from the probabilities that it gives to right and wrong pairs, and what reaches them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from strata.core import Profile
from strata.counts import counted
from strata.errors import InvalidInput
from strata.evaluation.intervals import Rate, wilson

LEAST_PASSING = 10  # pairs above a threshold, of which fewer would make it a matter of chance
LEAST_JUDGED = 20  # judged pairs of a layer, of which fewer say too little: of 20 right ones, 16 % may be wrong
DIGITS = 4  # significant ones of a threshold


class JudgedRates(BaseModel):
    """What people's judgments say of a threshold, each with its interval of 95 %.

    precision: of the judged phrases that reach it, those that are right; recall: of the right ones, those that reach
    it; wrong_passing: of the wrong ones, those that reach it.
    """

    precision: Rate
    recall: Rate
    wrong_passing: Rate


class Threshold(BaseModel):
    """One threshold, and what reaches it.

    pairs: mismatched pairs; passing: the share of them that reaches it. own_pairs, own_passing: the same of crops with
    their own phrases, of which nobody knows how many are right. recall: the share of labelled right pairs that reaches
    it; wrong_passing: that of labelled wrong ones; null without labels. judged: the same of what people judged in
    review; null without enough of it.
    """

    threshold: float
    pairs: int
    passing: float
    own_pairs: int
    own_passing: float
    recall: float | None = None
    wrong_passing: float | None = None
    judged: JudgedRates | None = None


@dataclass(frozen=True)
class Scores:
    """The probabilities of a layer: of mismatched pairs, of own ones, of labelled and of judged ones with their labels.

    judged: empty if people have judged too few.
    """

    mismatched: list[float]
    own: list[float]
    labelled: list[tuple[float, bool]]
    judged: list[tuple[float, bool]] = field(default_factory=list)


def threshold_of(scores: Scores, share: float, precision: float = 0.0) -> Threshold:
    """The least threshold that at most this share of the mismatched pairs reaches, and from which at least `precision`
    of the judged pairs that reach it are right.

    Raises InvalidInput if there is none: then the matcher is sure of too many wrong pairs.
    """
    ordered = sorted(scores.mismatched, reverse=True)
    # the best score that must not pass; a threshold just above it
    threshold = just_above(ordered[math.floor(share * len(ordered))])
    if threshold > 1:
        reached = _share(ordered, 1.0)
        raise InvalidInput(
            f"the matcher gives {reached:.1%} of the wrong pairs a probability of 1: no threshold parts them"
        )
    if scores.judged:
        threshold = _precise(scores.judged, threshold, precision)
    right, wrong = ([score for score, is_right in scores.labelled if is_right is told] for told in (True, False))
    return Threshold(
        threshold=threshold,
        pairs=len(ordered),
        passing=_share(ordered, threshold),
        own_pairs=len(scores.own),
        own_passing=_share(scores.own, threshold),
        recall=_share(right, threshold) if right else None,
        wrong_passing=_share(wrong, threshold) if wrong else None,
        judged=_rates(scores.judged, threshold) if scores.judged else None,
    )


def just_above(score: float) -> float:
    """The least number of DIGITS significant digits above a probability."""
    step = 10.0 ** (math.floor(math.log10(max(score, 1e-12))) + 1 - DIGITS)
    units = math.floor(score / step) + 1
    # 0.15 / 0.0001 is less than 1500 in floating point
    return next(value for value in (round(more * step, 15) for more in (units, units + 1)) if value > score)


def _precise(judged: Sequence[tuple[float, bool]], least: float, precision: float) -> float:
    """The least threshold, not below `least`, with this precision. Raises InvalidInput."""
    wrong = sorted({just_above(score) for score, right in judged if not right and score >= least})
    rates = [(threshold, _rates(judged, threshold).precision) for threshold in (least, *wrong)]
    enough = [(threshold, rate) for threshold, rate in rates if rate.judged >= LEAST_PASSING]
    for threshold, rate in enough:
        if rate.right >= precision * rate.judged:
            return threshold
    told = f"too few of them pass {least:g}"
    if enough:
        best, rate = max(enough, key=lambda one: one[1].right / one[1].judged)
        told = f"at best {rate.right} of {rate.judged} are, from {best:g}"
    raise InvalidInput(f"no threshold has {precision:.0%} right phrases of those that people judged: {told}")


def _rates(judged: Sequence[tuple[float, bool]], threshold: float) -> JudgedRates:
    passing = [right for score, right in judged if score >= threshold]
    good, bad = (sum(right is kind for _, right in judged) for kind in (True, False))
    return JudgedRates(
        precision=wilson(sum(passing), len(passing)),
        recall=wilson(sum(passing), good),
        wrong_passing=wilson(len(passing) - sum(passing), bad),
    )


def _share(scores: Sequence[float], threshold: float) -> float:
    return sum(score >= threshold for score in scores) / max(1, len(scores))


class Origin(BaseModel):
    """Where thresholds come from. source: the job or data set; share: the one that was asked for; labels: the file.

    judgments: how many judgments of people were used; precision: what was asked of what they judged.
    """

    source: str
    date: str
    images: int
    share: float
    matcher: str
    revision: str
    labels: str | None = None
    judgments: int = 0
    precision: float | None = None

    @classmethod
    def of(cls, profile: Profile, source: str, images: int, share: float, labels: Path | None) -> Origin:
        """The origin of thresholds that are found now."""
        matcher, date = profile.stages["matcher"], f"{datetime.now(UTC):%Y-%m-%d}"
        found = {"source": source, "date": date, "images": images, "share": share, "matcher": matcher.model}
        return cls.model_validate({**found, "revision": matcher.revision, "labels": str(labels) if labels else None})


def note_of(origin: Origin, thresholds: Mapping[str, Threshold]) -> str:
    """Comment lines for the profile that tell where its thresholds come from."""
    lines = [
        f"Thresholds calibrated on {origin.date} from {origin.source}: {origin.images} images; at most "
        f"{origin.share:.2%} of the mismatched pairs pass.",
        f"Matcher: {origin.matcher}, revision {origin.revision or 'not given'}.",
    ]
    if origin.precision is not None:
        used = f"{counted(origin.judgments, 'judgment')} of people"
        lines.append(f"{used}: at least {origin.precision:.0%} of the judged phrases that pass are right.")
    for layer, one in thresholds.items():
        line = f"{layer} = {one.threshold!r}: {one.passing:.2%} of {one.pairs} mismatched pairs pass, "
        line += f"and {one.own_passing:.1%} of {one.own_pairs} phrases with their own crops"
        if one.recall is not None:
            line += f"; of the right pairs in {origin.labels}: {one.recall:.1%}"
        if one.wrong_passing is not None:
            line += f"; of its wrong pairs: {one.wrong_passing:.1%}"
        lines += [f"{line}.", *_judged_lines(layer, one, origin)]
    return "".join(f"# {line}\n" for line in lines)


def _judged_lines(layer: str, one: Threshold, origin: Origin) -> list[str]:
    """What people's judgments say of a layer's threshold, in lines; none where they were not asked for."""
    if origin.precision is None:
        return []
    if one.judged is None:
        return [f"{layer}: fewer than {LEAST_JUDGED} of its phrases are judged; the mismatched pairs alone decide."]
    told = {
        "of the judged phrases that pass are right": one.judged.precision,
        "of the right ones pass": one.judged.recall,
        "of the wrong ones pass": one.judged.wrong_passing,
    }
    parts = [
        f"{rate.right} of {rate.judged} {words} ({rate.low:.3f} to {rate.high:.3f})"
        for words, rate in told.items()
        if rate.judged
    ]
    return [f"{layer}: {'; '.join(parts)}."]
