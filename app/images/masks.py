"""Decoding the masks of records."""

from __future__ import annotations

import math
import re
from contextlib import suppress

from PIL import Image
from pycocotools import mask as coco_mask

from strata.core import Mask

MAX_PIXELS = 2**27  # of a mask, which takes a byte for each; a larger one is not drawn
MOST = 16_000_000  # pixels of the image that is made of it
# Whole runs of at most 35 bits. The library's C code reads past the end of a text whose last run is cut off.
_COUNTS = re.compile(r"(?:[P-o]{0,6}[0-O])*")


def mask_image(mask: Mask) -> Image.Image | None:
    """Decode a COCO run-length encoding to an "L" image of 0 and 255, or None if the encoding is damaged.

    Of a mask of more than 16 million pixels, each second (third, ...) row and column is taken.

    Other programs may write parts too, so everything that the C code does not check is checked here: the text, the
    size, and that the runs fill the mask (the library leaves the other pixels uninitialized).
    """
    height, width = mask.size
    if min(height, width) < 1 or height * width > MAX_PIXELS or not _COUNTS.fullmatch(mask.counts):
        return None
    encoded = {"size": [height, width], "counts": mask.counts}
    with suppress(ValueError):  # raised if the runs are longer than the mask
        pixels = coco_mask.decode(encoded)
        # a larger sum than that of the runs: the pixels after their end are uninitialized
        if pixels.sum() == coco_mask.area(encoded):
            step = math.ceil(math.sqrt(height * width / MOST))
            return Image.fromarray(pixels[::step, ::step] * 255)
    return None
