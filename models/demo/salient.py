"""Masks of the objects in front of a simple background, without a learned model.

The background is estimated from the image's rim: one hue, and a brightness that may have a gradient and a pattern.
Pixels that differ in hue, or in brightness by more than the pattern, are foreground. Foreground regions that are
connected only by a narrow neck are separated there. It is made for drawings and product photos; in a street scene the
rim does not represent the background. An image whose rim has no such background has no objects here.

Every loop ends after a number of steps that follows from the image's size, and every step looks at a part of the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np

Pixels = np.typing.NDArray[Any]  # OpenCV's type stubs give no element types
Mask = np.typing.NDArray[np.bool_]

CONTRAST = 14.0  # grey levels (of 256); JPEG artefacts and soft shading reach this by themselves
BUSY = 64.0  # grey levels; upper limit of the threshold, or a photograph with a textured rim would have no foreground
NECK = 0.75  # a region is cut where it is thinner than this share of the thickness on both sides
HOLE = 0.05  # share of the image; a smaller hole belongs to the object around it, a larger one is background
THICKNESS = 0.025  # share of the shorter side; half the least thickness of a separate object


class _Region(NamedTuple):
    """A part of the foreground. mask: bool, of the region's bounding box, whose first pixel is at row y, column x."""

    y: int
    x: int
    mask: Mask

    @property
    def place(self) -> tuple[slice, slice]:
        """The bounding box in an array (H, W)."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


def salient_masks(pixels: Pixels, smallest: float, most: int) -> list[tuple[Mask, float]]:
    """Masks bool (H, W) of separate objects, with scores; no two masks share a pixel.

    pixels: uint8 (H, W, 3), RGB. smallest: least share of the image's area. most: so many of the largest are returned.
    The score is the mean contrast of the mask's pixels to the background, 0 (none) to 1.
    """
    # the slight blur (sigma in pixels) removes noise and JPEG artefacts; the median removes single pixels
    distance = _distance_to_background(cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 0.6))
    if distance is None:
        return []
    solid = _fill_holes(cv2.medianBlur((distance > 1).astype(np.uint8), 3))
    solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    # drop small specks before the watershed, which would treat each of them as an object
    least = smallest * solid.size
    solid = _without_specks(solid, least)
    # nothing is in front of a background of which no pixel is seen
    if solid.all():
        return []
    labels = _cut(pixels, solid)
    # the largest, in the order of their labels
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the background
    largest = np.sort(np.argsort(-sizes, kind="stable")[:most])
    masks = [labels == label for label in largest if sizes[label] >= max(1.0, least)]
    # map the distance (0 to infinity) to a score: 0 at the background, 0.63 at the threshold
    contrast = 1 - np.exp(-distance)
    return [(mask, float(contrast[mask].mean())) for mask in masks]


def _distance_to_background(image: Pixels) -> Pixels | None:
    """The distance of each pixel from the background, float (H, W); 1 is the threshold. None: there is no background.

    Colours of which none covers most of the rim have a median that is the colour of none of them.
    """
    height, width = image.shape[:2]
    red, green, blue = cv2.split(image)
    brightness = (red + green + blue) / 3
    hues = red - green, (red + green) / 2 - blue  # opponent colours: grey shading does not change them
    # the rim: a frame of 2 % of the shorter side
    rim = np.ones((height, width), np.bool_)
    inset = max(3, min(height, width) // 50)
    rim[inset:-inset, inset:-inset] = False
    # the threshold for the hue follows from the spread of the rim's hues, within fixed limits
    hue_off = cv2.magnitude(*(hue - np.median(hue[rim]) for hue in hues))
    hue_limit = min(max(CONTRAST, 3 * float(np.quantile(hue_off[rim], 0.9))), BUSY)
    # objects that reach the rim do not count for the brightness, whose gradient is fitted to the rest
    rim &= hue_off < hue_limit
    if not rim.any():
        return None
    brightness_off = np.abs(brightness - _gradient(brightness, rim))
    brightness_limit = min(max(CONTRAST, 6 + 1.35 * float(np.quantile(brightness_off[rim], 0.97))), BUSY)
    distance: Pixels = np.hypot(hue_off / hue_limit, brightness_off / brightness_limit).astype(np.float32)
    return distance


def _gradient(brightness: Pixels, rim: Mask) -> Pixels:
    """A plane fitted to the rim's brightness, float (H, W). The worst tenth, objects at the rim, is left out."""
    height, width = brightness.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    terms = np.stack([x / width - 0.5, y / height - 0.5, np.ones_like(x)], axis=-1)
    where, values = terms[rim], brightness[rim]
    # trimmed least squares: three fits, each without the pixels that the last one fitted worst
    trusted = np.ones(len(values), np.bool_)
    for _ in range(3):
        plane = np.linalg.lstsq(where[trusted], values[trusted], rcond=None)[0]
        off = np.abs(where @ plane - values)
        trusted = off <= max(float(np.quantile(off, 0.9)), 4)
    result: Pixels = terms @ plane
    return result


def _fill_holes(solid: Pixels) -> Pixels:
    """Fill the small holes of a foreground, uint8 (H, W), that do not touch the image's border."""
    height, width = solid.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - solid, connectivity=4)
    x, y, w, h, area = stats.T
    inside = (x > 0) & (y > 0) & (x + w < width) & (y + h < height)
    fill = inside & (area < HOLE * solid.size)
    fill[0] = False  # the foreground
    filled: Pixels = solid | fill[labels]
    return filled


def _without_specks(solid: Pixels, least: float) -> Pixels:
    """Remove connected components with fewer than `least` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    keep = (stats[:, cv2.CC_STAT_AREA] >= least).astype(np.uint8)
    keep[0] = 0  # the background
    kept: Pixels = keep[labels]
    return kept


def _cut(pixels: Pixels, solid: Pixels) -> Pixels:
    """Number the objects in `solid`, (H, W), 0 outside: a watershed from their cores along the image's edges."""
    # the background is one more basin, so that no object grows into it
    thickness = cv2.distanceTransform(solid, cv2.DIST_L2, 5)
    cores = _cores(solid, thickness)
    background = int(cores.max(initial=0)) + 1
    cores[solid == 0] = background
    basins = cv2.watershed(np.ascontiguousarray(cv2.GaussianBlur(pixels, (0, 0), 1)), cores)
    # watershed leaves lines of -1 between basins: each pixel goes to the first object within one pixel of it
    objects = np.where((basins > 0) & (basins < background), basins, background).astype(np.float32)
    first = cv2.erode(objects, np.ones((3, 3), np.uint8)).astype(np.int32)
    return np.where((solid > 0) & (first < background), first, 0)


def _cores(solid: Pixels, thickness: Pixels) -> Pixels:
    """Number the cores of all parts that a neck separates from the rest: int32 (H, W), 0 elsewhere.

    Each region is eroded step by step. If it divides into pieces that are all clearly thicker than the neck between
    them, it is several objects, and each piece is examined again.
    """
    least = THICKNESS * min(solid.shape)
    cores = np.zeros(solid.shape, np.int32)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    # a region with the erosion depth, in pixels, at which its examination starts
    open_regions = [(region, 1.0) for region in _regions(labels, stats, range(1, len(stats)))]
    found = 0
    while open_regions:
        region, depth = open_regions.pop()
        parts, depth = _peel(region, thickness, depth, least)
        if parts:
            open_regions += [(part, depth + 1) for part in parts]
        else:
            found += 1
            cores[region.place][region.mask] = found
    return cores


def _peel(region: _Region, thickness: Pixels, depth: float, least: float) -> tuple[list[_Region], float]:
    """Erode a region from a depth (pixels) on. Returns its parts, none if it does not divide, and the depth reached.

    thickness: of all pixels (H, W), the distance to the next one outside of the foreground. It is at most the image's
    diagonal, which bounds the steps.
    """
    near = np.where(region.mask, thickness[region.place], 0)
    # beyond NECK of the peak no second part can be thick enough
    peak = float(near.max())
    while depth < peak * NECK:
        eroded = (near > depth).astype(np.uint8)
        # the components count the background; counting alone is several times as fast as the statistics
        if cv2.connectedComponents(eroded, connectivity=4)[0] > 2:
            count, labels, stats, _ = cv2.connectedComponentsWithStats(eroded, connectivity=4)
            # pieces that are thin are ends, not objects
            peaks = np.zeros(count, near.dtype)
            np.maximum.at(peaks, labels.ravel().astype(np.intp), near.ravel())
            thick = [label for label in range(1, count) if peaks[label] >= max(depth / NECK, least)]
            if len(thick) >= 2:
                parts = _regions(labels, stats, thick)
                return [part._replace(y=region.y + part.y, x=region.x + part.x) for part in parts], depth
        depth += 1
    return [], depth


def _regions(labels: Pixels, stats: Pixels, chosen: Iterable[int]) -> list[_Region]:
    """Some of the connected components of an image, from OpenCV's labels and statistics."""
    boxes = [(label, *stats[label, : cv2.CC_STAT_AREA].tolist()) for label in chosen]
    return [_Region(y, x, labels[y : y + height, x : x + width] == label) for label, x, y, width, height in boxes]
