"""Masks of the objects in front of a simple background, without a learned model.

The background is estimated from the image's rim: one hue, and a brightness that may have a gradient and a pattern.
Pixels that differ in hue, or in brightness by more than the pattern, are foreground. Foreground regions that are
connected only by a narrow neck are separated there. It is made for drawings and product photos; in a street scene the
rim does not represent the background.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

Pixels = np.typing.NDArray[Any]  # OpenCV's type stubs give no element types
Mask = np.typing.NDArray[np.bool_]

CONTRAST = 14.0  # grey levels (of 256); JPEG artefacts and soft shading reach this by themselves
BUSY = 64.0  # grey levels; upper limit of the threshold, or a photograph with a textured rim would have no foreground
NECK = 0.75  # a region is cut where it is thinner than this share of the thickness on both sides
HOLE = 0.05  # share of the image; a smaller hole belongs to the object around it, a larger one is background
THICKNESS = 0.025  # share of the shorter side; half the least thickness of a separate object


def salient_masks(pixels: Pixels, smallest: float) -> list[tuple[Mask, float]]:
    """Masks bool (H, W) of separate objects, with scores; no two masks share a pixel.

    pixels: uint8 (H, W, 3), RGB. smallest: least share of the image's area. The score is the mean contrast of the
    mask's pixels to the background, 0 (none) to 1.
    """
    # the slight blur (sigma in pixels) removes noise and JPEG artefacts; the median removes single pixels
    distance = _distance_to_background(cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 0.6))
    solid = _fill_holes(cv2.medianBlur((distance > 1).astype(np.uint8), 3))
    solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    # drop small specks before the watershed, which would treat each of them as an object
    least = smallest * solid.size
    solid = _without_specks(solid, least)
    labels = _cut(pixels, solid)
    # map the distance (0 to infinity) to a score: 0 at the background, 0.63 at the threshold
    contrast = 1 - np.exp(-distance)
    found = []
    for label in range(1, int(labels.max(initial=0)) + 1):
        mask = labels == label
        if mask.sum() >= least:
            found.append((mask, float(contrast[mask].mean())))
    return found


def _distance_to_background(image: Pixels) -> Pixels:
    """The distance of each pixel from the background, float (H, W); 1 is the threshold."""
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
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - solid, connectivity=4)
    for label in range(1, count):
        x, y, w, h, area = stats[label]
        inside = x > 0 and y > 0 and x + w < width and y + h < height
        if inside and area < HOLE * solid.size:
            solid[labels == label] = 1
    return solid


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
    count = int(cores.max(initial=0))
    cores[solid == 0] = count + 1
    basins = cv2.watershed(np.ascontiguousarray(cv2.GaussianBlur(pixels, (0, 0), 1)), cores)
    labels = np.zeros_like(basins)
    # watershed leaves lines of -1 between basins: assign them to the basin that grows over them first
    for label in range(1, count + 1):
        grown = cv2.dilate((basins == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        labels[grown & (solid > 0) & (labels == 0)] = label
    return labels


def _cores(solid: Pixels, thickness: Pixels) -> Pixels:
    """Number the cores of all parts that a neck separates from the rest: int32 (H, W), 0 elsewhere.

    Each region is eroded step by step. If it divides into pieces that are all clearly thicker than the neck between
    them, it is several objects, and each piece is examined again.
    """
    least = THICKNESS * min(solid.shape)
    cores = np.zeros(solid.shape, np.int32)
    count, whole = cv2.connectedComponents(solid, connectivity=4)
    # a region with the erosion depth, in pixels, at which its examination starts
    open_regions = [(whole == label, 1.0) for label in range(1, count)]
    found = 0
    while open_regions:
        region, depth = open_regions.pop()
        parts, depth = _peel(np.where(region, thickness, 0), depth, least)
        if parts:
            open_regions += [(part, depth + 1) for part in parts]
        else:
            found += 1
            cores[region] = found
    return cores


def _peel(thickness: Pixels, depth: float, least: float) -> tuple[list[Mask], float]:
    """Erode a region from a depth (pixels) on. Returns its parts, none if it does not divide, and the depth reached."""
    # work on the bounding box of the region only
    x, y, width, height = cv2.boundingRect((thickness > 0).astype(np.uint8))
    near = thickness[y : y + height, x : x + width]
    # beyond NECK of the peak no second part can be thick enough
    peak = float(near.max())
    while depth < peak * NECK:
        count, labels = cv2.connectedComponents((near > depth).astype(np.uint8), connectivity=4)
        if count > 2:
            # connectedComponents counts the background; pieces that are thin are ends, not objects
            pieces = [labels == label for label in range(1, count)]
            parts = [piece for piece in pieces if near[piece].max() >= max(depth / NECK, least)]
            if len(parts) >= 2:
                below, right = thickness.shape[0] - y - height, thickness.shape[1] - x - width
                return [np.pad(part, ((y, below), (x, right))) for part in parts], depth
        depth += 1
    return [], depth
