"""Attributes of things: colours, sizes, materials and shapes, and which of them exclude one another."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

# each group: words that mean nearly the same; of one kind, words of different groups exclude one another
_COLOURS = (
    "red crimson scarlet maroon ruby burgundy",
    "orange",
    "yellow golden gold",
    "green olive lime emerald",
    "blue navy azure cobalt",
    "purple violet lavender mauve lilac",
    "pink magenta rose fuchsia",
    "brown tan chestnut chocolate",
    "beige cream ivory khaki",
    "black",
    "white",
    "grey gray silver silvery",
    "turquoise teal cyan aqua",
)
# colours that people do not tell apart: neither supports nor excludes the other
_NEAR = (
    "brown beige",
    "beige white",
    "beige yellow",
    "blue turquoise",
    "green turquoise",
)
_MATERIALS = (
    "wooden wood",
    "metal metallic steel iron",
    "plastic",
    "glass",
    "stone concrete marble",
    "brick",
    "leather",
    "paper cardboard",
    "cloth fabric woollen cotton",
    "ceramic porcelain",
)
_SIZES = ("large big huge giant enormous massive oversized", "small little tiny miniature")
_SHAPES = ("round circular", "square", "rectangular", "triangular", "oval")
_PATTERNS = ("striped", "dotted spotted polka", "checkered checked plaid", "plain solid", "gradient")
KINDS: Mapping[str, tuple[str, ...]] = {
    "colour": _COLOURS,
    "material": _MATERIALS,
    "size": _SIZES,
    "shape": _SHAPES,
    "pattern": _PATTERNS,
}
_GROUPS: Mapping[str, tuple[str, str]] = {
    word: (kind, group.split()[0]) for kind, groups in KINDS.items() for group in groups for word in group.split()
}
_NEAR_PAIRS = frozenset(frozenset(pair) for line in _NEAR for pair in combinations(line.split(), 2))


def is_attribute(word: str) -> bool:
    """Whether a word is one of the attributes."""
    return word in _GROUPS or _base(word) in _GROUPS


def _base(word: str) -> str:
    """The last part of "dark-blue" and "bluish"."""
    last = word.rpartition("-")[2]
    return {"reddish": "red", "bluish": "blue", "greenish": "green", "yellowish": "yellow", "brownish": "brown"}.get(
        last, last
    )


def group_of(word: str) -> tuple[str, str] | None:
    """The kind of an attribute and the first word of its group: "crimson" -> ("colour", "red"); None if unknown."""
    return _GROUPS.get(_base(word))


def compared(word: str, known: frozenset[str]) -> bool | None:
    """Whether an attribute is among those known of a thing; None if they do not tell.

    known: all words of what is known, such as those of "a red wooden car".
    """
    own = group_of(word)
    if own is None:
        return True if word in known else None
    kind, name = own
    others = {found[1] for found in map(group_of, known) if found and found[0] == kind}
    if not others:
        return None
    if name in others:
        return True
    return None if any(frozenset((name, other)) in _NEAR_PAIRS for other in others) else False
