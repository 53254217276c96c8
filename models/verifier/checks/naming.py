"""Which things of the evidence a noun phrase names, and which of them it means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from models.boxes import inside
from models.verifier.attributes import compared, group_of
from models.verifier.checks.persons import is_role, plays
from models.verifier.entities import Entity, Entry, Facts, has_letters, letters_of
from models.verifier.lexicon import is_kind_of, singular
from models.verifier.phrases import NounPhrase
from models.verifier.places import lies

_ADULTS = frozenset("man woman lady gentleman guy".split())
WITHIN = 0.5  # share of a thing's box within its owner's, from which it may be held or worn


def entities_named(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The things that a noun phrase may mean, by noun alone; those that only a text names come last."""
    known = (*facts.entities, *facts.told)
    if found := [entity for entity in known if any(names(entry, phrase) for entry in entity.entries)]:
        return found
    # a dancer may be "the woman": of a role nobody knows the sex
    if phrase.noun in _ADULTS:
        return [one for one in known if any(is_role(entry.noun) for entry in one.entries)]
    return []


def names(entry: Entry, phrase: NounPhrase) -> bool:
    """Whether a noun phrase names what an entry names, by its noun, a synonym or a wider word."""
    return is_kind_of(entry.noun, phrase.noun) or plays(entry, phrase.noun)


def things_meant(phrase: NounPhrase, facts: Facts, quotes: Sequence[tuple[NounPhrase, str]] = ()) -> list[Entity]:
    """The things that a phrase names, those alone whose attributes and text agree, if there are any."""
    found = candidates(phrase, facts, quotes)
    agreeing = [one for one in found if all(compared(word, one.words) is not False for word in own_attributes(phrase))]
    return agreeing or found


def candidates(phrase: NounPhrase, facts: Facts, quotes: Sequence[tuple[NounPhrase, str]] = ()) -> list[Entity]:
    """The things that a phrase may mean by all but its attributes: its text, its owner, its place, its other words."""
    found = entities_named(phrase, facts)
    wanted = [letters_of(text) for carrier, text in quotes if carrier == phrase]
    found = [one for one in found if all(carries(one, text) for text in wanted)] or found
    if phrase.owner:
        owners = entities_named(replace(phrase, noun=phrase.owner), facts)
        found = [one for one in found if any(holds(owner, one) for owner in owners)] or found
    # "the man with the newspaper" is one of several men
    found = [one for one in found if has_with_it(one, phrase, facts)] or found
    if not phrase.many and (phrase.count or 1) == 1:
        # "the stop sign" among signs, "the apple on the left" among apples
        found = [one for one in found if _has_modifier(one, phrase)] or found
    there = [one for one in found if one.box and lies(one.box, phrase.places, facts.size)] if phrase.places else []
    return there or found


def _has_modifier(entity: Entity, phrase: NounPhrase) -> bool:
    """Whether a thing's names have a word of those before a phrase's noun, other than an attribute."""
    return any(word in entity.words for word in phrase.modifiers if group_of(word) is None)


def holds(owner: Entity, thing: Entity) -> bool:
    """Whether a thing is told in an owner's name ("a man in a black suit"), or lies within the owner's box."""
    if owner.box is None or owner is thing:
        return False
    if thing.box is not None:
        return inside(thing.box, owner.box) >= WITHIN
    return bool({name for name in thing.names if name != "caption"} & set(owner.names))


def has_with_it(entity: Entity, phrase: NounPhrase, facts: Facts) -> bool:
    """Whether a thing's names tell of what a phrase says it wears or holds, in no other colour."""
    if not set(phrase.carried) & {singular(word) for word in entity.words}:
        return False
    worn = [
        one for one in facts.told if holds(entity, one) and any(entry.noun in phrase.carried for entry in one.entries)
    ]
    return not worn or any(all(compared(word, one.words) is not False for word in phrase.worn) for one in worn)


def carries(entity: Entity, letters: str) -> bool:
    """Whether one of the lines on a thing has these letters, as whole words."""
    return any(has_letters(text, letters) for text in entity.texts)


def own_attributes(phrase: NounPhrase) -> Iterator[str]:
    """The attributes of a phrase that are the thing's own: sizes are relative."""
    return (word for word in phrase.attributes if (group := group_of(word)) and group[0] != "size")


def entries_of(entities: Sequence[Entity]) -> tuple[str, ...]:
    """The names of all entries of some things, each once."""
    return tuple(dict.fromkeys(name for entity in entities for name in entity.names))


def unsure_things(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The things that a model saw without being sure which have the name of a phrase, and no other colour."""
    found = [one for one in facts.unsure if any(names(entry, phrase) for entry in one.entries)]
    return [one for one in found if all(compared(word, one.words) is not False for word in own_attributes(phrase))]


def narrowed(phrase: NounPhrase, facts: Facts) -> list[Entity]:
    """The things with a box that a phrase names by a narrower word: "a poodle" for a dog."""
    return [one for one in facts.entities if any(is_kind_of(phrase.noun, entry.noun) for entry in one.entries)]
