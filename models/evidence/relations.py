"""How two things lie to each other: told only where their boxes lie clearly apart, so that it is right."""

from __future__ import annotations

import math
from collections.abc import Sequence

from strata.core import Box

APART = 0.02  # share of the picture's side that lies free between two boxes
AHEAD = 1.25  # how much farther the centres are apart on the axis of the relation than on the other one
OPPOSITE = {"left": "right", "above": "below"}


def relation_of(a: Box, b: Box, size: tuple[int, int]) -> str | None:
    """ "left", "right", "above" or "below": where `a` lies, seen from `b`; None if it is not clear.

    size: width and height of the picture, in pixels, as the boxes.
    """
    dx, dy = (b[0] + b[2] - a[0] - a[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2
    free_across, free_down = max(a[0] - b[2], b[0] - a[2]) / size[0], max(a[1] - b[3], b[1] - a[3]) / size[1]
    # a free strip between both, and not diagonal
    if free_across >= APART and abs(dx) >= AHEAD * abs(dy):
        return "left" if dx > 0 else "right"
    if free_down >= APART and abs(dy) >= AHEAD * abs(dx):
        return "above" if dy > 0 else "below"
    return None


def clear_relations(boxes: Sequence[Box], size: tuple[int, int], most: int) -> list[tuple[int, str, int]]:
    """At most `most` clear relations of neighbours, each thing in one of them: (index, "left" or "above", index)."""
    found = []
    for i, a in enumerate(boxes):
        for j, b in enumerate(boxes):
            relation = relation_of(a, b, size)
            if relation in OPPOSITE:
                across, down = a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]
                found.append((math.hypot(across, down), i, relation, j))
    # the nearest pairs first
    taken: set[int] = set()
    chosen: list[tuple[int, str, int]] = []
    for _, i, relation, j in sorted(found):
        if len(chosen) < most and not taken & {i, j}:
            taken |= {i, j}
            chosen.append((i, relation, j))
    return chosen
