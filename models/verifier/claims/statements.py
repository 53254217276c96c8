"""A claim of a sentence, not yet checked."""

from __future__ import annotations

from dataclasses import dataclass

from models.verifier.claims.surroundings import Around
from models.verifier.phrases import NounPhrase
from strata.core import ClaimKind

ANYTHING, TEXT = "anything", "text"  # nouns of what is told to be absent: things and text of all kinds


@dataclass(frozen=True)
class Statement:
    """A claim of a sentence, not yet checked. start, end: its tokens.

    phrase: the noun phrase that it is about, None for a quotation alone. value: of an attribute its word, of a count
    the number (0: more than one), of a relation its name, of a quotation its letters; names: of a place.
    others: what the second phrase of a relation may stand for. subjects: those that a relation or place may be told of;
    every: it is told of all. quotes: of a relation, the phrases of its sentence that carry text, with the text.
    part: a count of some of more things. denied: an attribute, a place or a relation that the thing has not, by
    the sentence. read: whether
    the words may be text of the picture, as they have capitals. items: what is told one by one of a phrase, as in "two
    pets: a cat and a dog". object: whether a verb or a preposition governs it, after the subject of its clause.
    around: of a setting, how the picture lies in it, see `surroundings.py`.
    """

    kind: ClaimKind
    start: int
    end: int
    phrase: NounPhrase | None = None
    value: str = ""
    names: tuple[str, ...] = ()
    others: tuple[NounPhrase, ...] = ()
    subjects: tuple[NounPhrase, ...] = ()
    every: bool = False
    quotes: tuple[tuple[NounPhrase, str], ...] = ()
    part: bool = False
    read: str = ""
    denied: bool = False
    items: tuple[NounPhrase, ...] = ()
    object: bool = False
    around: Around = ""
