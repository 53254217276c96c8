"""Sentences: where a text divides into them, in every script, and which of them are whole."""

from __future__ import annotations

import itertools
import re
import unicodedata

# marks that end a sentence wherever they stand: Chinese and Japanese text has no space after them
_WIDE = "。！？｡．"
# marks that end a sentence before white space: Latin, Arabic, Urdu, Indic, Armenian, Ethiopic, Burmese, Khmer, Tibetan
_SPACED = ".!?…؟۔।॥։።၊။។༎"
_CLOSERS = '"”’»›“)]}」』）】*_'
_OPENERS = "\"“„‚«‹»'‘([{¿¡「『（【*_"
_END = re.compile(rf"[{_WIDE}{re.escape(_SPACED)}]+[{re.escape(_CLOSERS)}]*")
# a quotation that is longer than a paragraph is none: its end was forgotten
_QUOTED = re.compile(
    r"\"[^\"]{1,400}\"|“[^“”]{1,400}”|“[^”\"]{1,400}\"|„[^“”]{1,400}[“”]|«[^»]{1,400}»|「[^」]{1,400}」|『[^』]{1,400}』"
)
_MARKS = {ord(mark): "\x00" for mark in _WIDE + _SPACED}
# abbreviations before a name or a number, and initials: the full stop after them ends no sentence
_SHORT = re.compile(
    r"(?:\b[A-ZÀ-ÖØ-ÞА-ЯЁ]|\b(?:St|Mr|Mrs|Ms|Dr|Prof|vs|Nr|Sr|Sra|Mme|Mlle|No|Fig|e\.g|i\.e|z\.B|bzw|ca|ул|им|г))\.\Z"
)


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, without surrounding white space. Text in double quotes is never divided."""
    masked = _without_marks_in_quotes(text)
    cuts = [0, *(match.end() for match in _END.finditer(masked) if _divides(masked, match)), len(text)]
    pieces = (text[start:end].strip() for start, end in itertools.pairwise(cuts))
    return [piece for piece in pieces if piece]


def whole_sentences(text: str) -> list[str]:
    """The sentences of a text whose end may be missing, without an incomplete last one."""
    sentences = sentences_of(text)
    return sentences if sentences and is_whole(sentences[-1]) else sentences[:-1]


def is_whole(sentence: str) -> bool:
    """Whether a sentence at the end of a cut text ends with a mark that ends sentences.

    A full stop after a digit or an abbreviation does not count: the text may have gone on with "3.5 metres".
    """
    ended = sentence.rstrip(_CLOSERS)
    if not ended or ended[-1] not in _WIDE + _SPACED or _SHORT.search(ended):
        return False
    # a quotation that was opened and not closed goes on
    masked = _without_marks_in_quotes(sentence)
    if masked.count('"') % 2 or masked.count("“") > masked.count("”") + masked.count("„"):
        return False
    return not (ended[-1] == "." and ended[-2:-1].isdigit())


def upper(text: str) -> str:
    """A text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def _without_marks_in_quotes(text: str) -> str:
    """The text, of the same length, with NUL for marks in quotations, but for one that ends the quotation."""

    def masked(quote: re.Match[str]) -> str:
        inner, last, closing = quote[0][:-2], quote[0][-2], quote[0][-1]
        return inner.translate(_MARKS) + last + closing

    return _QUOTED.sub(masked, text)


def _divides(text: str, end: re.Match[str]) -> bool:
    """Whether a sentence ends at a mark: by what stands before and after it."""
    mark, after = end[0][0], text[end.end() :]
    if mark in _WIDE:
        return True
    if not after[:1].isspace():
        return False
    if mark == "." and _SHORT.search(text[: end.start() + 1][-12:]):
        return False
    # the next sentence begins with a capital letter, a digit, or a letter of a script that has no capitals
    following = after.lstrip().lstrip(_OPENERS)[:1]
    return bool(following) and (following.isdigit() or unicodedata.category(following) in ("Lu", "Lt", "Lo"))
