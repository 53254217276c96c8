"""What counts of many judgments: later ones supersede earlier ones, and an undone one counts no more.

The answer depends on the set of judgments alone, not on the order in which they were stored or read: two processes may
append at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

from strata.judgments.judgment import Judgment, Subject

Review = Literal["none", "accepted", "edited", "rejected"]  # what all reviewers together say of a record


def distinct(judgments: Iterable[Judgment]) -> list[Judgment]:
    """Each judgment once, by time and id. Of two with one id, which a repeated request may leave, the first counts."""
    found: dict[str, Judgment] = {}
    for judgment in sorted(judgments, key=lambda one: (one.at, one.id, one.model_dump_json())):
        found.setdefault(judgment.id, judgment)
    return list(found.values())


def current(judgments: Iterable[Judgment]) -> list[Judgment]:
    """The judgment that counts of each reviewer and record, by time and id; none where all were undone.

    Of several that nothing supersedes, the latest counts.
    """
    groups: dict[tuple[str, Subject], list[Judgment]] = defaultdict(list)
    for judgment in distinct(judgments):
        groups[judgment.reviewer, judgment.subject].append(judgment)
    heads = [head for group in groups.values() if (head := _head(group)) is not None]
    return sorted(heads, key=lambda one: (one.at, one.id))


def _head(group: list[Judgment]) -> Judgment | None:
    """What counts of one reviewer's judgments of one record, which are sorted by time."""
    undone = _undone(group)
    effective = [one for one in group if one.verdict != "undone" and one.id not in undone]
    superseded = {one.supersedes for one in effective}
    heads = [one for one in effective if one.id not in superseded]
    # judgments that supersede each other in a circle were made by no client: the latest of them counts
    return (heads or effective)[-1] if effective else None


def _undone(group: list[Judgment]) -> set[str]:
    """The ids of the judgments that were undone: by an "undone" one that was not undone itself."""
    taken_back: dict[str, list[str]] = defaultdict(list)
    for one in group:
        if one.verdict == "undone" and one.supersedes is not None:
            taken_back[one.supersedes].append(one.id)
    undone: set[str] = set()
    # an undoing is decided after those that undo it: from the end of each chain
    waiting = dict.fromkeys([*(one.id for one in group), *taken_back])
    decided: set[str] = set()
    while waiting:
        ready = [name for name in waiting if all(by in decided for by in taken_back.get(name, ()))]
        if not ready:  # undoings that undo each other in a circle: none of them has an effect
            break
        for name in ready:
            if any(by not in undone for by in taken_back.get(name, ())):
                undone.add(name)
            decided.add(name)
            del waiting[name]
    return undone


def reviews(judgments: Iterable[Judgment]) -> dict[Subject, Review]:
    """What the reviewers together say of each judged record: rejected if one of them rejects it, else edited if one
    edits it, else accepted.
    """
    found: dict[Subject, Review] = {}
    rank: Mapping[str, int] = {"accepted": 0, "edited": 1, "rejected": 2}
    for judgment in current(judgments):
        before = found.get(judgment.subject)
        if judgment.verdict != "undone" and (before is None or rank[judgment.verdict] > rank[before]):
            found[judgment.subject] = judgment.verdict
    return found


def reviewed_texts(judgments: Iterable[Judgment], described: Mapping[Subject, str | None]) -> dict[Subject, str]:
    """The text of each record that people let pass: the latest edited text, or the description if it was accepted.

    A record that one reviewer rejects has none. described: the descriptions of the records.
    """
    counting = current(judgments)
    verdicts = reviews(counting)
    texts: dict[Subject, str] = {}
    for judgment in counting:
        review = verdicts[judgment.subject]
        text = judgment.text if review == "edited" else described.get(judgment.subject)
        if review != "rejected" and judgment.verdict == review and text:
            texts[judgment.subject] = text
    return texts
