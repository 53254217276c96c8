"""What a phrase of a sentence may be told of."""

from __future__ import annotations

from models.verifier.phrases import NounPhrase
from models.verifier.structure import Structure


def attached(made: Structure, at: int) -> tuple[tuple[NounPhrase, ...], bool]:
    """The noun phrases that a phrase at a token may belong to, and whether it is told of all of them.

    After a verb that is told of its subjects; else of the phrase right before, or perhaps of the subject.
    """
    clause = made.clause_of(at)
    before = [phrase for phrase in made.phrases if clause.start <= phrase.start and phrase.end <= at]
    if not before:
        # "On the left, there is a dog"
        return clause.subjects[:1], False
    nearest = before[-1]
    between = made.tokens[nearest.end : at]
    if all(token.tag in ("QUOTE", "ADV", "PART", "COMMA") for token in between) and nearest not in clause.subjects:
        return (nearest, *clause.subjects), False
    subjects = tuple(phrase for phrase in clause.subjects if phrase.end <= at)
    if subjects and clause.verb is not None and nearest.end <= clause.verb < at:
        return subjects, True
    # of a list after "there are" the place may be told of the last alone, or of all
    return tuple(dict.fromkeys([*reversed(subjects), nearest])), False
