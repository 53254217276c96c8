"""Attributes that follow what they are told of: "the car is red"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

from models.verifier.attributes import is_attribute
from models.verifier.claims.denials import denies
from models.verifier.claims.nouns import is_empty
from models.verifier.claims.statements import Statement
from models.verifier.phrases import NounPhrase
from models.verifier.structure import Structure

_MADE = frozenset("made built constructed carved".split())
_PAINTED = frozenset("painted coloured colored dyed".split())


def predicates_in(made: Structure) -> Iterator[Statement]:
    """Attributes after what they are told of: "the car is red", "which appears blue", "a cat, white in color"."""
    yield from _made_of(made)
    for at, token in enumerate(made.tokens):
        if token.tag != "ADJ" or not is_attribute(token.lower) or any(p.start <= at < p.end for p in made.phrases):
            continue
        subject = _coloured(made, told_of(made, at))
        if subject is not None and not is_empty(subject.noun):
            negated = any(denies(one) for one in made.tokens[max(subject.end, at - 2) : at])
            denied = negated != (subject.share == "none" or subject.negated)
            yield Statement("attribute", at, at + 1, subject, token.lower, denied=denied)


def _made_of(made: Structure) -> Iterator[Statement]:
    """The words of what something is made of: "the bowl is made of blue porcelain", "a board made of marble"."""
    tokens = made.tokens
    for at in range(2, len(tokens) - 1):
        if tokens[at - 1].lower not in _MADE or tokens[at].lower not in ("of", "from"):
            continue
        subject = told_of(made, at - 1 if tokens[at - 2].tag == "AUX" else at)
        words = takewhile(lambda one: tokens[one].tag in ("ADJ", "NOUN", "ADV"), range(at + 1, len(tokens)))
        for told in words:
            if subject is not None and is_attribute(tokens[told].lower):
                yield Statement("attribute", told, told + 1, subject, tokens[told].lower)


def _coloured(made: Structure, subject: NounPhrase | None) -> NounPhrase | None:
    """What has the colour of "the sofa's colour is" and "the colour of the sofa is"; else the subject itself."""
    if subject is None or not is_empty(subject.noun):
        return subject
    if subject.owner:
        return replace(subject, noun=subject.owner, owner="", count=None, many=False)
    of = made.tokens[subject.end].lower == "of" if subject.end < len(made.tokens) else False
    return next((one for one in made.phrases if of and one.start == subject.end + 1), subject)


def told_of(made: Structure, at: int) -> NounPhrase | None:
    """The noun phrase that an attribute after a verb, a comma or a participle is told of; None if there is none."""
    before = at - 1
    while before >= 0 and made.tokens[before].tag in ("ADV", "JOIN", "ADJ", "NOT"):
        before -= 1
    earlier = [phrase for phrase in made.phrases if phrase.end <= before]
    if before < 0 or made.tokens[before].tag not in ("AUX", "COMMA", "PART") or not earlier:
        return None
    nearest, clause = earlier[-1], made.clause_of(at)
    beside = nearest.end == before or (nearest.end == before - 1 and made.tokens[nearest.end].tag == "COMMA")
    if made.tokens[before].tag != "AUX":
        # "a barn, painted red": right after the noun phrase
        return nearest if beside or made.tokens[before].lower in _PAINTED else None
    # "which is green" is told of what stands before "which"
    if any(one.tag == "THAT" for one in made.tokens[nearest.end : at]):
        return nearest
    if clause.subjects:
        return clause.subjects[-1]
    # "the cow on the left is white, the other two are brown": of others by the same noun
    return replace(nearest, places=(), attributes=()) if nearest.start >= clause.start else None
