"""What a sentence says is not there: nobody in an empty street, no text on a blank sign, nothing at all."""

from __future__ import annotations

from collections.abc import Iterator

from models.verifier.claims.denials import denies, missing_in, nothing_in
from models.verifier.claims.nouns import is_carrier, is_setting
from models.verifier.claims.predicates import told_of
from models.verifier.claims.statements import ANYTHING, TEXT, Statement
from models.verifier.phrases import PICTURES, NounPhrase
from models.verifier.structure import Structure

_EMPTY = frozenset("empty deserted abandoned vacant".split())  # of surroundings: nobody is there
_FILLING = ("person", "animal", "vehicle")  # what an empty street has none of
_BLANK = frozenset("blank unmarked wordless textless".split())  # of what carries text: none is on it
EXCEPT = frozenset("except besides save other apart".split())  # after these something is there
_MORE = frozenset("other more further additional second".split())
_WRITING = frozenset("text texts word letter lettering writing inscription script message".split())


def absences_in(made: Structure) -> Iterator[Statement]:
    """What is told to be absent by other than a noun phrase of its own."""
    if not any(one.lower in EXCEPT for one in made.tokens):
        yield from _empty_in(made)
        yield from _textless_in(made)
    for start, end in nothing_in(made):
        yield _absent(start, end, ANYTHING)


def _absent(start: int, end: int, noun: str, carriers: tuple[NounPhrase, ...] = ()) -> Statement:
    return Statement("thing", start, end, NounPhrase(start, end, noun, negated=True), subjects=carriers)


def _empty_in(made: Structure) -> Iterator[Statement]:
    """That nobody is there, of each "empty street" and "the beach is deserted"; nothing, of an empty picture."""
    for at, token in enumerate(made.tokens):
        if token.lower not in _EMPTY | _BLANK or any(denies(one) for one in made.tokens[max(0, at - 2) : at]):
            continue
        around = next((one for one in made.phrases if one.start <= at < one.end), None) or told_of(made, at)
        # "empty of people" tells of people alone
        of = at + 1 < len(made.tokens) and made.tokens[at + 1].lower == "of"
        if around is None or of:
            continue
        if around.noun in PICTURES:
            yield _absent(at, at + 1, ANYTHING)
        elif token.lower in _BLANK:
            yield _absent(at, at + 1, TEXT, (around,))
        elif is_setting(around.noun):
            for noun in _FILLING:
                yield _absent(at, at + 1, noun)


def _textless_in(made: Structure) -> Iterator[Statement]:
    """That there is no text, or none on what the sentence says: "the banner has no text"."""
    missing = missing_in(made)
    for phrase in made.phrases:
        if phrase.noun not in _WRITING or not (phrase.negated or phrase in missing) or _MORE & set(phrase.modifiers):
            continue
        after = made.tokens[phrase.end : phrase.end + 1]
        # "no text that", "no words such as": some
        if after and (after[0].tag == "THAT" or after[0].lower in ("such", "like", "about")):
            continue
        on = next((one for one in made.phrases if one.start == phrase.end + 1 and after[0].tag == "PREP"), None)
        subjects = [one for one in made.clause_of(phrase.start).subjects if one.end <= phrase.start]
        carriers = tuple(one for one in ([on] if on else subjects[-1:]) if one.noun not in PICTURES)
        if on is None or not is_setting(on.noun) or is_carrier(on.noun):
            yield _absent(phrase.start, phrase.end, TEXT, carriers)
