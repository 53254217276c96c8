"""Places of two things that are compared: "closer to the left edge than the cat", "higher than the cat"."""

from __future__ import annotations

from collections.abc import Iterator

from models.verifier.claims.attachments import attached
from models.verifier.claims.denials import is_denied_of
from models.verifier.claims.nouns import is_empty
from models.verifier.claims.statements import Statement
from models.verifier.structure import Structure
from models.verifier.words.lists import NEARER
from models.verifier.words.tags import Token

_SIDES = {"left": "left", "right": "right", "top": "above", "bottom": "below", "up": "above", "down": "below"}
_HEIGHTS = {"higher": "above", "lower": "below"}
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_REACH = 8  # words between a comparative and its "than"


def comparisons_in(made: Structure) -> Iterator[Statement]:
    """The relation that two boxes have by a comparison of their places."""
    for than, token in enumerate(made.tokens):
        other = next((one for one in made.phrases if one.start == than + 1), None)
        if token.lower != "than" or other is None or is_empty(other.noun):
            continue
        for at in range(max(0, than - _REACH), than):
            name = _name_of(made.tokens[at:than])
            subjects, every = attached(made, at) if name else ((), False)
            if subjects:
                denied = is_denied_of(made, at, subjects)
                yield Statement(
                    "relation", at, other.end, subjects[0], name, others=(other,), subjects=subjects, every=every,
                    denied=denied,
                )  # fmt: skip
                break


def _name_of(words: list[Token]) -> str:
    """The relation of the words from a comparative to "than"; "" if they tell none of places."""
    first = words[0].lower
    if first in _HEIGHTS:
        # "higher up" alone: "a higher shelf" is another thing
        return _HEIGHTS[first] if all(token.tag in ("ADV", "PREP") for token in words[1:]) else ""
    if first not in NEARER and first != "more":
        return ""
    sides = [_SIDES[token.lower] for token in words if token.lower in _SIDES]
    away = any(token.lower == "from" for token in words)
    return "" if len(sides) != 1 else _OPPOSITE[sides[0]] if away else sides[0]
