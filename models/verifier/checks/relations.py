"""The check of places in the picture and of relations of two things, against boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from models.verifier.checks.naming import entities_named, entries_of, things_meant, unsure_things
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims import Statement
from models.verifier.entities import Entity, Facts, has_letters, letters_of
from models.verifier.phrases import NounPhrase
from models.verifier.places import lies, related
from strata.core import Box


def check_relation(statement: Statement, facts: Facts) -> Verdict:
    """A place or a relation: of all subjects, or of one of those that it may be told of."""
    # a place is told of what can lie there: of "a bicycle against the wall on the right" no wall was found
    boxed = [one for one in statement.subjects if any(entity.box for entity in entities_named(one, facts))]
    verdicts = [_relation_of(subject, statement, facts) for subject in boxed or statement.subjects]
    # of all: the first that is false decides; else one that holds is enough
    order = (False, None, True) if statement.every else (True, None, False)
    return next(one for wanted in order for one in verdicts if one.supported is wanted)


def _relation_of(subject: NounPhrase, statement: Statement, facts: Facts) -> Verdict:
    if statement.names and (boxes := _boxes_of_text(subject, statement, facts)):
        right = tuple(name for name, box in boxes.items() if lies(box, statement.names, facts.size))
        return Verdict(True, None, right) if right else Verdict(False, "wrong_relation", tuple(boxes))
    own = [entity for entity in things_meant(subject, facts, statement.quotes) if entity.box is not None]
    own = own or [entity for entity in unsure_things(subject, facts) if entity.box is not None]
    own = own or [entity for entity in facts.entities if subject.noun in entity.words]
    if statement.names:
        found = [(lies(entity.box, statement.names, facts.size), (entity,)) for entity in own if entity.box]
        return _decided(found)
    meant = [
        entity
        for other in statement.others
        for entity in things_meant(other, facts, statement.quotes) or unsure_things(other, facts)
    ]
    pairs = [(a, b) for a, b in product(own, meant) if a is not b]
    return _decided([(related(a.box, statement.value, b.box, facts.size), (a, b)) for a, b in pairs if a.box and b.box])


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
    for holds, entities in found:
        if holds:
            return Verdict(True, None, entries_of(entities))
    if not found or any(holds is None for holds, _ in found):
        return UNKNOWN
    return Verdict(False, "wrong_relation", entries_of([entity for _, entities in found for entity in entities]))
