"""How far reviewers agree: Krippendorff's alpha of their verdicts.

K. Krippendorff, "Content Analysis", 4th edition, 2019, chapter 12; nominal data. The package `krippendorff` computes
the same, but its licence (GPL) does not fit Strata's: the tests compare both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations

from pydantic import BaseModel

from strata.judgments.history import current
from strata.judgments.judgment import Judgment, Subject


def alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha of nominal values: 1 is perfect agreement, 0 what chance gives, below it is disagreement.

    units: for each thing that was judged the values that it got, in any order. None if fewer than two values can be
    compared, or if all are equal: then nothing tells agreement from chance.
    """
    # coincidences of the values of a unit with each other, each unit weighted by 1 / (values - 1)
    totals: Counter[Hashable] = Counter()
    disagreement = 0.0
    for unit in units:
        if len(unit) < 2:
            continue
        counts = Counter(unit)
        totals.update(counts)
        disagreement += sum(count * (len(unit) - count) for count in counts.values()) / (len(unit) - 1)
    number = sum(totals.values())
    by_chance = sum(count * (number - count) for count in totals.values())
    if number < 2 or not by_chance:
        return None
    return 1 - (number - 1) * disagreement / by_chance


class PairAgreement(BaseModel):
    """How far two reviewers agree. records: that both have judged; equal: with the same verdict."""

    reviewers: tuple[str, str]
    records: int
    equal: int
    alpha: float | None


class Disagreement(BaseModel):
    """A record of which reviewers say different things, with the verdict of each."""

    job: str
    fingerprint: str
    identity: str
    key: str
    verdicts: dict[str, str]


class Agreement(BaseModel):
    """How far all reviewers agree. alpha: of the verdicts on records; null if it is not defined.

    passes_alpha: of the question whether a record is rejected; sentence_alpha: of the verdicts on sentences, where an
    accepted record accepts each that has no verdict of its own. records: with two judgments or more.
    """

    reviewers: dict[str, int]
    records: int
    alpha: float | None
    passes_alpha: float | None
    sentence_alpha: float | None
    pairs: list[PairAgreement]
    disagreements: list[Disagreement]


SHOWN = 200  # disagreements that are listed


def agreement_of(judgments: Iterable[Judgment]) -> Agreement:
    """How far the reviewers of some judgments agree, by the judgment of each that counts."""
    counting = current(judgments)
    units: dict[Subject, dict[str, Judgment]] = defaultdict(dict)
    for one in counting:
        units[one.subject][one.reviewer] = one
    reviewers = Counter(one.reviewer for one in counting)
    several = [by for by in units.values() if len(by) > 1]
    verdicts = [[one.verdict for one in by.values()] for by in several]
    differing = [by for by in several if len({one.verdict for one in by.values()}) > 1]
    return Agreement(
        reviewers=dict(sorted(reviewers.items())),
        records=len(several),
        alpha=alpha(verdicts),
        passes_alpha=alpha([[verdict != "rejected" for verdict in unit] for unit in verdicts]),
        sentence_alpha=alpha(_sentence_units(several)),
        pairs=[_pair(a, b, several) for a, b in combinations(sorted(reviewers), 2)],
        disagreements=[_disagreement(by) for by in differing[:SHOWN]],
    )


def _pair(first: str, second: str, units: Sequence[dict[str, Judgment]]) -> PairAgreement:
    both = [[by[first].verdict, by[second].verdict] for by in units if first in by and second in by]
    equal = sum(a == b for a, b in both)
    return PairAgreement(reviewers=(first, second), records=len(both), equal=equal, alpha=alpha(both))


def _disagreement(by: dict[str, Judgment]) -> Disagreement:
    one = next(iter(by.values()))
    verdicts: dict[str, str] = {reviewer: judgment.verdict for reviewer, judgment in sorted(by.items())}
    return Disagreement(job=one.job, **one.subject._asdict(), verdicts=verdicts)


def _sentence_units(units: Sequence[dict[str, Judgment]]) -> list[list[str]]:
    """The verdicts on each sentence that somebody judged, of all who judged its record sentence by sentence."""
    found = []
    for by in units:
        named = sorted({sentence.index for one in by.values() for sentence in one.sentences})
        for index in named:
            verdicts = (_verdict_on(index, one) for one in by.values())
            found.append([verdict for verdict in verdicts if verdict is not None])
    return found


def _verdict_on(index: int, judgment: Judgment) -> str | None:
    """What a judgment says of a sentence; None of a rejected description without a verdict on it."""
    given = {sentence.index: sentence.verdict for sentence in judgment.sentences}
    return given.get(index, "accepted" if judgment.verdict in ("accepted", "edited") else None)
