"""What people said in review, as rates with intervals: how many descriptions and sentences are right.

The intervals are those of E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (Journal
of the American Statistical Association, 1927), at 95 %: they hold for few judgments, and for rates near 0 and 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from strata.evaluation.rows import choose_rows
from strata.judgments import Judgment, Judgments, Subject, current, reviews, sentences_of
from strata.snapshots import find_rows, records_of
from strata.store import Store

Z = 1.959964  # of the normal distribution, for 95 %
ALL = 2**62  # rows: all


class Rate(BaseModel):
    """A share with its interval. right: of `judged` many; rate, low and high: 0 to 1, null if none was judged."""

    right: int
    judged: int
    rate: float | None
    low: float | None
    high: float | None


class TruthRates(BaseModel):
    """What people said of the rows of a source. records: that were judged; reviewers: who judged.

    accepted: descriptions that nobody edits or rejects; not_rejected: that nobody rejects; sentences: that nobody edits
    or rejects, of the descriptions that were accepted, or judged sentence by sentence. reasons: how often each was
    given, for descriptions and sentences.
    """

    records: int
    reviewers: list[str]
    accepted: Rate
    not_rejected: Rate
    sentences: Rate
    reasons: dict[str, int]


def wilson(right: int, judged: int) -> Rate:
    """A share with its interval of 95 %."""
    if not judged:
        return Rate(right=0, judged=0, rate=None, low=None, high=None)
    share, square = right / judged, Z * Z / judged
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square * square / 4) / (1 + square)
    return Rate(right=right, judged=judged, rate=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def truth_rates(store: Store, source: str) -> TruthRates:
    """What people said of the rows of a job, a snapshot, a profile or a fingerprint.

    Raises LostJudgments if some judgments are lost, and what `choose_rows` raises.
    """
    rows = choose_rows(store, source, ALL, 0, lambda done, total: None)
    judgments = current(Judgments(store).of_fingerprints(rows.fingerprints).whole())
    found = find_rows(store, list(rows.chosen), {one.subject for one in judgments})
    # only the rows of the source, which a snapshot has not all of its parts
    chosen = {part.path: set(indices) for part, indices in rows.chosen.items()}
    inside = {subject: row for subject, row in found.items() if row.row in chosen[row.part]}
    records = records_of(store, list(inside.values()))
    counts = {subject: len(sentences_of(record.description)) for subject, record in zip(inside, records, strict=True)}
    return rates_of([one for one in judgments if one.subject in inside], counts)


def rates_of(judgments: Iterable[Judgment], counts: Mapping[Subject, int]) -> TruthRates:
    """The rates of judgments that count. counts: the numbers of sentences of the judged descriptions."""
    by_subject: defaultdict[Subject, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        by_subject[judgment.subject].append(judgment)
    everything = [judgment for said in by_subject.values() for judgment in said]
    verdicts = list(reviews(everything).values())
    # a sentence is wrong if one reviewer changes it; a description that was only rejected says nothing of its sentences
    judged = wrong = 0
    for subject, said in by_subject.items():
        if any(judgment.verdict == "accepted" or judgment.sentences for judgment in said):
            changed = (one for judgment in said for one in judgment.sentences if one.verdict != "accepted")
            wrong += len({one.index for one in changed})
            judged += counts[subject]
    reasons: defaultdict[str, int] = defaultdict(int)
    for judgment in everything:
        for reason in (judgment.reason, *(one.reason for one in judgment.sentences)):
            if reason:
                reasons[reason] += 1
    return TruthRates(
        records=len(by_subject),
        reviewers=sorted({judgment.reviewer for judgment in everything}),
        accepted=wilson(verdicts.count("accepted"), len(verdicts)),
        not_rejected=wilson(len(verdicts) - verdicts.count("rejected"), len(verdicts)),
        sentences=wilson(judged - wrong, judged),
        reasons=dict(sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))),
    )


def told(rates: TruthRates) -> list[str]:
    """The rates as lines."""
    lines = [f"{rates.records:,} records judged by {', '.join(rates.reviewers) or 'nobody'}"]
    named = {"accepted": rates.accepted, "not rejected": rates.not_rejected, "sentences right": rates.sentences}
    for name, rate in named.items():
        if rate.rate is not None:
            interval = f"{rate.low:.3f} to {rate.high:.3f}"
            lines.append(f"{name}: {rate.rate:.3f} ({interval}), {rate.right:,} of {rate.judged:,}")
    return [*lines, *(f"{reason}: {count:,}" for reason, count in rates.reasons.items())]
