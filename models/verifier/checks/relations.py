"""The check of places in the picture and of relations of two things, against boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

from models.verifier.attributes import compared, group_of
from models.verifier.checks.naming import (
    candidates,
    entities_named,
    entries_of,
    holds,
    own_attributes,
    things_meant,
    unsure_things,
)
from models.verifier.checks.persons import is_living, is_role, persons_in, uses
from models.verifier.checks.verdicts import UNKNOWN, Verdict, denied
from models.verifier.claims.nouns import is_setting
from models.verifier.claims.statements import Statement
from models.verifier.entities import Entity, Facts, has_letters, letters_of
from models.verifier.phrases import NounPhrase
from models.verifier.places import lies, lies_between, related
from strata.core import Box

_OF_DEPTH = ("on", "in")  # relations that boxes show but that may be denied of two things


def check_relation(statement: Statement, facts: Facts) -> Verdict:
    """A place or a relation: of all subjects, or of one of those that it may be told of."""
    # a place is told of what can lie there: of "a bicycle against the wall on the right" no wall was found
    boxed = [one for one in statement.subjects if any(entity.box for entity in entities_named(one, facts))]
    verdicts = [_relation_of(subject, statement, facts) for subject in boxed or statement.subjects]
    verdicts = [_denied(one, statement) for one in verdicts] if statement.denied else verdicts
    # of all: the first that is false decides; else one that holds is enough
    order = (False, None, True) if statement.every else (True, None, False)
    return next(one for wanted in order for one in verdicts if one.supported is wanted)


def _denied(verdict: Verdict, statement: Statement) -> Verdict:
    """The verdict on what a sentence denies; what touches in the picture need not touch behind it."""
    # "there is no cup on the table" tells of a cup at the table, "the cup is not on it" may be right
    if verdict.supported and statement.every and statement.value in _OF_DEPTH:
        return UNKNOWN
    return denied(verdict, "wrong_relation")


def _relation_of(subject: NounPhrase, statement: Statement, facts: Facts) -> Verdict:
    if statement.names and (boxes := _boxes_of_text(subject, statement, facts)):
        right = tuple(name for name, box in boxes.items() if lies(box, statement.names, facts.size))
        return Verdict(True, None, right) if right else Verdict(False, "wrong_relation", tuple(boxes))
    own = [entity for entity in things_meant(subject, facts, statement.quotes) if entity.box is not None]
    own = own or [entity for entity in unsure_things(subject, facts) if entity.box is not None]
    own = own or [entity for entity in facts.entities if subject.noun in entity.words]
    own = own or _in_role(subject, facts)
    if statement.names:
        found = [(_lies(entity.box, statement, facts), (entity,)) for entity in own if entity.box]
        return _decided(found)
    if statement.value == "holds":
        return _held(subject, own, statement.others[0], facts)
    if statement.value == "between":
        return _lies_between(own, statement, facts)
    meant = [
        entity
        for other in statement.others
        for entity in things_meant(other, facts, statement.quotes)
        or unsure_things(other, facts)
        or _in_role(other, facts)
    ]
    # "on the left of the stage": surroundings without a box are those of the whole picture
    around = statement.value in ("left", "right") and all(is_setting(other.noun) for other in statement.others)
    if around and not any(one.box for one in meant):
        return _decided([(lies(one.box, (statement.value,), facts.size), (one,)) for one in own if one.box])
    pairs = [(a, b) for a, b in product(own, meant) if a is not b]
    return _decided([(related(a.box, statement.value, b.box, facts.size), (a, b)) for a, b in pairs if a.box and b.box])


def _lies(box: Box, statement: Statement, facts: Facts) -> bool | None:
    """Whether a box lies at a place; None for a denied one at its bounds, which are wide."""
    told = lies(box, statement.names, facts.size)
    unsure = statement.denied and told and not lies(box, statement.names, facts.size, surely=True)
    return None if unsure else told


def _in_role(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The persons of whom one may be meant by a role: "the player on the left"."""
    if not (phrase.definite and is_role(phrase.noun)):
        return []
    persons = persons_in(facts)
    # "the violinist" is who has the violin
    with_it = [
        one
        for one in persons
        if any(holds(one, thing) and any(uses(phrase.noun, e.noun) for e in thing.entries) for thing in facts.entities)
    ]
    persons = with_it or persons
    return [one for one in persons if one.box and lies(one.box, phrase.places, facts.size)] or persons


def _held(holder: NounPhrase, own: Sequence[Entity], thing: NounPhrase, facts: Facts) -> Verdict:
    """Whether one of the owners wears or holds a thing; false if others alone do, by the evidence.

    Of "both workers" each one's own thing is compared.
    """
    found, named = things_meant(thing, facts), candidates(thing, facts)
    own = [one for one in own if is_living(one)]
    if holder.share == "every":
        other = [one for one in named if one not in found and any(holds(owner, one) for owner in own)]
        if other:
            return Verdict(False, "wrong_relation", entries_of(other))
    # "a man in a suit" has no colour: it may be the one that is told
    sure = [one for one in found if all(compared(word, one.words) for word in own_attributes(thing))] or found
    if right := [one for one in sure if any(holds(owner, one) for owner in own)]:
        return Verdict(True, None, entries_of(right))
    if any(holds(owner, one) and not _is_described(one) for owner in own for one in found):
        return UNKNOWN
    # what the caption alone names may be anybody's, if no entry tells whose
    known = [one for one in sure if one.names != ["caption"]]
    others = [one for one in facts.entities if is_living(one) and one not in own]
    theirs = own and known and all(_is_at(others, one, facts) and not _is_at(own, one, facts) for one in known)
    return Verdict(False, "wrong_relation", entries_of([*own, *known])) if theirs else UNKNOWN


def _is_described(entity: Entity) -> bool:
    """Whether a thing's names tell a colour, a pattern or the like of it."""
    return any((group := group_of(word)) is not None and group[0] != "size" for word in entity.words)


def _is_at(persons: Sequence[Entity], thing: Entity, facts: Facts) -> bool:
    """Whether one of some persons or animals has a thing with it: by a name, or as the boxes touch."""
    return any(
        related(one.box, "on", thing.box, facts.size) is not False if one.box and thing.box else holds(one, thing)
        for one in persons
    )


def _lies_between(own: Sequence[Entity], statement: Statement, facts: Facts) -> Verdict:
    """Whether one of the things lies between two others, or between two of those that a plural names."""
    first, *rest = (
        [one for one in things_meant(other, facts, statement.quotes) if one.box] for other in statement.others
    )
    pairs = [(a, b) for a in first for b in rest[0]] if rest else list(combinations(first, 2))
    found = [
        (lies_between(one.box, a.box, b.box, facts.size), (one, a, b))
        for one in own
        for a, b in pairs
        if one.box and a.box and b.box and one is not a and one is not b and a is not b
    ]
    return _decided(found)


def _boxes_of_text(subject: NounPhrase, statement: Statement, facts: Facts) -> Mapping[str, Box]:
    """The boxes of the lines that a phrase for text quotes, or of a carrier that no entry names; else none."""
    told = [letters_of(text) for phrase, text in statement.quotes if phrase == subject]
    if any(entity.box for entity in entities_named(subject, facts)):
        return {}
    return {
        name: box
        for name, box in facts.line_boxes.items()
        for letters in told
        if letters and has_letters(facts.lines[name], letters)
    }


def _decided(found: Sequence[tuple[bool | None, tuple[Entity, ...]]]) -> Verdict:
    """True if one of the things fulfils it, false if all contradict it."""
    for opinion, entities in found:
        if opinion:
            return Verdict(True, None, entries_of(entities))
    if not found or any(opinion is None for opinion, _ in found):
        return UNKNOWN
    return Verdict(False, "wrong_relation", entries_of([entity for _, entities in found for entity in entities]))
