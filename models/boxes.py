"""Geometry of boxes (x1, y1, x2, y2) in pixels."""

from __future__ import annotations

from collections.abc import Sequence

from strata.core import Box

SMALLEST = 1.0  # least side of a box in pixels; a crop of a smaller one would be empty


def area(box: Box, border: float = 0.0) -> float:
    """The area of a box in square pixels; 0 if it is empty. border: is added to both sides."""
    return max(0.0, box[2] - box[0] + border) * max(0.0, box[3] - box[1] + border)


def _intersection(a: Box, b: Box, border: float = 0.0) -> float:
    """The area that two boxes share, in square pixels."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])), border)


def iou(a: Box, b: Box, border: float = 0.0) -> float:
    """Intersection over union, 0..1. border: is added to the sides of all areas."""
    shared = _intersection(a, b, border)
    # 1e-9: two empty boxes have the IoU 0
    return shared / max(area(a, border) + area(b, border) - shared, 1e-9)


def inside(a: Box, b: Box) -> float:
    """The share of box a that lies inside box b, 0..1."""
    return _intersection(a, b) / max(area(a), 1e-9)


def min_overlap(a: Box, b: Box) -> float:
    """Intersection over the area of the smaller box, 0..1."""
    return max(inside(a, b), inside(b, a))


def clipped(box: Sequence[float], size: tuple[int, int]) -> Box | None:
    """The part of a box that lies in an image of that size (width, height), in pixels; None if hardly any does."""
    width, height = size
    x1, x2 = (min(max(x, 0.0), float(width)) for x in box[0::2])
    y1, y2 = (min(max(y, 0.0), float(height)) for y in box[1::2])
    return (x1, y1, x2, y2) if x2 - x1 >= SMALLEST and y2 - y1 >= SMALLEST else None
