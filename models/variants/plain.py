"""Texts of a length by a fixed grammar, for a composer that takes no instructions: fewer or more of the facts."""

from __future__ import annotations

from models.boxes import area
from models.evidence.relations import clear_relations
from models.kinds.counting import counts_and_places
from models.prompts.lengths import LENGTHS
from models.sentences import upper
from models.variants.things import Things, listed, named
from strata.core import NOTHING_FOUND, Record, kept

_SIDES = {"left": "to the left of", "above": "above"}


def told(record: Record, limit: int, length: str = "") -> str:
    """The text of a length; NOTHING_FOUND for a record without kept entries. limit: of groups of things."""
    if length == "short":
        return _short(record)
    if length == "medium":
        return counts_and_places(record, min(limit, LENGTHS[length].things or limit))
    text = counts_and_places(record, limit)
    return " ".join([text, *_sizes_and_relations(Things.of(record))]) if length == "long" else text


def _short(record: Record) -> str:
    """One sentence: the largest things with their numbers; of a picture without things its text, or its kind."""
    names = sorted(named(Things.of(record), limit := 40), key=lambda one: -max(area(thing.box) for thing in one[1]))
    if names:
        return f"The picture shows {listed([name for name, _ in names[: LENGTHS['short'].things or limit]])}."
    without_things = record.model_copy(update={"regions": [], "objects": []})
    text = counts_and_places(without_things, 1)
    # the first sentence: its text, else what the picture looks like as a whole
    return text if text == NOTHING_FOUND or not kept(record.text) else text.partition(" As a whole,")[0]


def _sizes_and_relations(things: Things) -> list[str]:
    """Sentences on each thing's size, if it is large or small, and on how neighbours lie to each other."""
    names = {thing.number: name for thing in things.all if (name := things.definite(thing)) and not thing.many}
    found = [
        f"{upper(name)} is {things.all[number].note.size} in the picture."
        for number, name in names.items()
        if things.all[number].note.size
    ]
    boxes, numbers = [things.all[number].box for number in names], list(names)
    for i, side, j in clear_relations(boxes, things.size, LENGTHS["long"].relations or 0):
        found.append(f"{upper(names[numbers[i]])} is {_SIDES[side]} {names[numbers[j]]}.")
    return found
