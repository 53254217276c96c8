"""Crops of boxes and segments, and the encoding and decoding of masks for records."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from models.items import Segment
from strata.core import Box, Mask

MOST_STRETCHED = 100  # ratio of the long side to the short one; Qwen's image processors refuse more than 200


def crop_box(image: Image.Image, box: Box) -> Image.Image:
    """The pixels in the box, at least 1×1."""
    return image.crop(_corners(image, box))


def crop_segment(image: Image.Image, segment: Segment) -> Image.Image:
    """The pixels in the segment's box, white outside of the mask, as Monkey does (arXiv 2311.06607)."""
    x1, y1, x2, y2 = corners = _corners(image, segment.box)
    inside = segment.mask[y1:y2, x1:x2, None]
    return Image.fromarray(np.where(inside, np.asarray(image.crop(corners)), np.uint8(255)))


def _corners(image: Image.Image, box: Box) -> tuple[int, int, int, int]:
    """The box in whole pixels of the image."""
    # the far corner lies at least one pixel behind the near one, since models accept no empty images
    x1, y1 = min(int(box[0]), image.width - 1), min(int(box[1]), image.height - 1)
    return x1, y1, min(max(x1 + 1, round(box[2])), image.width), min(max(y1 + 1, round(box[3])), image.height)


def widened(image: Image.Image, least_side: int = 1) -> Image.Image:
    """The image, or if it is too slender (MOST_STRETCHED) or too small, the image in the middle of a larger white one.

    least_side: in pixels.
    """
    least = max(least_side, math.ceil(max(image.size) / MOST_STRETCHED))
    if min(image.size) >= least or min(image.size) == 0:
        return image
    # a margin keeps the content at its scale and in its proportions
    canvas = Image.new("RGB", (max(image.width, least), max(image.height, least)), "white")
    canvas.paste(image.convert("RGB"), ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
    return canvas


def encode_mask(mask: np.typing.NDArray[np.bool_ | np.uint8]) -> Mask:
    """A mask (H, W), bool or 0 and 1, as COCO run-length encoding."""
    # COCO counts runs by columns, so pycocotools takes arrays in Fortran order only
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8, copy=False)))
    return Mask(size=mask.shape, counts=encoded["counts"].decode())


def decode_mask(mask: Mask) -> np.typing.NDArray[np.bool_]:
    """A mask (H, W) from COCO run-length encoding that Strata has written; of others see `app.images.masks`."""
    decoded = coco_mask.decode({"size": list(mask.size), "counts": mask.counts.encode()})
    return np.asarray(decoded, np.uint8).view(np.bool_)  # 0 and 1; a mask of a large image is not copied
