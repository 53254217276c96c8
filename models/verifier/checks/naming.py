"""Which things of the evidence a noun phrase names, and which of them it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from models.verifier.attributes import compared, group_of
from models.verifier.entities import Entity, Entry, Facts, has_letters, letters_of
from models.verifier.lexicon import is_kind_of, singular, verb_of
from models.verifier.phrases import NounPhrase

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


def entities_named(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The things that a noun phrase may mean, by noun alone; those that only a text names come last."""
    return [
        entity for entity in (*facts.entities, *facts.told) if any(names(entry, phrase) for entry in entity.entries)
    ]


def names(entry: Entry, phrase: NounPhrase) -> bool:
    """Whether a noun phrase names what an entry names, by its noun, a synonym or a wider word."""
    return is_kind_of(entry.noun, phrase.noun) or _plays(entry, phrase.noun)


def _plays(entry: Entry, role: str) -> bool:
    """Whether a person's entry tells what the noun of a role says: a man riding a bicycle, a cyclist."""
    if role in YOUNG and role in entry.words:
        return True
    if not is_kind_of(entry.noun, "person"):
        return False
    # "a skater" of "a man with a skateboard", "a reader" of one who reads
    stem = role[:-2] if role.endswith("er") and len(role) > 5 else ""
    if stem and is_kind_of(role, "person") and any(word.startswith(stem) for word in entry.words):
        return True
    known = ROLES.get(role, frozenset())
    return any((verb_of(word) or word) in known or word in known for word in entry.words)


def things_meant(phrase: NounPhrase, facts: Facts, quotes: Sequence[tuple[NounPhrase, str]] = ()) -> list[Entity]:
    """The things that a phrase names, those alone whose attributes and text agree, if there are any."""
    found = entities_named(phrase, facts)
    wanted = [letters_of(text) for carrier, text in quotes if carrier == phrase]
    found = [one for one in found if all(carries(one, text) for text in wanted)] or found
    # "the man with the newspaper" is one of several men
    found = [one for one in found if has_with_it(one, phrase)] or found
    agreeing = [one for one in found if all(compared(word, one.words) is not False for word in own_attributes(phrase))]
    return agreeing or found


def has_with_it(entity: Entity, phrase: NounPhrase) -> bool:
    """Whether a thing's names tell of what a phrase says it wears or holds."""
    return bool(set(phrase.carried) & {singular(word) for word in entity.words})


def carries(entity: Entity, letters: str) -> bool:
    """Whether one of the lines on a thing has these letters, as whole words."""
    return any(has_letters(text, letters) for text in entity.texts)


def own_attributes(phrase: NounPhrase) -> Iterator[str]:
    """The attributes of a phrase that are the thing's own: sizes are relative."""
    return (word for word in phrase.attributes if (group := group_of(word)) and group[0] != "size")


def entries_of(entities: Sequence[Entity]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for entity in entities for name in entity.names))


def unsure_things(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The things that a model saw without being sure which have the name of a phrase, and no other colour."""
    found = [one for one in facts.unsure if any(names(entry, phrase) for entry in one.entries)]
    return [one for one in found if all(compared(word, one.words) is not False for word in own_attributes(phrase))]


def narrowed(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The things with a box that a phrase names by a narrower word: "a poodle" for a dog."""
    return [one for one in facts.entities if any(is_kind_of(phrase.noun, entry.noun) for entry in one.entries)]
