"""Blurring of places in an image, such as faces."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from strata.images.decoding import QUALITY, decode

CELLS = 6  # colours that are left of a place, along each side: what is inside cannot be computed back
MARGIN = 0.15  # of the sides of a place, added on each side: a detector's box ends at chin and forehead


def blurred_jpeg(data: bytes, max_pixels: int, boxes: Sequence[Sequence[float]]) -> tuple[bytes, tuple[int, int]]:
    """The image as an upright JPEG without metadata whose places are blurred, and its width and height.

    boxes: (x1, y1, x2, y2) as shares of the upright image's width and height. Raises ImageError.
    """
    image, buffer = decode(data, max_pixels), io.BytesIO()
    for box in boxes:
        _blur(image, box)
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue(), image.size


def _blur(image: Image.Image, box: Sequence[float]) -> None:
    x1, x2 = (side * image.width for side in box[::2])
    y1, y2 = (side * image.height for side in box[1::2])
    across, down = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
    left, top = max(0, int(x1 - across)), max(0, int(y1 - down))
    right, bottom = min(image.width, int(x2 + across) + 1), min(image.height, int(y2 + down) + 1)
    if right <= left or bottom <= top:
        return
    place = image.crop((left, top, right, bottom))
    cells = place.resize((min(CELLS, place.width), min(CELLS, place.height)), Image.Resampling.BOX)
    image.paste(cells.resize(place.size, Image.Resampling.BICUBIC), (left, top))
