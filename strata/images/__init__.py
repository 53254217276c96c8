"""Images of callers: what decoding them costs, how they are decoded, and the processes that do it.

Read `formats.py` first, then `decoding.py`, `metadata.py`, `pool.py` and `process.py`.
"""

from __future__ import annotations

from strata.images.blurring import blurred_jpeg
from strata.images.decoding import FULL_SIZE, MISSING, as_jpeg, decode
from strata.images.formats import ImageError, pixels_of
from strata.images.hashes import THUMBNAIL, THUMBNAIL_BYTES, PictureHash, picture_hash, shrunk
from strata.images.metadata import without_metadata
from strata.images.pool import DecodingPool
from strata.images.process import DecodersUnavailable

__all__ = [
    "FULL_SIZE",
    "MISSING",
    "THUMBNAIL",
    "THUMBNAIL_BYTES",
    "DecodersUnavailable",
    "DecodingPool",
    "ImageError",
    "PictureHash",
    "as_jpeg",
    "blurred_jpeg",
    "decode",
    "picture_hash",
    "pixels_of",
    "shrunk",
    "without_metadata",
]
