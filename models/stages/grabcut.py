"""Segmenter: the mask of each region, from its box, by GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004) in OpenCV.

It learns the colours inside and outside of a box and cuts between them, without a trained model. The work is bounded:
a box is seen with a margin around it, at a reduced size, for a fixed number of iterations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image

from models.base import BoxSegmenterStage, cpu_threads
from models.boxes import area, iou
from models.items import BoxedImage, Segment
from strata.core import Box, GrabCutParameters, StageSettings

MARGIN = 0.2  # of the box's sides: as much background as the colours of the background are learned from
LEAST_SIDE = 8  # pixels of a box at the reduced size; less has too few colours to learn
LEAST_SHARE, MOST_SHARE = 0.1, 0.98  # of the box; a mask beyond them has not found the thing
LEAST_FIT = 0.75  # a mask whose own box fits the given one less well shows a part of the thing, such as a cat's nose
PIECE = 0.1  # of the largest piece of a mask; smaller ones are noise
SEED = 1  # OpenCV's k-means starts with random colours
Pixels = np.typing.NDArray[np.uint8]
Mask = np.typing.NDArray[np.bool_]


class GrabCutSegmenter(BoxSegmenterStage):
    """A segment for each box, or None. Its score is the intersection over union of the mask's own box and the given."""

    name: ClassVar[str] = "segmenter"
    boxed: ClassVar[bool] = True

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = GrabCutParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """There are no weights."""
        cv2.setNumThreads(cpu_threads())  # of the process: OpenCV would take every core

    def probe_item(self) -> BoxedImage:
        """A red square on white, with its box."""
        image = Image.new("RGB", (64, 64), "white")
        image.paste("red", (16, 16, 48, 48))
        return BoxedImage(image, ((14.0, 14.0, 50.0, 50.0),))

    def compute(self, batch: Sequence[BoxedImage]) -> list[list[Segment | None]]:
        """Segments of the boxes of each image; those of the smallest boxes beyond max_masks are None."""
        return [self._segments(item) for item in batch]

    def _segments(self, item: BoxedImage) -> list[Segment | None]:
        largest = sorted(range(len(item.boxes)), key=lambda i: -area(item.boxes[i]))[: self.parameters.max_masks]
        found: list[Segment | None] = [None] * len(item.boxes)
        image = item.image.convert("RGB")
        for i in largest:
            found[i] = self._segment(image, item.boxes[i])
            self.progress()
        return found

    def _segment(self, image: Image.Image, box: Box) -> Segment | None:
        """The segment of a box; None where GrabCut finds no thing in it."""
        # the box with its margin, at a reduced size
        view = _view(image, box)
        scale = min(1.0, self.parameters.side / max(view[2] - view[0], view[3] - view[1]))
        size = [max(1, round((view[i + 2] - view[i]) * scale)) for i in (0, 1)]
        x1, y1, x2, y2 = (round((box[i] - view[i % 2]) * scale) for i in range(4))
        if min(x2 - x1, y2 - y1) < LEAST_SIDE:
            return None
        pixels = np.asarray(image.crop(view).resize((size[0], size[1]), Image.Resampling.BOX))
        small = _cut(pixels, (x1, y1, x2, y2), self.parameters.iterations)
        if not LEAST_SHARE <= small.sum() / ((x2 - x1) * (y2 - y1)) <= MOST_SHARE:
            return None
        # back to the image's size
        part = cv2.resize(small.astype(np.float32), (view[2] - view[0], view[3] - view[1])) > 0.5
        mask = np.zeros((image.height, image.width), np.bool_)
        mask[view[1] : view[3], view[0] : view[2]] = part
        if not mask.any() or mask.sum() < self.parameters.smallest * mask.size:
            return None
        own = _bounds(part, view[:2])
        fit = iou(own, box)
        return Segment(mask, own, fit) if fit >= LEAST_FIT else None


def _view(image: Image.Image, box: Box) -> tuple[int, int, int, int]:
    """The pixels of a box and its margin, inside the image."""
    across, down = MARGIN * (box[2] - box[0]), MARGIN * (box[3] - box[1])
    x1, y1 = max(0, int(box[0] - across)), max(0, int(box[1] - down))
    return x1, y1, min(image.width, int(box[2] + across) + 1), min(image.height, int(box[3] + down) + 1)


def _cut(pixels: Pixels, box: tuple[int, int, int, int], iterations: int) -> Mask:
    """The mask of the thing in the box: bool (H, W), nothing outside of the box. pixels: RGB (H, W, 3)."""
    x1, y1, x2, y2 = box
    # what is outside is background; where the box leaves no outside, the corners of the box are likely to be
    labels = np.full(pixels.shape[:2], cv2.GC_BGD, np.uint8)
    labels[y1:y2, x1:x2] = cv2.GC_PR_BGD
    centre, axes = ((x1 + x2) // 2, (y1 + y2) // 2), ((x2 - x1 + 1) // 2, (y2 - y1 + 1) // 2)
    cv2.ellipse(labels, centre, axes, 0, 0, 360, cv2.GC_PR_FGD, cv2.FILLED)
    # the colours are those of BGR in the paper's code; their order does not matter
    cv2.setRNGSeed(SEED)
    cv2.grabCut(pixels, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    found = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    # the large pieces, without holes of a few pixels
    closed = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(closed)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [i for i in range(1, count) if areas[i] >= PIECE * areas[1:].max()]
    mask: Mask = np.isin(pieces, kept)
    outside = np.ones_like(mask)
    outside[y1:y2, x1:x2] = False
    mask[outside] = False
    return mask


def _bounds(mask: Mask, corner: Sequence[int]) -> Box:
    """The box around a mask's pixels, in pixels of the image that the mask is cut out of at `corner` (x, y)."""
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    x, y = corner
    return float(xs[0] + x), float(ys[0] + y), float(xs[-1] + 1 + x), float(ys[-1] + 1 + y)
