"""What a record says of a labelled photograph, and which of it is right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from samples.labels import Photograph, reads
from strata.core import Record
from strata.core.layers import kept

_ARTICLE = re.compile(r"^(an?|the|two|three|four|five|several|some|\d+) ", re.IGNORECASE)


@dataclass(frozen=True)
class Verdict:
    """One photograph's answer. kinds: those of the labels that were told; right, wrong: things with their numbers.

    read, misread: lines of text that stand in the picture, and that do not; lines that the labels leave open count as
    neither.
    """

    photograph: Photograph
    words: str
    kinds: frozenset[str] = frozenset()
    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    read: tuple[str, ...] = ()
    misread: tuple[str, ...] = ()
    failure: str = ""
    warned: bool = False


def verdict(photograph: Photograph, record: Record) -> Verdict:
    """Judge a record of a photograph.

    A thing is a kept region, object or tag. Regions and objects of one noun are the same things, so the layer that has
    more of them counts. A noun is right if it names a kind of the labels, at most as often as the picture shows it, or
    something else that the labels allow.
    """
    told: Counter[str] = Counter()
    for layer in (record.regions, record.objects):
        told |= Counter(noun(entry.phrase) for entry in kept(layer or ()) if entry.phrase)
    told |= Counter({noun(tag.word): 1 for tag in kept(record.tags or ())})
    # what is right of it
    right: Counter[str] = Counter()
    kinds = set()
    for name, number in told.items():
        kind = label_of(name, photograph.kinds)
        if kind is not None:
            kinds.add(kind)
            right[name] = min(number, photograph.kinds[kind] or number)
        elif label_of(name, photograph.allowed) is not None:
            right[name] = number
    lines = [(line.text, reads(photograph, line.text)) for line in kept(record.text or ())]
    return Verdict(
        photograph,
        words_of(record),
        frozenset(kinds),
        +right,
        told - right,
        tuple(text for text, answer in lines if answer is True),
        tuple(text for text, answer in lines if answer is False),
        record.failure.detail if record.failure else "",
        bool(record.warnings),
    )


def noun(phrase: str) -> str:
    """Return a phrase in small letters, without its article or number."""
    return _ARTICLE.sub("", phrase.strip().rstrip(".").lower())


def label_of(name: str, labels: Iterable[str]) -> str | None:
    """Return the label that a name contains as whole words, in the singular or plural; None if there is none."""
    for label in labels:
        stem = re.escape(label.lower())
        if re.search(rf"\b{stem}(s|es)?\b", name):
            return label
    return None


def words_of(record: Record) -> str:
    """Return what a person reads first of a record: its description, else its caption, else its things."""
    if record.failure:
        return f"failed: {record.failure.detail}"
    if record.description:
        return record.description.text
    if record.caption:
        return record.caption.text
    things = [entry.phrase for entry in kept(record.regions or ())] + [tag.word for tag in kept(record.tags or ())]
    return ", ".join(dict.fromkeys(filter(None, things)))


def figures(verdicts: Sequence[Verdict]) -> dict[str, float | int]:
    """Return the counts and shares of a set of verdicts. A share of nothing is null in JSON, and NaN here."""
    right, wrong = sum(each.right.total() for each in verdicts), sum(each.wrong.total() for each in verdicts)
    known = [each for each in verdicts if each.photograph.kinds]
    unknown = [each for each in verdicts if not each.photograph.kinds]
    said = sum(bool(each.kinds) for each in known)
    return {
        "pictures": len(verdicts),
        "failed": sum(bool(each.failure) for each in verdicts),
        "things told": right + wrong,
        "things right": right,
        "share right": share(right, right + wrong),
        "pictures with kinds": len(known),
        "of these, a kind is told": said,
        "share told": share(said, len(known)),
        "pictures without kinds": len(unknown),
        "of these, something is invented": sum(bool(each.wrong) for each in unknown),
        "lines read": sum(len(each.read) for each in verdicts),
        "lines misread or invented": sum(len(each.misread) for each in verdicts),
        "warned": sum(each.warned for each in verdicts),
    }


def share(part: int, whole: int) -> float:
    """Return a part of a whole as a number between 0 and 1; NaN of an empty whole."""
    return part / whole if whole else float("nan")
