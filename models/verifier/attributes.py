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
    "blonde blond",
    "turquoise teal cyan aqua",
)
# colours that people do not tell apart: neither supports nor excludes the other
_NEAR = (
    "brown beige",
    "beige white",
    "beige yellow",
    "blonde yellow",
    "blonde beige",
    "blue turquoise",
    "green turquoise",
)
# colours that shade, light and opinion turn into one another
_BESIDE = (
    "red orange brown pink",
    "orange yellow brown",
    "yellow green beige",
    "green turquoise",
    "turquoise blue",
    "blue purple",
    "purple pink",
    "beige white brown",
    "white grey",
    "grey black",
)
MOST = 0.5  # share of a thing's pixels from which a colour is its colour
SEEN = 0.3  # from which it has the colour too
ABSENT = 0.02  # up to which it lacks it
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


def shown(word: str, shares: Mapping[str, float]) -> bool | None:
    """Whether a thing whose colours have these shares has a colour; None if that is not clear, or it is no colour.

    A thing lacks a colour only if neither it nor one beside it is seen, while another one covers most of the thing.
    """
    found = group_of(word)
    if found is None or found[0] != "colour" or not shares:
        return None
    name = found[1]
    if shares.get(name, 0.0) >= SEEN:
        return True
    near = {name} | {other for row in _BESIDE if name in row.split() for other in row.split()}
    # beige has no pixels of its own here: it cannot be missed
    if name not in shares or max(shares.values()) < MOST:
        return None
    return False if sum(shares.get(other, 0.0) for other in near) <= ABSENT else None
