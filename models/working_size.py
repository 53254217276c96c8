"""Very large images are computed at a smaller size: a stage takes 10 to 100 bytes of memory for each pixel.

The models themselves see at most a few million pixels. What they find is given in pixels of the image again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from models.crops import decode_mask, encode_mask
from models.items import MOST_PIXELS
from strata.core import LAYERS, Box, ObjectMask, Record


def reduced(record: Record, image: Image.Image) -> tuple[Record, Image.Image]:
    """A record and its image for the stages: both at a smaller size if the image has more than MOST_PIXELS.

    The size is divided by a whole number, so that each pixel is the mean of a square. The image may have been shrunk
    before, in the same way, where it was decoded: the record has its own size then.
    """
    factor = 1
    while math.ceil(image.width / factor) * math.ceil(image.height / factor) > MOST_PIXELS:
        factor += 1
    small = image.reduce(factor) if factor > 1 else image
    if small is image and (record.width is None or (record.width, record.height) == image.size):
        return record, image
    return record.model_copy(update={"width": small.width, "height": small.height}), small


def restored(record: Record, small: tuple[int, int], full: tuple[int, int]) -> Record:
    """A record whose boxes and masks are in pixels of its image, instead of those of the one that the stages saw.

    small, full: the widths and heights of the two.
    """
    if small == full:
        return record
    (width, height), scale = full, (full[0] / small[0], full[1] / small[1])
    changes: dict[str, Any] = {"width": width, "height": height}
    for layer in LAYERS.values():
        value = getattr(record, layer.name)
        if layer.boxed and value is not None:
            changes[layer.name] = [_enlarged(entry, scale, (width, height)) for entry in value]
    return record.model_copy(update=changes)


def _enlarged(entry: Any, scale: tuple[float, float], size: tuple[int, int]) -> Any:
    x1, y1, x2, y2 = entry.box
    # the last pixels of a reduced image may stand for less than a whole square
    right, bottom = min(x2 * scale[0], float(size[0])), min(y2 * scale[1], float(size[1]))
    box: Box = (min(x1 * scale[0], right), min(y1 * scale[1], bottom), right, bottom)
    changes: dict[str, Any] = {"box": box}
    if isinstance(entry, ObjectMask):
        import cv2  # a worker without models imports this module, and has no such package

        small = decode_mask(entry.mask).view(np.uint8)
        large = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        changes |= {"mask": encode_mask(large), "area": int(np.count_nonzero(large))}
    return entry.model_copy(update=changes)
