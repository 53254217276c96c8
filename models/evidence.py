"""Sentences of a description, each tied to the layer entries that support it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from strata.core.phrases import head_of
from strata.core.records import Description, ObjectMask, Record, Region, Sentence

COLOURS = frozenset(
    "red orange yellow green blue purple pink brown black white grey gray beige gold golden silver turquoise".split()
)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]")
# a full stop, perhaps with a closing quote, before white space and the start of another sentence; not after "St."
_END = re.compile(r"(?<!\b[A-Z])(?<!\b(?:St|Mr|Dr|vs))(?<!\bMrs)([.!?][\"”')]*)\s+(?=[\"“'(]?[A-Z0-9])")
_JOINTS = re.compile(r"[,.;]|\b(?:and|on|in|at|with|near|under|of|to|is|are)\b")
_PLACES = frozenset("left right top bottom centre center middle above below picture image".split())
_SMALL_WORDS = frozenset("a an the of on in at and with to is are that".split())


def describe(text: str, record: Record) -> Description:
    """The composer's text as a Description: its sentences, each with the kept entries that support it."""
    return Description(
        text=text,
        sentences=[Sentence(text=sentence, evidence=support(sentence, record)) for sentence in sentences_of(text)],
    )


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, white space trimmed; what stands in double quotes is never divided."""
    masked = _QUOTED.sub(lambda quote: quote[0].translate({ord(mark): "\x00" for mark in ".!?"}), text)
    # a quote's own last mark may end the sentence: only marks with text of the quote behind them are hidden
    masked = re.sub(r"\x00(?=[\"”])", ".", masked)
    cuts = [0, *(match.end() for match in _END.finditer(masked)), len(text)]
    pieces = (text[start:end].strip() for start, end in itertools.pairwise(cuts))
    return [piece for piece in pieces if piece]


def support(sentence: str, record: Record) -> list[str]:
    """Names of the kept entries that a sentence rests on, in the record's order; empty if nothing supports it.

    A region or object does if the sentence names its head noun in a colour that does not contradict it, a text line
    if the sentence holds it, the caption if they share a thing, and the alt text only where nothing else does.
    """
    words = _words(_QUOTED.sub(" ", sentence))
    found: list[str] = []
    if record.caption and record.caption.kept and _shares_thing(words, record.caption.text):
        found.append("caption")
    layers: dict[str, Sequence[Region | ObjectMask]] = {
        "regions": record.regions or (),
        "objects": record.objects or (),
    }
    for layer, entries in layers.items():
        found += [f"{layer}/{i}" for i, entry in enumerate(entries) if entry.kept and _names(words, entry.phrase)]
    said = _letters(sentence)
    for i, line in enumerate(record.text or ()):
        if line.kept and _letters(line.text).strip() and _letters(line.text) in said:
            found.append(f"text/{i}")
    if not found and record.alt_text and _shares_thing(words, record.alt_text):
        found.append("alt_text")
    return found


def _words(text: str) -> list[str]:
    return [str(word) for word in _WORD.findall(text.lower())]


def _forms(word: str) -> set[str]:
    """A noun and what it may be the plural of; two nouns are one if any of their forms are the same."""
    forms = {word}
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(word[:-3] + "y")
    return forms


def _letters(text: str) -> str:
    """Lower-case words between single spaces, so that "EXIT" is found in '"Exit".' and not in "exited"."""
    words = " ".join(re.findall(r"\w+", text.lower()))
    return f" {words} "


def _names(words: list[str], phrase: str) -> bool:
    """Whether the words hold the phrase's head noun in a colour that fits."""
    colours = set(_words(phrase)) & COLOURS
    head = _forms(head_of(phrase))
    return any(_forms(word) & head and _fits(words[:i], colours) for i, word in enumerate(words))


def _fits(before: list[str], colours: set[str]) -> bool:
    """Whether the noun after these words is said in one of the colours, or in none."""
    said = next((word for word in reversed(before[-3:]) if word in COLOURS | _SMALL_WORDS), "")
    return said not in COLOURS or not colours or said in colours


def _shares_thing(words: list[str], text: str) -> bool:
    """Whether the words hold the head noun of a noun phrase of the text."""
    pieces = _JOINTS.split(text.lower())
    heads = {head_of(piece) for piece in pieces if _WORD.search(piece)} - COLOURS - _SMALL_WORDS - _PLACES
    said = set().union(*map(_forms, words))
    return any(_forms(head) & said for head in heads)
