"""The check of a number against the entries that a phrase names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from models.verifier.attributes import group_of
from models.verifier.checks.naming import entries_of, names, narrowed, things_meant, unsure_things
from models.verifier.checks.persons import is_living, is_role, persons_in
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims.statements import Statement
from models.verifier.entities import Entity, Entry, Facts
from models.verifier.lexicon import is_kind_of
from models.verifier.phrases import NounPhrase


def check_count(statement: Statement, facts: Facts) -> Verdict:
    """The verdict on a number of things."""
    assert statement.phrase is not None
    # a number tells of the things in a place, but a place's bounds are not sharp
    phrase = replace(statement.phrase, places=())
    told = int(statement.value)
    found = [entity for entity in things_meant(phrase, facts) if entity.box is not None]
    if statement.items and (listed := _listed(statement, facts)):
        return listed
    if not found:
        return _count_without_boxes(phrase, told, facts)
    many = any(entry.many and entry.count is None for entity in found for entry in entity.entries)
    # several names of one thing may lie at one place: the largest number of entries of one layer is possible too
    counted = sum(max(entry.count or 1 for entry in entity.entries) for entity in found)
    most = max(counted, _entries_of_one_layer(found, phrase))
    doubtful = sum(is_kind_of(noun, phrase.noun) for noun in facts.doubtful)
    # of persons by a role not each is told to have it: "the newlyweds" are the bride and the groom
    if many or _is_several(phrase, facts):
        return UNKNOWN
    # "five balloons" is one thing with a count; of several things a text may tell of some
    least = min(entry.count or 1 for entry in found[0].entries) if len(found) == 1 else len(found)
    right, wrong = Verdict(True, None, entries_of(found)), Verdict(False, "wrong_count", entries_of(found))
    if phrase.bound == "least":
        return right if told <= most else UNKNOWN if told <= most + doubtful else wrong
    if phrase.bound == "most":
        return right if told >= len(found) else wrong
    if least <= told <= most or (told == 0 and most > 1):
        return right
    # "three parked cars" are some of the cars; "curtains" and "shelves" may be one for a detector
    some = statement.part or any(group_of(word) is None for word in phrase.modifiers)
    merged = told == 0 and not any(map(is_living, found))
    if most < told <= most + doubtful or (told == 0 and doubtful) or (some and told < least) or merged:
        return UNKNOWN
    return wrong


def _count_without_boxes(phrase: NounPhrase, told: int, facts: Facts) -> Verdict:
    """The verdict on a number of things that no entry with a box names: by narrower words, roles, and texts."""
    if wider := narrowed(phrase, facts):
        known = sum(is_kind_of(phrase.noun, noun) for noun in facts.doubtful) + len(wider)
        several = any(entry.many for entity in wider for entry in entity.entries)
        return UNKNOWN if told <= known or several else Verdict(False, "wrong_count", entries_of(wider))
    if is_role(phrase.noun) and told > 1:
        persons = [one for one in persons_in(facts) if one.box is not None]
        several = any(entry.many for one in persons for entry in one.entries) or bool(facts.doubtful)
        if persons and told > len(persons) and not several:
            return Verdict(False, "wrong_count", entries_of(persons))
        return UNKNOWN
    if unsure := [one for one in unsure_things(phrase, facts) if one.box is not None]:
        more = told > len(unsure) and not any(entry.many for one in unsure for entry in one.entries)
        return Verdict(False, "wrong_count", entries_of(unsure)) if more else UNKNOWN
    return _told_count(phrase, told, facts)


def _listed(statement: Statement, facts: Facts) -> Verdict | None:
    """The verdict by what is told one by one, "five animals: two cows and three hens"; None if that is not known."""
    found = [entity for item in statement.items for entity in things_meant(item, facts)]
    numbers = [
        check_count(replace(statement, phrase=item, value=str(item.count or 1), items=()), facts)
        for item in statement.items
    ]
    if any(one.supported is False for one in numbers):
        return None
    return Verdict(True, None, entries_of(found))


def _entries_of_one_layer(found: Sequence[Entity], phrase: NounPhrase) -> int:
    layers: dict[str, int] = {}
    for entity in found:
        for entry in entity.entries:
            if names(entry, phrase):
                layers[entry.layer] = layers.get(entry.layer, 0) + 1
    return max(layers.values(), default=0)


def _is_several(phrase: NounPhrase, facts: Facts) -> bool:
    """Whether a role in the plural, without a number, may be told of several persons."""
    return phrase.many and is_role(phrase.noun) and len(persons_in(facts)) > 1


def _is_mass(entry: Entry) -> bool:
    return entry.layer == "caption" and not entry.words & {"a", "an", "the", "one"}


def _told_count(phrase: NounPhrase, told: int, facts: Facts) -> Verdict:
    """The count of things that only a text names: the text's own count decides, if it has one."""
    entries = [entry for entity in facts.told for entry in entity.entries if names(entry, phrase)]
    # "a plate of sushi" in a caption has no number either
    counts = {entry.count or (0 if entry.many or _is_mass(entry) else 1) for entry in entries}
    if not counts:
        return UNKNOWN
    # the phrase of each region may name one more: "a boy in a red shirt", twice
    most = max([*counts, sum(entry.count or 1 for entry in entries if entry.layer != "caption")])
    if told in counts or (told == 0 and most > 1) or 1 < told <= most:
        return Verdict(True, None, tuple(entry.name for entry in entries))
    # "dogs" in the caption leaves every number above one open
    if 0 in counts and told != 1:
        return UNKNOWN
    return Verdict(False, "wrong_count", tuple(entry.name for entry in entries))
