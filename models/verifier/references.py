"""What the words of a sentence refer to: "it" and "they", "a green one", and "the apple on the right" among apples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from models.verifier.attributes import group_of
from models.verifier.phrases import NounPhrase
from models.verifier.places import Place
from models.verifier.words.lists import BE
from models.verifier.words.tags import Token

_STANDS_FOR = ("it", "they", "them")
# of "a green one" and "the third", where the noun was told before
_ELLIPSES = ("one", "first", "second", "third", "fourth", "fifth")


def referring(
    tokens: Sequence[Token], phrases: Sequence[NounPhrase], places: Sequence[Place], last: Sequence[NounPhrase]
) -> list[NounPhrase]:
    """The noun phrases with what they refer to, and one for each thing that a pronoun may stand for, in their order.

    last: the subjects of the sentence before.
    """
    where = {place.start: place for place in places}
    found: list[NounPhrase] = []
    for phrase, after in zip_longest(phrases, phrases[1:]):
        place = where.get(phrase.end)
        placed = replace(phrase, places=place.names) if place else phrase
        end = place.end if place else phrase.end
        # "the black one is a poodle", "the one on the right, a poodle"
        joints = (*BE, ",") if place else BE
        if phrase.noun in _ELLIPSES and after and after.start == end + 1 and tokens[end].lower in joints:
            placed = replace(placed, noun=after.noun, count=None)
        elif phrase.noun in _ELLIPSES:
            placed = _named(placed, found or last, tokens)
        found.append(placed)
    return sorted([*found, *_pronouns(tokens, found, last)], key=lambda phrase: phrase.start)


def _named(phrase: NounPhrase, before: Sequence[NounPhrase], tokens: Sequence[Token]) -> NounPhrase:
    """A phrase such as "a green one" with the noun that it leaves out; itself if none was told.

    What has an attribute of the same kind is likely, "a red kite and a blue one", and what has a place if the phrase
    has one. Else the nearest plural is, else the first thing for "the one", else the nearest.
    """
    known = [one for one in before if one.noun not in _ELLIPSES and not one.pronoun]
    if not known:
        return phrase
    kinds = _kinds(phrase)
    placed = [one for one in known if phrase.places and one.places]
    alike = [one for one in known if kinds & _kinds(one)]
    several = [one for one in known if one.many or (one.count or 1) > 1]
    first = known[:1] if phrase.definite and not kinds else []
    # "one has a red bike, the other has a black one"
    same = [one for one in alike if _before(one, tokens) == _before(phrase, tokens) != ""]
    noun = next(chosen[-1].noun for chosen in (placed, same, alike, several, first, known) if chosen)
    many = tokens[phrase.end - 1].lower == "ones" and phrase.count is None
    # the "one" of "a green one" is no number
    return replace(phrase, noun=noun, count=phrase.count if tokens[phrase.end - 1].lower == "ones" else None, many=many)


def _before(phrase: NounPhrase, tokens: Sequence[Token]) -> str:
    """The verb or preposition right before a phrase; "" if there is none."""
    before = tokens[phrase.start - 1] if phrase.start else None
    return before.lower if before is not None and before.tag in ("VERB", "PART", "AUX", "PREP") else ""


def _kinds(phrase: NounPhrase) -> set[str]:
    """The kinds of a phrase's attributes, such as colours."""
    return {found[0] for word in phrase.attributes if (found := group_of(word))}


def _pronouns(
    tokens: Sequence[Token], phrases: Sequence[NounPhrase], last: Sequence[NounPhrase]
) -> Iterator[NounPhrase]:
    """The noun phrases that "it" and "they" may stand for, each at the pronoun's place.

    A subject stands for the first noun phrase of the clause before; after a preposition, each earlier one is possible.
    """
    for at, token in enumerate(tokens):
        if token.lower not in _STANDS_FOR:
            continue
        many = token.lower != "it"
        before = [one for one in phrases if one.end <= at] or list(last)
        fitting = [one for one in before if ((one.count or 1) > 1 or one.many) == many and not one.negated]
        governed = at > 0 and (tokens[at - 1].tag == "PREP" or tokens[at - 1].lower in ("to", "of"))
        for one in fitting if governed else fitting[:1]:
            yield replace(one, start=at, end=at + 1, pronoun=True, definite=True)
