"""What is cut out of an image: the crop of a box, the crop of a segment, and a segment's mask as a record keeps it."""

from __future__ import annotations

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from models.base import Segment
from strata.core import Box, Mask


def crop_box(image: Image.Image, box: Box) -> Image.Image:
    """The box's pixels, at least 1×1."""
    return image.crop(_corners(image, box))


def crop_segment(image: Image.Image, segment: Segment) -> Image.Image:
    """The segment's box with everything outside of the mask painted white, as Monkey's data was made."""
    x1, y1, x2, y2 = corners = _corners(image, segment.box)
    inside = segment.mask[y1:y2, x1:x2, None]
    return Image.fromarray(np.where(inside, np.asarray(image.crop(corners)), np.uint8(255)))


def _corners(image: Image.Image, box: Box) -> tuple[int, int, int, int]:
    """The box in whole pixels of the image."""
    x1, y1 = min(int(box[0]), image.width - 1), min(int(box[1]), image.height - 1)
    return x1, y1, min(max(x1 + 1, round(box[2])), image.width), min(max(y1 + 1, round(box[3])), image.height)


def encode_mask(mask: np.typing.NDArray[np.bool_]) -> Mask:
    """A bool mask (H, W) as COCO run-length encoding."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return Mask(size=mask.shape, counts=encoded["counts"].decode())
