"""Words in capitals that are text of the picture, without quotation marks: "the words GRAND OPENING"."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from models.verifier.lexicon import verb_of
from models.verifier.words.tags import Token

WRITTEN = frozenset("word words text letters lettering inscription message writing name title slogan label".split())
SAYING = frozenset(
    "say read spell label title mark state show display indicate announce advertise warn list bear feature mention "
    "write print paint engrave inscribe carry name".split()
)  # basic forms
_PUT_ON = frozenset("written printed painted read engraved inscribed lettered shown displayed spelled".split())
_FEWEST = 2  # letters of a word in capitals


def joined(found: Sequence[Token], sentence: str, read: str) -> list[Token]:
    """The words of a sentence, with each run of capitals that is text as one quotation.

    It is text if it was read, or if the sentence says so: "the words GRAND OPENING", "EXIT is written on". read: the
    letters of all lines, in lower case with single spaces.
    """
    # a sentence that is all capitals has no words that stand out
    if not any(_is_plain(token) for token in found):
        return list(found)
    made: list[Token] = []
    at = 0
    for start, end in _runs(found):
        known = _read_part(found, start, end, read)
        if known is None and _is_told(found, start, end):
            known = (start, end)
        if known is None or _names_a_thing(found, *known):
            continue
        first, last = found[known[0]], found[known[1] - 1]
        made += found[at : known[0]]
        made.append(Token(sentence[first.start : last.end], first.start, last.end, "QUOTE"))
        at = known[1]
    return [*made, *found[at:]]


def _is_plain(token: Token) -> bool:
    return token.tag != "QUOTE" and token.text.islower()


def _runs(found: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """The runs of words in capitals, with the numbers in and behind them, as (start, end)."""
    at = 0
    while at < len(found):
        end = at
        while end < len(found) and (_is_capital(found[end]) or (end > at and found[end].text.isdecimal())):
            end += 1
        if end > at:
            yield at, end
        at = end + 1


def _is_capital(token: Token) -> bool:
    letters = token.text.replace("'", "").replace("’", "").replace("-", "")
    return token.tag != "QUOTE" and len(letters) >= _FEWEST and letters.isalpha() and letters.isupper()


def _read_part(found: Sequence[Token], start: int, end: int, read: str) -> tuple[int, int] | None:
    """The longest part of a run, from its start, that was read; None if a word in capitals is left, or nothing."""
    for stop in range(end, start, -1):
        letters = " ".join(token.lower for token in found[start:stop])
        if f" {letters} " in f" {read} ":
            return None if any(_is_capital(token) for token in found[stop:end]) else (start, stop)
    return None


def _is_told(found: Sequence[Token], start: int, end: int) -> bool:
    """Whether the words before a run, or after it, say that it is text."""
    before = {token.lower for token in found[max(0, start - 3) : start]}
    # "a banner with HAPPY BIRTHDAY"
    if end - start > 1 and start > 0 and found[start - 1].lower == "with":
        return True
    if before & WRITTEN or {verb_of(word) for word in before} & SAYING:
        return True
    after = itertools.takewhile(lambda token: token.text.isalpha(), found[end : end + 4])
    return any(token.lower in _PUT_ON for token in after)


def _names_a_thing(found: Sequence[Token], start: int, end: int) -> bool:
    """Whether a single word in capitals is of a noun phrase: "a TV", "the STOP sign"."""
    return end - start == 1 and start > 0 and found[start - 1].lower in ("a", "an", "the")
