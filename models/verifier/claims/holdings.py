"""What somebody wears, holds or has: "the man wears a red hat", "a girl in a blue coat", "the woman's bag"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from models.verifier.claims.attachments import attached
from models.verifier.claims.denials import is_denied
from models.verifier.claims.nouns import is_empty, is_setting
from models.verifier.claims.statements import Statement
from models.verifier.lexicon import is_kind_of, verb_of
from models.verifier.phrases import NounPhrase
from models.verifier.structure import Structure

_HOLDING = frozenset("wear hold carry".split())
_DRESSED = frozenset("dressed clad clothed attired".split())


def holdings_in(made: Structure) -> Iterator[Statement]:
    """The relation "holds" of each thing that is worn, held or owned by something that the sentence names."""
    for phrase in made.phrases:
        if phrase.pronoun or phrase.negated or is_empty(phrase.noun) or is_setting(phrase.noun):
            continue
        holders, every = _holders(made, phrase)
        if holders:
            yield Statement(
                "relation",
                phrase.start,
                phrase.end,
                holders[0],
                "holds",
                others=(phrase,),
                subjects=holders,
                every=every,
                denied=is_denied(made, phrase.start),
            )


def _holders(made: Structure, phrase: NounPhrase) -> tuple[tuple[NounPhrase, ...], bool]:
    """Who a thing is said to be held by, and whether by each of them; none if the sentence does not say it."""
    if phrase.owner:
        return (replace(phrase, noun=phrase.owner, owner="", attributes=(), modifiers=(), count=None),), False
    before = phrase.start - 1
    if before < 1:
        return (), False
    token, earlier = made.tokens[before], made.tokens[before - 1].lower
    dressed = token.lower == "in" and earlier in _DRESSED
    if token.tag in ("VERB", "PART", "AUX") and (verb_of(token.lower) in _HOLDING or token.lower in ("has", "have")):
        return attached(made, before)
    if dressed:
        return attached(made, before - 1)
    # "a girl in a blue coat", "a man with a hat"
    owner = next((one for one in made.phrases if one.end == before), None)
    clothed = token.lower == "in" and is_kind_of(phrase.noun, "clothing")
    return ((owner,), False) if owner is not None and (clothed or token.lower == "with") else ((), False)
