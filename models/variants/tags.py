"""Tags: the words of a record's kept entries, the most trusted first, each thing once."""

from __future__ import annotations

from dataclasses import dataclass

from models.evidence.support import forms
from models.notes import trust
from models.variants.things import bare
from strata.core import LAYERS, THINGS, Record, head_of

MOST = 60  # tags of one image


@dataclass
class Tag:
    """One tag. words: without an article, such as "red car"; evidence: the entries that name it."""

    words: str
    evidence: list[str]


def tags_of(record: Record) -> list[Tag]:
    """The tags of a record's regions, objects and whole-image tags, in order of trust."""
    layers = [*THINGS, LAYERS["tags"]]
    entries = [
        (entry, f"{layer.name}/{index}", bare(layer.words_of(entry)))
        for layer in layers
        for index, entry in enumerate(getattr(record, layer.name) or ())
        if entry.kept
    ]
    tags: list[Tag] = []
    # stable: of equally trusted entries, those of the earlier layer come first
    for _, source, words in sorted(entries, key=lambda one: -trust(one[0])):
        if words:
            _add(tags, words, source)
    return tags[:MOST]


def _add(tags: list[Tag], words: str, source: str) -> None:
    """Add a tag, or its entry to the tag of the same thing; "red car" says more than "car"."""
    for tag in tags:
        if not forms(head_of(words)) & forms(head_of(tag.words)):
            continue
        own, known = _others(words), _others(tag.words)
        if own <= known or known < own:
            tag.words = words if known < own else tag.words
            tag.evidence.append(source)
            return
    tags.append(Tag(words, [source]))


def _others(words: str) -> frozenset[str]:
    """The words beside the head noun."""
    return frozenset(words.casefold().split()) - {head_of(words)}
