"""Quoted text, and what it stands on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from models.verifier.claims.nouns import is_carrier, is_empty
from models.verifier.claims.statements import Statement
from models.verifier.lexicon import verb_of
from models.verifier.phrases import NounPhrase
from models.verifier.structure import Structure

_WRITTEN = frozenset("word words text letters lettering inscription message writing name title slogan label".split())
_SAYING = frozenset(
    "say read spell label title mark state show display indicate announce advertise warn list bear feature mention "
    "write print paint engrave inscribe carry".split()
)  # basic forms
_CAPITALS = re.compile(r"[A-Z0-9][A-Z0-9&!?.'-]*")


def quotations_in(made: Structure) -> Iterator[Statement]:
    """Quoted text, and words in capitals after a word such as "says"."""
    for at, token in enumerate(made.tokens):
        if token.tag == "QUOTE":
            inner = token.text[1:-1].strip()
            # single quotes stand around names and doubtful words too: only letters after such a word are text
            told = token.text[0] in '"“„«' or _is_told(made, at)
            if inner and told:
                yield _quote(made, at, inner)
        elif at and _CAPITALS.fullmatch(token.text) and len(token.text) > 1 and _is_told(made, at):
            yield _quote(made, at, token.text)


def _quote(made: Structure, at: int, letters: str) -> Statement:
    """A quotation. Its subject is what it stands on, or the "text" or "word" that quotes it; its phrase the first."""
    carrier = _carrier(made, at)
    subjects = () if carrier is None else (carrier,)
    return Statement(
        "quote", at, at + 1, None if carrier is None or is_empty(carrier.noun) else carrier, letters, subjects=subjects
    )


def _is_told(made: Structure, at: int) -> bool:
    before = {token.lower for token in made.tokens[max(0, at - 3) : at]}
    return bool(before & _WRITTEN or {verb_of(word) for word in before} & _SAYING)


def _carrier(made: Structure, at: int) -> NounPhrase | None:
    """The thing that a quotation stands on, if the sentence says so: 'a sign that says "OPEN"'."""
    before = [phrase for phrase in made.phrases if phrase.end <= at]
    clause = made.clause_of(at)
    # a sign says what is quoted by any verb: "a sign identifies the place as"
    sign = bool(clause.subjects) and is_carrier(clause.subjects[-1].noun)
    if not before or not (sign or _is_told(made, at)):
        return None
    # the main verb tells it of the subject: "the sign beside the door says"
    nearest = before[-1]
    relative = any(token.tag == "THAT" for token in made.tokens[nearest.end : at])
    told = clause.verb is not None and clause.verb < at and (nearest.end <= clause.verb or sign)
    if (told or (sign and is_empty(nearest.noun))) and clause.subjects and not relative:
        nearest = clause.subjects[-1]
    return nearest
