"""Places in the picture and relations of two things, and those that a sentence denies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from models.verifier.claims.attachments import attached
from models.verifier.claims.comparisons import comparisons_in
from models.verifier.claims.denials import is_denied_of
from models.verifier.claims.nouns import is_empty
from models.verifier.claims.statements import Statement
from models.verifier.phrases import NounPhrase
from models.verifier.places import Place, order_at, relation_at
from models.verifier.structure import Structure


def positions_in(made: Structure) -> Iterator[Statement]:
    """Places in the picture, and relations of two noun phrases."""
    compared = list(comparisons_in(made))
    yield from compared
    yield from _places_in(made, [(one.start, one.end) for one in compared])
    yield from _orders(made)
    yield from _relations_in(made)


def _places_in(made: Structure, spans: Sequence[tuple[int, int]]) -> Iterator[Statement]:
    """Places in the picture, but for those within comparisons, which lie at spans of tokens."""
    for place in made.places:
        # "closer to the right edge than"
        if any(start <= place.start < end for start, end in spans):
            continue
        subjects, every = _inverted(made, place) or attached(made, place.start)
        if place.names and subjects:
            yield Statement(
                "relation",
                place.start,
                place.end,
                subjects[0],
                names=place.names,
                subjects=subjects,
                every=every,
                denied=is_denied_of(made, place.start, subjects),
            )


def _relations_in(made: Structure) -> Iterator[Statement]:
    """Relations of two noun phrases."""
    taken = {at for place in made.places for at in range(place.start, place.end)}
    at = 0
    while at < len(made.tokens):
        found = relation_at(made.tokens, at) if at not in taken else None
        if found is None or made.tokens[at].tag not in ("PREP", "ADJ", "ADV", "NOUN"):
            at += 1
            continue
        name, after = found
        others = tuple(phrase for phrase in made.phrases if phrase.start == after)
        subjects, every = attached(made, at)
        if others and subjects and name not in ("with", "other") and not is_empty(others[0].noun):
            if name == "between":
                others += _second_of(made, others[0])
            end = others[-1].end
            denied = is_denied_of(made, at, subjects)
            yield Statement(
                "relation", at, end, subjects[0], name, others=others, subjects=subjects, every=every, denied=denied
            )
        at = after


def _inverted(made: Structure, place: Place) -> tuple[tuple[NounPhrase, ...], bool] | None:
    """What follows the verb of "..., and to the left lies a box"; None if the place begins no clause so."""
    begins = place.start == 0 or made.tokens[place.start - 1].tag in ("JOIN", "COMMA", "MARK")
    if not begins or place.end >= len(made.tokens) or made.tokens[place.end].tag not in ("VERB", "AUX"):
        return None
    after = next((one for one in made.phrases if one.start == place.end + 1), None)
    return None if after is None else ((after,), False)


def _second_of(made: Structure, first: NounPhrase) -> tuple[NounPhrase, ...]:
    """The second thing of "between the cup and the plate"; none after "between the cups"."""
    later = (one for one in made.phrases if one.start > first.end and made.tokens[one.start - 1].lower == "and")
    second = next(later, None)
    # after a plural only what follows at once: "between the cups and the plate"
    several = first.many or (first.count or 1) > 1
    return () if second is None or (several and second.start > first.end + 1) else (second,)


def _orders(made: Structure) -> Iterator[Statement]:
    """The relation of each thing to the next one after "from left to right"."""
    for at in range(len(made.tokens)):
        name = order_at(made.tokens, at)
        row = _row(made, at + 4) if name else []
        for a, b in pairwise(row):
            yield Statement("relation", a.start, b.end, a, name, others=(b,), subjects=(a,))


def _row(made: Structure, start: int) -> list[NounPhrase]:
    """The first list of noun phrases from a token on, without what they wear or hold."""
    found: list[NounPhrase] = []
    for phrase in made.phrases:
        if phrase.start < start or is_empty(phrase.noun):
            continue
        before = made.tokens[phrase.start - 1]
        if found and before.tag == "PREP":
            continue
        if found and not (before.tag == "COMMA" or before.lower == "and"):
            # "the picture shows a man": the first was no item
            found = found if len(found) > 1 else []
            if found:
                break
        found.append(phrase)
    return found
