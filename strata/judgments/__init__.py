"""Judgments: what people said of records in review. They are appended and never changed.

It imports `strata.core` and `strata.store`. Read `judgment.py` first, then `judgments.py` and `history.py`.
"""

from __future__ import annotations

from strata.judgments.agreement import Agreement, agreement_of, alpha
from strata.judgments.batches import now
from strata.judgments.history import Review, current, distinct, reviewed_texts, reviews
from strata.judgments.judgment import (
    JudgedSentence,
    Judgment,
    NoSuchSentence,
    Opinion,
    Reason,
    Reviewer,
    Subject,
    Verdict,
    sentences_of,
    stored,
)
from strata.judgments.judgments import Found, Judgments, LostJudgments, batches_of_job, remove_judgments
from strata.judgments.labels import Labels, labels_of

__all__ = [
    "Agreement",
    "Found",
    "JudgedSentence",
    "Judgment",
    "Judgments",
    "Labels",
    "LostJudgments",
    "NoSuchSentence",
    "Opinion",
    "Reason",
    "Review",
    "Reviewer",
    "Subject",
    "Verdict",
    "agreement_of",
    "alpha",
    "batches_of_job",
    "current",
    "distinct",
    "labels_of",
    "now",
    "remove_judgments",
    "reviewed_texts",
    "reviews",
    "sentences_of",
    "stored",
]
