"""Persons, and the roles by which a text names them: a mechanic, a spectator."""

from __future__ import annotations

from models.verifier.checks.naming import ROLES, YOUNG, has_with_it
from models.verifier.entities import Entity, Facts
from models.verifier.lexicon import is_kind_of, lexicon, lineage
from models.verifier.phrases import NounPhrase

# persons by sex and age, which a detector tells; all other nouns of persons are roles
_PERSONS = frozenset(
    "person people man woman boy girl child kid baby toddler infant lady gentleman guy individual human figure "
    "teenager male female".split()
)


def is_known_role(phrase: NounPhrase, facts: Facts) -> bool:
    """Whether a phrase names one of the persons by a role: by what is known of it, it may be this person.

    One person has a role if the text refers to somebody ("the spectator"), if what the person wears or holds fits an
    entry ("a mechanic in blue overalls"), or if the role is of a thing that is there ("a tennis player"); of several,
    as many must be there.
    """
    if phrase.noun in YOUNG and phrase.definite:
        return any(is_living(entity) for entity in (*facts.entities, *facts.told))
    if not is_role(phrase.noun):
        return False
    persons = persons_in(facts)
    if phrase.definite or phrase.noun in ROLES:
        return bool(persons)
    if phrase.many or (phrase.count or 1) > 1:
        most = sum(2 if any(entry.many for entry in one.entries) else 1 for one in persons)
        return most >= 2 and (phrase.count or 0) <= most
    first = phrase.noun.partition(" ")[0] if " " in phrase.noun else "-"
    of_thing = any(first in entity.words for entity in (*facts.entities, *facts.told))
    return bool(persons) and (of_thing or any(has_with_it(one, phrase) for one in persons))


def is_role(noun: str) -> bool:
    """Whether a noun names persons by what they do: a mechanic, and commuters, which are trains first in WordNet."""
    if noun in _PERSONS:
        return False
    agent = noun.endswith(("er", "or", "ist", "ian", "ant")) and any(
        person in lineage(sense)
        for person in lexicon().senses("person")[:1]
        for sense in lexicon().senses(noun)[:2]
        if sense
    )
    return is_kind_of(noun, "person") or agent


def persons_in(facts: Facts) -> list[Entity]:
    """The persons with a box; those that a text names, if there is none."""
    for entities in (facts.entities, facts.told):
        if found := [one for one in entities if any(is_kind_of(entry.noun, "person") for entry in one.entries)]:
            return found
    return []


def is_living(entity: Entity) -> bool:
    return any(is_kind_of(entry.noun, kind) for entry in entity.entries for kind in ("person", "animal"))
