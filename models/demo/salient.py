"""Masks of the things that stand out from a picture's background, without learning.

The background is what the picture's rim shows: one hue, and a brightness that may slope or carry a pattern.
What differs in hue, or in brightness by more than the pattern does, is foreground; foreground that is joined only
by a neck is cut there. Made for drawings and product shots; in a street scene the rim says little about the rest.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

Pixels = np.typing.NDArray[Any]  # OpenCV tells no more of what it returns
Mask = np.typing.NDArray[np.bool_]

CONTRAST = 14.0  # grey levels (of 256): what JPEG and soft shading reach by themselves
BUSY = 64.0  # no background asks for more, or a photograph's lively rim would hide all that it shows
NECK = 0.75  # cut where the waist is thinner than this share of the thickness on both sides
HOLE = 0.05  # share of the image; a smaller gap belongs to the thing around it, a larger one lies between things
THICKNESS = 0.025  # of the shorter side: half the thickness that a part must reach to be a thing of its own


def salient_masks(pixels: Pixels, smallest: float) -> list[tuple[Mask, float]]:
    """Masks (H, W) of separate things, with scores; none shares a pixel with another.

    pixels: (H, W, 3) RGB. smallest: least share of the image's area. The score is the mask's mean contrast to
    the background, 0 (none) to 1.
    """
    distance = _distance_to_background(cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 0.6))
    solid = _fill_holes(cv2.medianBlur((distance > 1).astype(np.uint8), 3))
    solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    least = smallest * solid.size
    solid = _without_specks(solid, least)
    labels = _cut(pixels, solid)
    contrast = 1 - np.exp(-distance)
    found = []
    for label in range(1, int(labels.max(initial=0)) + 1):
        mask = labels == label
        if mask.sum() >= least:
            found.append((mask, float(contrast[mask].mean())))
    return found


def _distance_to_background(image: Pixels) -> Pixels:
    """(H, W): how far each pixel is from the background; 1 is the limit."""
    height, width = image.shape[:2]
    red, green, blue = cv2.split(image)
    brightness = (red + green + blue) / 3
    hues = red - green, (red + green) / 2 - blue  # opponent colours, which shading leaves alone
    rim = np.ones((height, width), np.bool_)
    inset = max(3, min(height, width) // 50)
    rim[inset:-inset, inset:-inset] = False
    hue_off = cv2.magnitude(*(hue - np.median(hue[rim]) for hue in hues))
    hue_limit = min(max(CONTRAST, 3 * float(np.quantile(hue_off[rim], 0.9))), BUSY)
    rim &= hue_off < hue_limit
    brightness_off = np.abs(brightness - _slope(brightness, rim))
    brightness_limit = min(max(CONTRAST, 6 + 1.35 * float(np.quantile(brightness_off[rim], 0.97))), BUSY)
    distance: Pixels = np.hypot(hue_off / hue_limit, brightness_off / brightness_limit).astype(np.float32)
    return distance


def _slope(brightness: Pixels, rim: Mask) -> Pixels:
    """The plane through the rim's brightness, fitted again without the worst tenth: things that reach the rim."""
    height, width = brightness.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    terms = np.stack([x / width - 0.5, y / height - 0.5, np.ones_like(x)], axis=-1)
    where, values = terms[rim], brightness[rim]
    trusted = np.ones(len(values), np.bool_)
    for _ in range(3):
        plane = np.linalg.lstsq(where[trusted], values[trusted], rcond=None)[0]
        off = np.abs(where @ plane - values)
        trusted = off <= max(float(np.quantile(off, 0.9)), 4)
    result: Pixels = terms @ plane
    return result


def _fill_holes(solid: Pixels) -> Pixels:
    height, width = solid.shape
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - solid, connectivity=4)
    for label in range(1, count):
        x, y, w, h, area = stats[label]
        inside = x > 0 and y > 0 and x + w < width and y + h < height
        if inside and area < HOLE * solid.size:
            solid[labels == label] = 1
    return solid


def _without_specks(solid: Pixels, least: float) -> Pixels:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    keep = (stats[:, cv2.CC_STAT_AREA] >= least).astype(np.uint8)
    keep[0] = 0  # the background
    kept: Pixels = keep[labels]
    return kept


def _cut(pixels: Pixels, solid: Pixels) -> Pixels:
    """Number the things in `solid`, (H, W), 0 outside: a watershed from their cores along the image's edges."""
    thickness = cv2.distanceTransform(solid, cv2.DIST_L2, 5)
    cores = _cores(solid, thickness)
    count = int(cores.max(initial=0))
    cores[solid == 0] = count + 1
    basins = cv2.watershed(np.ascontiguousarray(cv2.GaussianBlur(pixels, (0, 0), 1)), cores)
    labels = np.zeros_like(basins)
    for label in range(1, count + 1):  # watershed leaves lines of -1 between basins: give them back
        grown = cv2.dilate((basins == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        labels[grown & (solid > 0) & (labels == 0)] = label
    return labels


def _cores(solid: Pixels, thickness: Pixels) -> Pixels:
    """(H, W) with a number in the core of every part that a neck separates from the rest.

    A region is peeled pixel by pixel; where it falls apart in pieces that are all clearly thicker than the place
    where they parted, it is several things, each looked at again.
    """
    least = THICKNESS * min(solid.shape)
    cores = np.zeros(solid.shape, np.int32)
    count, whole = cv2.connectedComponents(solid, connectivity=4)
    open_regions = [(whole == label, 1.0) for label in range(1, count)]
    found = 0
    while open_regions:
        region, level = open_regions.pop()
        parts, level = _peel(np.where(region, thickness, 0), level, least)
        if parts:
            open_regions += [(part, level + 1) for part in parts]
        else:
            found += 1
            cores[region] = found
    return cores


def _peel(thickness: Pixels, level: float, least: float) -> tuple[list[Mask], float]:
    """The parts in which a region falls when peeled from `level` on (none if it does not), and at which level."""
    x, y, width, height = cv2.boundingRect((thickness > 0).astype(np.uint8))
    near = thickness[y : y + height, x : x + width]
    peak = float(near.max())
    while level < peak * NECK:
        count, labels = cv2.connectedComponents((near > level).astype(np.uint8), connectivity=4)
        if count > 2:
            pieces = [labels == label for label in range(1, count)]
            parts = [piece for piece in pieces if near[piece].max() >= max(level / NECK, least)]
            if len(parts) >= 2:
                below, right = thickness.shape[0] - y - height, thickness.shape[1] - x - width
                return [np.pad(part, ((y, below), (x, right))) for part in parts], level
        level += 1
    return [], level
