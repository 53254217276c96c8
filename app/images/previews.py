"""Small JPEGs of images, for pages."""

from __future__ import annotations

import io

from PIL import Image

_QUALITY = 85
SPARE = 16  # times as many pixels as a preview has are decoded of a larger image, so that it does not lose sharpness


def preview(image: Image.Image, side: int) -> bytes:
    """A JPEG whose longer side has at most so many pixels."""
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
