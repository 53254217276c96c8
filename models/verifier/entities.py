"""What a record holds as evidence: its kept entries as things, with names, attributes, boxes and texts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.boxes import inside, iou, min_overlap
from models.verifier.claims import is_empty, is_setting
from models.verifier.phrases import NounPhrase, phrases_of
from models.verifier.structure import structure_of
from models.verifier.words import tokens_of
from strata.core import THINGS, Box, Record, kept

SAME_PLACE = 0.5  # IoU from which two boxes are one thing, as in `models.notes`
PART = 0.6  # share of the smaller box within the other one, from which two boxes of one name may be one thing
ON_IT = 0.5  # share of a line's box within a thing's box, from which the thing carries the line
IN_DOUBT = ("low_score", "low_match", "low_second_match", "low_evidence", "contradicted")


@dataclass(frozen=True)
class Entry:
    """One name of a thing. name: of the entry, such as "regions/0". noun, words: of its phrase; many: a plural."""

    name: str
    noun: str
    words: frozenset[str]
    many: bool
    count: int | None
    layer: str


@dataclass
class Entity:
    """A thing of the picture. box: null if only a text names it. entries: what names it. texts: the lines on it.

    shares: of its pixels, by colour (`models.verifier.images.colours`); empty if nobody has looked.
    """

    box: Box | None
    entries: list[Entry] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of its entries."""
        return [entry.name for entry in self.entries]

    @property
    def words(self) -> frozenset[str]:
        """All words of its phrases."""
        return frozenset().union(*(entry.words for entry in self.entries))


@dataclass
class Facts:
    """The evidence of a record. entities: with boxes; told: things that a text of a layer names, without a box.

    settings: nouns of surroundings with their attributes, by the entry that names them. lines: the kept lines of text,
    by entry. doubtful: nouns of entries that were dropped because a model was not sure. size: (width, height).
    """

    size: tuple[int, int]
    entities: list[Entity] = field(default_factory=list)
    told: list[Entity] = field(default_factory=list)
    settings: list[Entry] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)
    doubtful: list[str] = field(default_factory=list)
    detected: bool = False


def facts_of(record: Record, trust_caption: bool = True) -> Facts:
    """The evidence of a record. trust_caption: whether a thing that the caption alone names counts."""
    facts = Facts((record.width or 1, record.height or 1))
    facts.detected = any(getattr(record, layer.name) is not None for layer in THINGS)
    # regions and objects, those at one place as one thing
    for layer in THINGS:
        for i, entry in enumerate(getattr(record, layer.name) or ()):
            phrase = layer.words_of(entry).strip()
            if not phrase:
                continue
            own = _entry(f"{layer.name}/{i}", phrase, layer.name)
            if entry.kept and own is not None:
                _add(facts.entities, entry.box, own)
            elif own is not None and entry.reason in IN_DOUBT:
                facts.doubtful.append(own.noun)
    _add_lines(facts, record)
    _add_texts(facts, record, trust_caption)
    return facts


def _entry(name: str, phrase: str, layer: str) -> Entry | None:
    """A phrase as an entry; None for a phrase without a noun."""
    tokens = tokens_of(phrase)
    found = phrases_of(tokens)
    return _entry_of(name, found[0], phrase, layer) if found else None


def _entry_of(name: str, found: NounPhrase, phrase: str, layer: str) -> Entry:
    words = frozenset(re.findall(r"[^\W\d_]+", phrase.lower()))
    return Entry(name, found.noun, words, found.many or (found.count or 1) > 1, found.count, layer)


def _add(entities: list[Entity], box: Box, entry: Entry) -> None:
    """Add an entry to the thing at the same place, or as a new thing."""
    for entity in entities:
        assert entity.box is not None
        # two entries of one layer and one name are two things, unless they lie on one another
        known = {one.layer for one in entity.entries if one.noun == entry.noun}
        same = iou(box, entity.box) >= SAME_PLACE
        if same or (known and entry.layer not in known and min_overlap(box, entity.box) >= PART):
            entity.entries.append(entry)
            return
    entities.append(Entity(box, [entry]))


def _add_lines(facts: Facts, record: Record) -> None:
    """Add the lines of text, and each to the smallest thing that carries it."""
    for i, line in enumerate(record.text or ()):
        if not line.kept or not line.text.strip():
            continue
        facts.lines[f"text/{i}"] = line.text
        carriers = [entity for entity in facts.entities if entity.box and inside(line.box, entity.box) >= ON_IT]
        for entity in carriers:
            entity.texts.append(line.text)


def _add_texts(facts: Facts, record: Record, trust_caption: bool) -> None:
    """Add what the caption and the tags name."""
    if record.caption and record.caption.kept:
        made = structure_of(record.caption.text)
        for phrase in made.phrases:
            entry = _entry_of("caption", phrase, phrase.text(made.tokens, made.text), "caption")
            if is_setting(phrase.noun):
                facts.settings.append(entry)
            elif trust_caption and not is_empty(phrase.noun) and not phrase.negated:
                facts.told.append(Entity(None, [entry]))
    for i, tag in enumerate(record.tags or ()):
        found = _entry(f"tags/{i}", tag.word, "tags") if tag.kept else None
        if found is not None and is_setting(found.noun):
            facts.settings.append(found)
        elif found is not None:
            facts.told.append(Entity(None, [found]))


def letters_of(text: str) -> str:
    """Lower-case letters and digits of a text, between single spaces, without accents' forms being told apart."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", plain))


def lines_joined(lines: Sequence[str]) -> str:
    """All lines as one text in reading order: a quotation may go over several."""
    return " ".join(map(letters_of, lines))


__all__ = ["Entity", "Entry", "Facts", "facts_of", "kept", "letters_of", "lines_joined"]
