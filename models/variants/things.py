"""The things of a record as questions and structured texts name them: "the red car", "two dogs"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from models.evidence.support import forms
from models.kinds.nouns import is_plural, several
from models.notes import COLOURS, Note, notes_of, quotation
from models.verifier.entities import IN_DOUBT
from models.verifier.lexicon import is_kind_of
from strata.core import THINGS, Box, Record, head_of

MOST_THINGS = 40
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ARTICLE = re.compile(r"(?:an?|the|some)\s+", re.I)
_MODIFIER = re.compile(r"\s+(?:with|of|on|in|at|that|wearing|holding|near|under|next|behind)\b.*|[,;:].*", re.I)


def bare(phrase: str) -> str:
    """A phrase without its article and what comes after its noun: "a red car on a road" -> "red car"."""
    return " ".join(_ARTICLE.sub("", _MODIFIER.sub("", phrase.strip().rstrip(".")), count=1).split())


@dataclass(frozen=True)
class Thing:
    """A note that has a name. number: among the things, from 0."""

    number: int
    note: Note

    @property
    def phrase(self) -> str:
        """Its most trusted name."""
        return self.note.phrases[0]

    @property
    def box(self) -> Box:
        """Its box in pixels."""
        return self.note.box

    @property
    def sources(self) -> list[str]:
        """The entries that it was made from."""
        return list(self.note.sources)

    @cached_property
    def noun(self) -> str:
        """The head noun of its name, in lower case."""
        return head_of(self.core)

    @cached_property
    def nouns(self) -> frozenset[str]:
        """The head nouns of all its names."""
        return frozenset(head_of(bare(phrase)) for phrase in self.note.phrases)

    @cached_property
    def core(self) -> str:
        """Its name without an article and what comes after the noun."""
        return bare(self.phrase)

    @cached_property
    def single(self) -> bool:
        """Whether its name says that it is one thing: with "a" or "an", and without a second thing."""
        return bool(re.match(r"an?\s", self.phrase, re.I)) and not re.search(r"\band an?\b", self.phrase, re.I)

    @cached_property
    def many(self) -> bool:
        """Whether its name is a plural."""
        return is_plural(self.phrase)

    @property
    def verb(self) -> str:
        return "are" if self.many else "is"

    @property
    def says(self) -> str:
        return "say" if self.many else "says"

    @cached_property
    def colours(self) -> list[str]:
        """The colours in all its names, each once."""
        words = (word for phrase in self.note.phrases for word in re.findall(r"[a-z]+", bare(phrase).lower()))
        return list(dict.fromkeys(word for word in words if word in COLOURS and word != self.noun))

    @cached_property
    def uncoloured(self) -> str:
        """Its core without the colours: "red car" -> "car"."""
        return " ".join(word for word in self.core.split() if word.lower() not in self.colours)

    def is_like(self, other: Thing) -> bool:
        """Whether both have the same head noun."""
        return bool(forms(self.noun) & forms(other.noun))

    def may_be(self, other: Thing) -> bool:
        """Whether a name of one may mean the other too: the same noun, a synonym, or a wider word."""
        return any(
            is_kind_of(a, b) or is_kind_of(b, a) or bool(forms(a) & forms(b)) for a in self.nouns for b in other.nouns
        )


@dataclass(frozen=True)
class Things:
    """The things of a record, from left to right, and how they can be told apart."""

    record: Record
    all: tuple[Thing, ...]

    @classmethod
    def of(cls, record: Record) -> Things:
        """The things of a record."""
        named = [note for note in notes_of(record, MOST_THINGS) if note.phrases and bare(note.phrases[0])]
        return cls(record, tuple(Thing(number, note) for number, note in enumerate(named)))

    @property
    def size(self) -> tuple[int, int]:
        """The width and height of the picture in pixels."""
        return self.record.width or 1, self.record.height or 1

    def alike(self, thing: Thing) -> list[Thing]:
        """The things that a name of this one may mean, itself among them."""
        return [other for other in self.all if other is thing or other.may_be(thing)]

    def is_alone(self, thing: Thing) -> bool:
        """Whether its name can mean nothing else, kept or in doubt."""
        return len(self.alike(thing)) == 1 and not self.doubtful(thing.noun)

    def doubtful(self, noun: str) -> bool:
        """Whether an entry of this head noun was dropped because a model was not sure: there may be more of them."""
        return any(
            entry.reason in IN_DOUBT and forms(head_of(bare(words))) & forms(noun)
            for layer in THINGS
            for entry in getattr(self.record, layer.name) or ()
            if not entry.kept and (words := layer.words_of(entry))
        )

    def definite(self, thing: Thing) -> str:
        """A name that means this thing alone, such as "the red car", 'the sign that says "OPEN"'; "" if none does."""
        if self.is_alone(thing):
            return f"the {thing.uncoloured}" if thing.uncoloured else f"the {thing.core}"
        alike = [other for other in self.alike(thing) if other is not thing]
        # by the text on it
        if thing.note.texts and all(other.note.texts != thing.note.texts for other in alike):
            return f"the {thing.core} that {thing.says} {quotation(thing.note.texts)}"
        # by its colour, if all others have another one
        own = set(thing.colours)
        if len(own) == 1 and all(other.colours and not own & set(other.colours) for other in alike):
            return "" if self.doubtful(thing.noun) else f"the {thing.core}"
        return ""


def named(things: Things, most: int) -> list[tuple[str, list[Thing]]]:
    """The names of the things with as much of a number as is known ("two dogs"), each with its things."""
    groups: dict[str, list[Thing]] = {}
    for thing in things.all:
        groups.setdefault(thing.phrase.lower(), []).append(thing)
    return [(counted(own, things.doubtful(own[0].noun)), own) for own in list(groups.values())[:most]]


def counted(own: Sequence[Thing], doubtful: bool) -> str:
    """Things of one name with their number; "at least" if others are in doubt."""
    phrase, number = _lower(own[0].phrase), len(own)
    if number == 1:
        return phrase
    if number < len(NUMBERS) and not doubtful:
        return several(NUMBERS[number], phrase)
    return several("at least two" if number == 2 else "several", phrase)


def listed(words: Sequence[str], last: str = "and") -> str:
    """Words in a row: "a, b and c". last: the word before the last one, "or" where one of them is asked for."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _lower(phrase: str) -> str:
    """A phrase whose article begins with a small letter; other capitals, such as those of a name, stay."""
    article = _ARTICLE.match(phrase)
    return phrase[:1].lower() + phrase[1:] if article else phrase
