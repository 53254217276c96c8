"""Persons, and the roles by which a text names them: a mechanic, a spectator."""

from __future__ import annotations

from collections.abc import Mapping

from models.verifier.entities import Entity, Entry, Facts
from models.verifier.lexicon import is_kind_of, lexicon, lineage, verb_of

# roles of persons, with the words that tell them
ROLES: Mapping[str, frozenset[str]] = {
    role: frozenset(words.split())
    for role, words in {
        "rider": "ride", "cyclist": "bicycle bike cycle", "biker": "bicycle bike motorcycle", "driver": "drive",
        "player": "play", "surfer": "surf surfboard", "skier": "ski skis", "snowboarder": "snowboard",
        "skateboarder": "skateboard", "swimmer": "swim", "runner": "run", "passenger": "ride", "walker": "walk",
    }.items()
}  # fmt: skip
YOUNG = frozenset("baby adult calf cub youngster".split())  # of persons and animals: "a baby elephant"
LITTLE = frozenset("baby young little".split())  # words of the young in names
_SHORTEST = 4  # letters of a stem: fewer are those of too many words
# persons by sex and age, which a detector tells; all other nouns of persons are roles
_PERSONS = frozenset(
    "person people man woman boy girl child kid baby toddler infant lady gentleman guy individual human figure "
    "teenager male female".split()
)


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
    """Whether a thing is a person or an animal by one of its names."""
    return any(is_kind_of(entry.noun, kind) for entry in entity.entries for kind in ("person", "animal"))


def plays(entry: Entry, role: str) -> bool:
    """Whether a person's entry tells what the noun of a role says: a man riding a bicycle, a cyclist."""
    if role in YOUNG and role in entry.words:
        return True
    # "the chick" of "a baby penguin"
    if entry.words & LITTLE and is_kind_of(role, "young") and not is_kind_of(entry.noun, "person"):
        return True
    if not is_kind_of(entry.noun, "person"):
        return False
    # "a skater" of "a man with a skateboard", "a cellist" of one who plays the cello
    stem = stem_of(role)
    if stem and is_kind_of(role, "person") and any(word.startswith(stem) for word in entry.words):
        return True
    known = ROLES.get(role, frozenset())
    return any((verb_of(word) or word) in known or word in known for word in entry.words)


def stem_of(role: str) -> str:
    """What a role's noun has in common with what the person does or uses: "violin" of "violinist"; "" if nothing."""
    ending = next((one for one in ("ist", "ian", "er", "or") if role.endswith(one)), "")
    return role.removesuffix(ending) if ending and len(role) - len(ending) >= _SHORTEST else ""


def uses(role: str, thing: str) -> bool:
    """Whether a role's noun tells of a thing: of a cyclist the bicycle, of a guitarist the guitar."""
    stem = stem_of(role)
    return thing in ROLES.get(role, ()) or (bool(stem) and thing.startswith(stem) and is_kind_of(role, "person"))
