"""Which entries of a record people call right or wrong: labels for a matcher's thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from strata.core import Description
from strata.judgments.judgment import JudgedSentence, Judgment, sentences_of

# reasons that say that an entry is wrong; another reason says nothing of whether the entry's phrase fits its crop
_OF_ENTRIES = ("unsupported_object", "wrong_attribute")


class Labels(NamedTuple):
    """right: whether entries ("regions/0") are right. used: of how many judgments; stale: of how many not, because the
    sentences that they judge are not those of the description."""

    right: dict[str, bool]
    used: int
    stale: int


def labels_of(description: Description | None, said: Sequence[Judgment]) -> Labels:
    """The labels of a record's entries from the judgments of it that count.

    A sentence that was accepted, alone or with its description, and that nobody changes makes its evidence right. One
    that was rejected without a reason, or changed because of its thing or attribute, makes its evidence wrong if that
    is a single entry: of several nobody knows which. An entry that is both has no label.
    """
    sentences = description.sentences if description is not None else []
    texts = sentences_of(description)
    fresh = [one for one in said if all(_is_of(judged, texts) for judged in one.sentences)]
    # what was said of each sentence; a description that was rejected as a whole says nothing of its sentences
    verdicts: dict[int, list[JudgedSentence | None]] = {}
    for judgment in fresh:
        judged = {one.index: one for one in judgment.sentences}
        if judgment.verdict == "accepted" or judged:
            for index in range(len(sentences)):
                verdicts.setdefault(index, []).append(judged.get(index))
    labels: dict[str, set[bool]] = {}
    for index, opinions in verdicts.items():
        evidence = sentences[index].evidence
        changes = [one for one in opinions if one is not None and one.verdict != "accepted"]
        if not changes:
            for entry in evidence:
                labels.setdefault(entry, set()).add(True)
        elif len(evidence) == 1 and any(_is_of_entry(one) for one in changes):
            labels.setdefault(evidence[0], set()).add(False)
    right = {entry: found == {True} for entry, found in labels.items() if len(found) == 1}
    used = sum(one.verdict == "accepted" or bool(one.sentences) for one in fresh) if right else 0
    return Labels(right, used, len(said) - len(fresh))


def _is_of(judged: JudgedSentence, texts: Sequence[str]) -> bool:
    """Whether a verdict is on one of these sentences; one that was stored without its text may be."""
    return judged.index < len(texts) and judged.text in ("", texts[judged.index])


def _is_of_entry(judged: JudgedSentence) -> bool:
    return judged.reason in _OF_ENTRIES or (judged.verdict == "rejected" and judged.reason is None)
