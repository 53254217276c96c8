"""Sentences of a description, each tied to the layer entries that support it."""

from __future__ import annotations

import itertools
import re

from strata.core import LAYERS, Description, LayerSpec, Record, Sentence, head_of

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
    """The sentences of a text, white space trimmed; text in double quotes is never divided."""
    masked = _QUOTED.sub(lambda quote: quote[0].translate({ord(mark): "\x00" for mark in ".!?"}), text)
    # a quote's own last mark may end the sentence: only marks with text of the quote behind them are hidden
    masked = re.sub(r"\x00(?=[\"”])", ".", masked)
    cuts = [0, *(match.end() for match in _END.finditer(masked)), len(text)]
    pieces = (text[start:end].strip() for start, end in itertools.pairwise(cuts))
    return [piece for piece in pieces if piece]


def support(sentence: str, record: Record) -> list[str]:
    """Names of the kept entries that a sentence rests on, in the record's order; empty if nothing supports it.

    An entry that names something (a region, an object) does if the sentence has its head noun in a colour that does not
    contradict it, a line of text if the sentence quotes it, the caption if both name the same thing, and the alt text
    only where nothing else does.
    """
    words, letters = _words(_QUOTED.sub(" ", sentence)), _letters(sentence)
    found: list[str] = []
    for layer in LAYERS.values():
        for i, entry in enumerate(layer.entries(getattr(record, layer.name))):
            if entry.kept and _supports(layer, layer.words_of(entry), words, letters):
                found.append(f"{layer.name}/{i}" if layer.many else layer.name)
    if not found and record.alt_text and _shares_thing(words, record.alt_text):
        found.append("alt_text")
    return found


def _supports(layer: LayerSpec, said: str, words: list[str], letters: str) -> bool:
    """Whether a sentence, by its words and its letters, says what an entry of a layer says."""
    if layer.quoted:
        return bool(_letters(said).strip()) and _letters(said) in letters
    if not layer.many:  # a text of its own, such as the caption
        return _shares_thing(words, said)
    return bool(said) and _names(words, said)


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
