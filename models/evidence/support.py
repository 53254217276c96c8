"""Evidence: the layer entries that support each sentence of a description."""

from __future__ import annotations

import itertools
import re

from models.kinds.nouns import SINGULARS
from models.notes import COLOURS
from strata.core import LAYERS, Description, LayerSpec, Record, Sentence, head_of

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_QUOTED = re.compile(r"“[^“”]+”|[\"“][^\"”]+[\"”]|«[^»]+»|「[^」]+」")
# a full stop with optional closing quotes, before white space and the start of a sentence; not after "St."
_END = re.compile(r"(?<!\b[A-Z])(?<!\b(?:St|Mr|Dr|vs))(?<!\bMrs)([.!?][\"”')]*)\s+(?=[\"“'(]?[A-Z0-9])")
# where a caption divides into noun phrases
_JOINTS = re.compile(r"[,.;]|\b(?:and|on|in|at|with|near|under|of|to|is|are)\b")
_PLACES = frozenset("left right top bottom centre center middle above below picture image".split())
_SMALL_WORDS = frozenset("a an the of on in at and with to is are that".split())


def describe(text: str, record: Record) -> Description:
    """Build the Description of the composer's text: its sentences, each with the kept entries that support it."""
    return Description(
        text=text,
        sentences=[Sentence(text=sentence, evidence=support(sentence, record)) for sentence in sentences_of(text)],
    )


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, without surrounding white space. Text in double quotes is never divided."""
    # replace the sentence marks inside quotes by NUL, which keeps all offsets
    masked = _QUOTED.sub(lambda quote: quote[0].translate({ord(mark): "\x00" for mark in ".!?"}), text)
    # restore a mark that ends a quote, since it may end the sentence too
    masked = re.sub(r"\x00(?=[\"”])", ".", masked)
    # find the ends in the masked text, and cut the original one there
    cuts = [0, *(match.end() for match in _END.finditer(masked)), len(text)]
    pieces = (text[start:end].strip() for start, end in itertools.pairwise(cuts))
    return [piece for piece in pieces if piece]


def support(sentence: str, record: Record) -> list[str]:
    """Names of the kept entries that support a sentence ("regions/0"), in the record's order; empty if none does.

    A region or an object supports it if the sentence contains its head noun in a colour that does not contradict it; a
    line of text if the sentence quotes it; the caption if both name the same thing. The alt text counts only if no
    layer supports the sentence.
    """
    # nouns are searched outside of quotes, the letters of text lines also inside
    words, letters = _words(_QUOTED.sub(" ", sentence)), _letters(sentence)
    found: list[str] = []
    # every kept entry of every layer; the layer says how its entries are compared
    for layer in LAYERS.values():
        for i, entry in enumerate(layer.entries(getattr(record, layer.name))):
            if entry.kept and _supports(layer, layer.words_of(entry), words, letters):
                found.append(f"{layer.name}/{i}" if layer.many else layer.name)
    # the alt text comes from the data set and was not checked against the image: last choice
    if not found and record.alt_text and _shares_thing(words, record.alt_text):
        found.append("alt_text")
    return found


def _supports(layer: LayerSpec, content: str, words: list[str], letters: str) -> bool:
    """Whether an entry supports a sentence. content: the entry's words; words, letters: of the sentence."""
    if layer.quoted:
        return bool(_letters(content).strip()) and _letters(content) in letters
    if not layer.many:  # a whole text, such as the caption
        return _shares_thing(words, content)
    return bool(content) and _names(words, content)


def _words(text: str) -> list[str]:
    return [str(word) for word in _WORD.findall(text.lower())]


def forms(word: str) -> set[str]:
    """A noun and its possible singular forms. Two nouns are the same if they have a form in common."""
    found = {word, SINGULARS.get(word, word)}
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        found.add(word[:-1])
        if word.endswith("es"):
            found.add(word[:-2])
        if word.endswith("ies"):
            found.add(word[:-3] + "y")
    return found


def _letters(text: str) -> str:
    """Lower-case words between single spaces, so that "EXIT" is found in '"Exit".' but not in "exited"."""
    words = " ".join(re.findall(r"\w+", text.lower()))
    return f" {words} "


def names(text: str, phrase: str) -> bool:
    """Whether a text contains a phrase's head noun, outside of quotes, and in no colour that contradicts the phrase."""
    return _names(_words(_QUOTED.sub(" ", text)), phrase)


def _names(words: list[str], phrase: str) -> bool:
    """Whether the words contain the phrase's head noun, and in no colour that contradicts the phrase."""
    colours = set(_words(phrase)) & COLOURS
    head = forms(head_of(phrase))
    return any(forms(word) & head and _fits(words[:i], colours) for i, word in enumerate(words))


def _fits(before: list[str], colours: set[str]) -> bool:
    """Whether the noun after these words has one of the colours, or none."""
    # the nearest colour of the last three words; a small word such as "the" ends the noun phrase
    colour = next((word for word in reversed(before[-3:]) if word in COLOURS | _SMALL_WORDS), "")
    return colour not in COLOURS or not colours or colour in colours


def _shares_thing(words: list[str], text: str) -> bool:
    """Whether the words contain the head noun of any noun phrase of the text."""
    # colours, small words and places are no things: a sentence about another thing may contain them too
    pieces = _JOINTS.split(text.lower())
    heads = {head_of(piece) for piece in pieces if _WORD.search(piece)} - COLOURS - _SMALL_WORDS - _PLACES
    named = set().union(*map(forms, words))
    return any(forms(head) & named for head in heads)
