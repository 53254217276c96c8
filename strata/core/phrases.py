"""The head nouns of phrases."""

from __future__ import annotations

import re

_FIRST = re.compile(r"\b(?:with|of|on|in|at|that|wearing)\b")
_WORD = re.compile(r"[^\W\d_]+")


def head_of(phrase: str) -> str:
    """The head noun of a phrase, in lower case: "a red car on a road" -> "car".

    Takes the last word before the first preposition or relative pronoun.
    """
    words: list[str] = _WORD.findall(_FIRST.split(phrase, maxsplit=1)[0].lower())
    return words[-1] if words else phrase.lower()
