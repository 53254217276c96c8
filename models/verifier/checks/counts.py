"""The check of a number against the entries that a phrase names."""

from __future__ import annotations

from collections.abc import Sequence

from models.verifier.checks.naming import entries_of, names, narrowed, things_meant, unsure_things
from models.verifier.checks.persons import is_role, persons_in
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims import Statement
from models.verifier.entities import Entity, Facts
from models.verifier.lexicon import is_kind_of
from models.verifier.phrases import NounPhrase


def check_count(statement: Statement, facts: Facts) -> Verdict:
    """The verdict on a number of things."""
    phrase = statement.phrase
    assert phrase is not None
    told = int(statement.value)
    found = [entity for entity in things_meant(phrase, facts) if entity.box is not None]
    if not found and (wider := narrowed(phrase, facts)):
        known = sum(is_kind_of(phrase.noun, noun) for noun in facts.doubtful) + len(wider)
        several = any(entry.many for entity in wider for entry in entity.entries)
        return UNKNOWN if told <= known or several else Verdict(False, "wrong_count", entries_of(wider))
    if not found and is_role(phrase.noun) and told > 1:
        persons = [one for one in persons_in(facts) if one.box is not None]
        several = any(entry.many for one in persons for entry in one.entries) or bool(facts.doubtful)
        if persons and told > len(persons) and not several:
            return Verdict(False, "wrong_count", entries_of(persons))
        return UNKNOWN
    if not found and (unsure := [one for one in unsure_things(phrase, facts) if one.box is not None]):
        wrong = told > len(unsure) and not any(entry.many for one in unsure for entry in one.entries)
        return Verdict(False, "wrong_count", entries_of(unsure)) if wrong else UNKNOWN
    if not found:
        return _told_count(phrase, told, facts)
    many = any(entry.many and entry.count is None for entity in found for entry in entity.entries)
    # several names of one thing may lie at one place: the largest number of entries of one layer is possible too
    counted = sum(max(entry.count or 1 for entry in entity.entries) for entity in found)
    most = max(counted, _entries_of_one_layer(found, phrase))
    doubtful = sum(is_kind_of(noun, phrase.noun) for noun in facts.doubtful)
    evidence = entries_of(found)
    if many:
        return UNKNOWN
    # "five balloons" is one thing with a count; of several things a text may tell of some
    least = min(entry.count or 1 for entry in found[0].entries) if len(found) == 1 else len(found)
    if least <= told <= most or (told == 0 and most > 1):
        return Verdict(True, None, evidence)
    if most < told <= most + doubtful or (told == 0 and doubtful) or (statement.part and told < least):
        return UNKNOWN
    return Verdict(False, "wrong_count", evidence)


def _entries_of_one_layer(found: Sequence[Entity], phrase: NounPhrase) -> int:
    layers: dict[str, int] = {}
    for entity in found:
        for entry in entity.entries:
            if names(entry, phrase):
                layers[entry.layer] = layers.get(entry.layer, 0) + 1
    return max(layers.values(), default=0)


def _told_count(phrase: NounPhrase, told: int, facts: Facts) -> Verdict:
    """The count of things that only a text names: the text's own count decides, if it has one."""
    entries = [entry for entity in facts.told for entry in entity.entries if names(entry, phrase)]
    counts = {entry.count or (0 if entry.many else 1) for entry in entries}
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
