"""What people said in review, as rates with intervals: how many descriptions and sentences are right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from strata.evaluation.intervals import Rate, wilson
from strata.evaluation.judged import judged_rows
from strata.judgments import Judgment, Subject, reviews, sentences_of
from strata.snapshots import records_of
from strata.store import Store


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


def truth_rates(store: Store, source: str) -> TruthRates:
    """What people said of the rows of a job, a snapshot, a profile or a fingerprint.

    Raises what `judged_rows` raises.
    """
    found = judged_rows(store, source)
    records = records_of(store, list(found.rows.values()))
    counts = {
        subject: len(sentences_of(record.description)) for subject, record in zip(found.rows, records, strict=True)
    }
    return rates_of(found.judgments, counts)


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
