"""The check of an attribute against the names and the pixels of the things that it is told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from models.verifier.attributes import compared, group_of, shown
from models.verifier.checks.naming import candidates, entities_named, entries_of, things_meant
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims.statements import Statement
from models.verifier.entities import Entity, Facts

# parts that have the colour of the whole
_COVERS = frozenset(
    "fur coat wool hide skin feather plumage body hull exterior paint bodywork facade fabric upholstery petal "
    "frame".split()
)


def check_attribute(statement: Statement, facts: Facts) -> Verdict:
    """The verdict on an attribute of a thing, or of all that the phrase names."""
    phrase = statement.phrase
    assert phrase is not None
    found = candidates(phrase, facts)
    if not found and phrase.owner and phrase.noun in _COVERS:
        # the dog's fur has the dog's colour
        found = entities_named(replace(phrase, noun=phrase.owner), facts)
    opinions = [(_has(statement.value, entity), entity) for entity in found]
    if statement.denied or phrase.share == "every":
        # "the blue car is not red" is told of the blue one
        meant = [id(entity) for entity in things_meant(phrase, facts)]
        of_it = [(opinion, entity) for opinion, entity in opinions if not meant or id(entity) in meant]
        return _of_all(of_it, wanted=not statement.denied)
    if agreeing := [entity for opinion, entity in opinions if opinion]:
        return Verdict(True, None, entries_of(agreeing))
    # a text that names the thing without its attribute tells nothing where an entry with a box does
    opinions = [(opinion, entity) for opinion, entity in opinions if entity.box is not None] or opinions
    if not opinions or any(opinion is None for opinion, _ in opinions):
        return UNKNOWN
    group = group_of(statement.value)
    # sizes are relative: a "small" dog of one model is another one's "large" dog
    if group is None or group[0] == "size":
        return UNKNOWN
    return Verdict(False, "wrong_attribute", entries_of(found))


def _of_all(opinions: Sequence[tuple[bool | None, Entity]], wanted: bool) -> Verdict:
    """Of "both cars are red" and "no car is red": all things with a box have to have the attribute, or none may."""
    boxed = [(opinion, entity) for opinion, entity in opinions if entity.box is not None]
    # what people wear and hold has no box, but names of its own
    boxed = boxed or [(opinion, entity) for opinion, entity in opinions if entity.names != ["caption"]]
    if against := [entity for opinion, entity in boxed if opinion is (not wanted)]:
        return Verdict(False, "wrong_attribute", entries_of(against))
    if not boxed or any(opinion is None for opinion, _ in boxed):
        return UNKNOWN
    return Verdict(True, None, entries_of([entity for _, entity in boxed]))


def _has(word: str, entity: Entity) -> bool | None:
    """Whether a thing has an attribute by its names, else, for a colour, by its pixels; None if neither tells."""
    known = compared(word, entity.words)
    return shown(word, entity.shares) if known is None else known
