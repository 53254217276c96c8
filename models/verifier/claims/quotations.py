"""Quoted text, and what it stands on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from models.verifier.claims.nouns import is_carrier, is_empty
from models.verifier.claims.statements import Statement
from models.verifier.lexicon import verb_of
from models.verifier.phrases import NounPhrase
from models.verifier.structure import Structure
from models.verifier.words.capitals import SAYING, WRITTEN

_CAPITALS = re.compile(r"[A-Z0-9][A-Z0-9&!?.'-]*")


def quotations_in(made: Structure) -> Iterator[Statement]:
    """Quoted text, and words in capitals after a word such as "says"."""
    for at, token in enumerate(made.tokens):
        if token.tag == "QUOTE":
            inner = token.quoted
            # single quotes stand around names and doubtful words too: only letters after such a word are text
            told = token.text[0] not in "'‘" or _is_told(made, at)
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
    return bool(before & WRITTEN or {verb_of(word) for word in before} & SAYING)


def _carrier(made: Structure, at: int) -> NounPhrase | None:
    """The thing that a quotation stands on, if the sentence says so: 'a sign that says "OPEN"'."""
    if (carrier := _put_on(made, at)) is not None:
        return carrier
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


def _put_on(made: Structure, at: int) -> NounPhrase | None:
    """The sign of '"OPEN" is written on the sign'; None if the sentence is of another form."""
    for on in range(at + 1, len(made.tokens)):
        token = made.tokens[on]
        if token.lower in ("on", "across"):
            found = next((one for one in made.phrases if one.start == on + 1), None)
            return None if found is None or is_empty(found.noun) or on == at + 1 else found
        if token.tag not in ("AUX", "VERB", "PART", "ADV", "QUOTE") and token.lower not in ("and", "visible"):
            return None
    return None
