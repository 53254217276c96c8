"""The pictures of a report: small JPEGs as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping

from PIL import Image

from strata.core import Record
from strata.images import ImageError, decode
from strata.shards import ImageReader

SIDE = 448  # pixels of the longer side
QUALITY = 76


def pictures(
    reader: ImageReader, records: Mapping[str, Record], max_pixels: int, advance: Callable[[int, int], None]
) -> dict[str, str]:
    """The data URIs of the records' images, by the same keys; an image that cannot be read now has none."""
    found: dict[str, str] = {}
    for number, (key, record) in enumerate(records.items(), 1):
        try:
            (data,) = reader.read([record.image])
            if not isinstance(data, Exception):
                found[key] = data_uri(decode(data, max_pixels))
        except (OSError, ImageError):
            pass
        advance(number, len(records))
    return found


def data_uri(image: Image.Image) -> str:
    """A copy of an image with at most SIDE pixels a side, without metadata, as a data URI."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
