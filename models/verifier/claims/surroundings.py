"""Whether a sentence says that the picture lies in a place: "the scene is set in a garden", "this is a garden"."""

from __future__ import annotations

from typing import Literal

from models.verifier.lexicon import verb_of
from models.verifier.phrases import PICTURES, NounPhrase
from models.verifier.structure import Structure

# "in": within it; "on": on its ground or at it; "": the sentence names it alone
Around = Literal["", "in", "on"]
_IN = frozenset("in inside within throughout".split())
_ON = frozenset("on at onto".split())
_PLACING = frozenset("set take shoot capture photograph film locate situate happen occur play".split())  # basic forms
SHOWING = frozenset(
    "show contain include feature depict display have reveal see present portray capture".split()
)  # basic forms
_PLACES = PICTURES | frozenset("setting location place".split())


def around_of(made: Structure, phrase: NounPhrase) -> Around:
    """How the picture lies in the place that a phrase names, by the words before it."""
    if phrase.start == 0 or phrase.negated:
        return ""
    before, clause = made.tokens[phrase.start - 1], made.clause_of(phrase.start)
    picture = any(one.noun in _PLACES for one in clause.subjects)
    if before.lower in _IN or before.lower in _ON:
        verbs = {verb_of(token.lower) for token in made.tokens[clause.start : phrase.start]}
        return "in" if before.lower in _IN or (picture and verbs & _PLACING) else "on"
    shown = before.tag == "VERB" and verb_of(before.lower) in SHOWING
    named = before.tag == "AUX" and before.lower in ("is", "was")
    this = made.tokens[clause.start].lower in ("this", "it")
    return "in" if (picture and (shown or named)) or (this and named) else ""
