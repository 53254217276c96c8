"""What a record holds as evidence: its kept entries as things, with names, attributes, boxes and texts."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from models.boxes import inside, iou, min_overlap
from models.notes import SAME_PLACE
from models.verifier.attributes import is_attribute
from models.verifier.claims.nouns import is_empty, is_setting
from models.verifier.claims.surroundings import Around, around_of
from models.verifier.lexicon import singular, verb_of
from models.verifier.phrases import NounPhrase, phrases_of
from models.verifier.structure import structure_of
from models.verifier.words.tags import Token
from models.verifier.words.tokens import tokens_of
from strata.core import THINGS, Box, Record

PART = 0.6  # share of the smaller box within the other one, from which two boxes of one name may be one thing
ON_IT = 0.5  # share of a line's box within a thing's box, from which the thing carries the line
IN_DOUBT = ("low_score", "low_match", "low_second_match", "low_evidence", "contradicted")


@dataclass(frozen=True)
class Entry:
    """One name of a thing. name: of the entry, such as "regions/0". noun, words: of its phrase; many: a plural.

    around: of surroundings, how the picture lies there by the text (`claims.surroundings`).
    """

    name: str
    noun: str
    words: frozenset[str]
    many: bool
    count: int | None
    layer: str
    around: Around = ""


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
    by entry, and their boxes. doubtful: nouns of entries that were dropped because a model was not sure.
    unsure: the things of such entries that nothing contradicts, and the surroundings of a dropped caption.
    size: (width, height). compounds: the nouns of two and more words in the names of entries, such as "sports ball".
    """

    size: tuple[int, int]
    entities: list[Entity] = field(default_factory=list)
    told: list[Entity] = field(default_factory=list)
    settings: list[Entry] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)
    line_boxes: dict[str, Box] = field(default_factory=dict)
    doubtful: list[str] = field(default_factory=list)
    unsure: list[Entity] = field(default_factory=list)
    compounds: set[str] = field(default_factory=set)

    @functools.cached_property
    def read(self) -> str:
        """The letters of all lines of text, in a row."""
        return " ".join(map(letters_of, self.lines.values()))


def facts_of(record: Record, trust_caption: bool = True) -> Facts:
    """The evidence of a record. trust_caption: whether a thing that the caption alone names counts."""
    facts = Facts((record.width or 1, record.height or 1))
    # regions and objects, those at one place as one thing
    for layer in THINGS:
        for i, entry in enumerate(getattr(record, layer.name) or ()):
            phrase = layer.words_of(entry).strip()
            if not phrase:
                continue
            found = _entries(f"{layer.name}/{i}", phrase, layer.name, facts)
            if not found:
                continue
            own, *others = found
            if entry.kept:
                _add(facts.entities, entry.box, own)
                # what the phrase says of the thing names further things: "a man in a red shirt", "a bowl of soup"
                for other in others:
                    _add_told(facts, other)
            elif entry.reason in IN_DOUBT:
                facts.doubtful.append(own.noun)
                facts.unsure += [Entity(entry.box, [own])] if entry.reason != "contradicted" else []
    _add_lines(facts, record)
    _add_texts(facts, record, trust_caption)
    return facts


def _entries(name: str, phrase: str, layer: str, facts: Facts) -> list[Entry]:
    """The noun phrases of an entry's phrase, its own first; none for a phrase without a noun."""
    tokens = [
        # a name of a thing has no verb but in a relative clause
        replace(token, tag="NOUN") if token.tag == "VERB" and token.lower == verb_of(token.lower) else token
        for token in tokens_of(phrase)
    ]
    found = phrases_of(tokens)
    made = []
    for one in found:
        facts.compounds.update(_compounds_of(tokens[one.start : one.end]))
        if one is found[0]:
            # a colour of what the thing wears or holds is not its own
            others = {at for later in found[1:] for at in range(later.start, later.end)}
            own = [token.text for at, token in enumerate(tokens) if not _is_foreign(token, at in others)]
            made.append(_entry_of(name, one, " ".join(own), layer))
        elif not one.negated:
            made.append(_entry_of(name, one, one.text(tokens, phrase), layer))
    return made


def _is_foreign(token: Token, other: bool) -> bool:
    """Whether a word is an attribute of another thing, or none at all: the "cream" of "ice cream"."""
    return is_attribute(token.lower) and (other or token.tag == "NOUN")


def _compounds_of(tokens: Sequence[Token]) -> Iterator[str]:
    """The nouns of several words that end a noun phrase, in the singular: "police officer"."""
    words = [token.lower for token in itertools.takewhile(lambda one: one.tag == "NOUN", reversed(tokens))][::-1]
    for start in range(len(words) - 1):
        yield " ".join([*words[start:-1], singular(words[-1])])


def _add_told(facts: Facts, entry: Entry) -> None:
    """Add what a phrase or a tag names without a box."""
    if is_setting(entry.noun):
        facts.settings.append(entry)
    elif not is_empty(entry.noun):
        facts.told.append(Entity(None, [entry]))


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
    """Add the lines of text, and each to the things that carry it."""
    for i, line in enumerate(record.text or ()):
        if not line.kept or not line.text.strip():
            continue
        facts.lines[f"text/{i}"], facts.line_boxes[f"text/{i}"] = line.text, line.box
        for entity in facts.entities:
            if entity.box and inside(line.box, entity.box) >= ON_IT:
                entity.texts.append(line.text)


def _add_texts(facts: Facts, record: Record, trust_caption: bool) -> None:
    """Add what the caption and the tags name."""
    if record.caption:
        kept, made = record.caption.kept, structure_of(record.caption.text)
        for phrase in made.phrases:
            entry = _entry_of("caption", phrase, phrase.text(made.tokens, made.text), "caption")
            if not kept:
                facts.unsure += [Entity(None, [entry])] if is_setting(phrase.noun) else []
                continue
            facts.compounds.update(_compounds_of(made.tokens[phrase.start : phrase.end]))
            if is_setting(phrase.noun):
                facts.settings.append(replace(entry, around=around_of(made, phrase)))
            elif trust_caption and not is_empty(phrase.noun) and not phrase.negated:
                facts.told.append(Entity(None, [entry]))
    for i, tag in enumerate(record.tags or ()):
        for found in _entries(f"tags/{i}", tag.word, "tags", facts) if tag.kept else ():
            _add_told(facts, found)


def letters_of(text: str) -> str:
    """Lower-case letters and digits of a text, between single spaces, without accents' forms being told apart."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", plain))


def has_letters(text: str, letters: str) -> bool:
    """Whether a text has letters, which are as from `letters_of`, as whole words."""
    return f" {letters} " in f" {letters_of(text)} "
