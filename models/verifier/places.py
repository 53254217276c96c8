"""Positions in the picture and relations of two things: the words for them, and whether boxes fulfil them.

Places are compared by the centre of a box, as shares of the picture's sides. `models.notes.place_of` divides a side
into thirds; a text may say "on the left" of what lies left of the middle, so that the bounds here are wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.boxes import inside
from models.verifier.phrases import PICTURES
from models.verifier.words.tags import Token
from strata.core import Box

# relations with the words that tell them; the longest words first
RELATIONS: tuple[tuple[str, str], ...] = (
    ("to the left side of", "left"),
    ("on the left side of", "left"),
    ("to the right side of", "right"),
    ("on the right side of", "right"),
    ("to the left of", "left"),
    ("on the left of", "left"),
    ("at the left of", "left"),
    ("to the right of", "right"),
    ("on the right of", "right"),
    ("at the right of", "right"),
    ("on the top of", "on"),
    ("directly above", "above"),
    ("directly below", "below"),
    ("in front of", "front"),
    ("in the middle of", "in"),
    ("in the center of", "in"),
    ("in the centre of", "in"),
    ("left of", "left"),
    ("right of", "right"),
    ("on top of", "on"),
    ("next to", "near"),
    ("close to", "near"),
    ("adjacent to", "near"),
    ("inside of", "in"),
    ("far from", "far"),
    ("across from", "other"),
    ("above", "above"),
    ("over", "above"),
    ("below", "below"),
    ("under", "below"),
    ("beneath", "below"),
    ("underneath", "below"),
    ("beside", "near"),
    ("near", "near"),
    ("alongside", "near"),
    ("by", "near"),
    ("atop", "on"),
    ("upon", "on"),
    ("onto", "on"),
    ("on", "on"),
    ("inside", "in"),
    ("within", "in"),
    ("in", "in"),
    ("between", "between"),
    ("behind", "behind"),
    ("with", "with"),
)
_BY_FIRST_WORD: dict[str, list[tuple[list[str], str]]] = {}
for _words, _name in RELATIONS:
    _BY_FIRST_WORD.setdefault(_words.split()[0], []).append((_words.split(), _name))
_ROWS = {"top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom"}
_COLUMNS = {"left": "left", "right": "right", "left-hand": "left", "right-hand": "right", "leftmost": "left"}
_COLUMNS |= {"rightmost": "right"}
_ORDERS = {"from left to right": "left", "from right to left": "right"}
_ORDERS |= {"from top to bottom": "above", "from bottom to top": "below"}
_CENTRES = frozenset("centre center middle central".split())
_WHOLES = PICTURES | {"room"}  # "of the room" is of the picture
_DEPTHS = frozenset("foreground background distance front back".split())  # of which boxes say nothing
_FILLING = frozenset("far very extreme hand side part corner half edge area portion section third of the".split())
_AT = frozenset("at on in to near toward towards along across".split())
LEFT, RIGHT = 0.45, 0.55  # shares of the width up to which, and from which, "left" and "right" are true
SURELY = (1 / 3, 2 / 3)  # shares up to which, and from which, they cannot be denied
MIDDLE = (0.25, 0.75)  # shares between which "centre" is true
TIE = 0.02  # of the picture's side: centres that differ by less are neither left nor right of one another
NEAR, FAR = 0.25, 0.5  # gaps between two boxes, in shares of the diagonal: surely near, surely not near
BESIDE = 0.05  # of the distance of two centres: how far beyond one of them a third is not surely outside
TOUCH = 0.04  # of the diagonal: a gap that two boxes may have that touch one another


@dataclass(frozen=True)
class Place:
    """Words for a position. start, end: tokens; names: such as ("top", "left"), none if boxes cannot tell."""

    start: int
    end: int
    names: tuple[str, ...]


def place_at(tokens: Sequence[Token], start: int) -> Place | None:
    """The words for a place that begin at a preposition; None if what follows is none."""
    if order_at(tokens, start):
        return Place(start, start + 4, ())
    if tokens[start].lower not in _AT:
        return None
    names: list[str] = []
    at, nouns, depth = start + 1, 0, False
    while at < len(tokens):
        parts = tokens[at].lower.split("-")
        found = [_ROWS.get(part) or _COLUMNS.get(part) or ("centre" if part in _CENTRES else "") for part in parts]
        if any(found):
            names += filter(None, found)
        elif tokens[at].lower in _DEPTHS:
            depth = True
        elif tokens[at].lower == "of":
            picture = _picture_end(tokens, at)
            if picture is None:
                # "on the left of the car" tells a relation; "in the middle of the road" a thing's part
                return None
            at, nouns = picture, 1
            break
        elif tokens[at].lower not in _FILLING:
            break
        at += 1
    end = at
    if not (names or depth) or (tokens[end - 1].lower in ("the", "of") and end - start < 2):
        return None
    # "in the middle third", and "on the right bench", which is a thing
    if end < len(tokens) and tokens[end].tag in ("NOUN", "ADJ") and not nouns:
        return None
    return Place(start, end, tuple(dict.fromkeys(names)))


def order_at(tokens: Sequence[Token], start: int) -> str:
    """The relation of each thing to the next one where "from left to right" or the like begins; "" elsewhere."""
    return _ORDERS.get(" ".join(token.lower for token in tokens[start : start + 4]), "")


def _picture_end(tokens: Sequence[Token], of: int) -> int | None:
    """The token after "of the picture"; None if something else follows "of"."""
    at = of + 1
    while at < len(tokens) and tokens[at].tag in ("DET", "ADJ"):
        at += 1
    return at + 1 if at < len(tokens) and tokens[at].lower in _WHOLES else None


def relation_at(tokens: Sequence[Token], start: int) -> tuple[str, int] | None:
    """The relation whose words begin at a token, with the token after them; None if none begins there."""
    for words, name in _BY_FIRST_WORD.get(tokens[start].lower, ()):
        if [token.lower for token in tokens[start : start + len(words)]] == words:
            return name, start + len(words)
    return None


def lies(box: Box, names: Sequence[str], size: tuple[int, int], surely: bool = False) -> bool:
    """Whether a box lies at a place of a picture of that size (width, height).

    surely: within the outer third of a side, so that nobody could say that it does not.
    """
    low, high = SURELY if surely else (LEFT, RIGHT)
    x, y = (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1]
    rows, columns = set(names) & {"top", "bottom"}, set(names) & {"left", "right"}
    holds = {"left": x <= low, "right": x >= high, "top": y <= low, "bottom": y >= high}
    if "centre" in names:
        # "at the centre left": the middle of the other axis
        holds["centre"] = (columns or MIDDLE[0] <= x <= MIDDLE[1]) and (rows or MIDDLE[0] <= y <= MIDDLE[1])  # type: ignore[assignment]
    # "on the left and right": one of both is enough for one thing
    across = any(holds[name] for name in columns) if columns else True
    down = any(holds[name] for name in rows) if rows else True
    return bool(across and down and holds.get("centre", True))


def related(a: Box, relation: str, b: Box, size: tuple[int, int]) -> bool | None:
    """Whether two boxes fulfil a relation in a picture of that size; None if boxes do not tell."""
    dx = ((b[0] + b[2]) - (a[0] + a[2])) / 2 / size[0]
    dy = ((b[1] + b[3]) - (a[1] + a[3])) / 2 / size[1]
    diagonal = math.hypot(*size)
    gap = math.hypot(max(0.0, a[0] - b[2], b[0] - a[2]), max(0.0, a[1] - b[3], b[1] - a[3])) / diagonal
    match relation:
        case "left":
            return _beyond(dx)
        case "right":
            return _beyond(-dx)
        case "above":
            return _beyond(dy)
        case "below":
            return _beyond(-dy)
        case "on":
            return gap <= TOUCH if gap <= TOUCH or gap > 2 * TOUCH else None
        case "in":
            return True if inside(a, b) >= 0.5 else False if gap > TOUCH else None
        case "near":
            return True if gap <= NEAR else False if gap > FAR else None
        case "far":
            return True if gap >= FAR else False if gap <= TOUCH else None
    return None


def lies_between(box: Box, a: Box, b: Box, size: tuple[int, int]) -> bool | None:
    """Whether the centre of a box lies between those of two others, along the line through them; None if it is close.

    Source: the projection of a point on a segment, from 0 at one end to 1 at the other.
    """
    (x, y), (ax, ay), (bx, by) = (
        ((one[0] + one[2]) / 2 / size[0], (one[1] + one[3]) / 2 / size[1]) for one in (box, a, b)
    )
    length = (bx - ax) ** 2 + (by - ay) ** 2
    if length < TIE**2:
        return None
    share = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length
    return True if 0 < share < 1 else None if -BESIDE <= share <= 1 + BESIDE else False


def _beyond(difference: float) -> bool | None:
    return None if abs(difference) < TIE else difference > 0
