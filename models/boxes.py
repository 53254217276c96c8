"""Geometry of boxes (x1, y1, x2, y2) in pixels."""

from __future__ import annotations

from strata.core import Box


def area(box: Box) -> float:
    """Pixels in a box."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _shared(a: Box, b: Box) -> float:
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0..1."""
    shared = _shared(a, b)
    return shared / max(area(a) + area(b) - shared, 1e-9)


def inside(a: Box, b: Box) -> float:
    """The share of a that lies inside b, 0..1."""
    return _shared(a, b) / max(area(a), 1e-9)


def min_overlap(a: Box, b: Box) -> float:
    """Intersection over the smaller box's area, 0..1."""
    return max(inside(a, b), inside(b, a))
