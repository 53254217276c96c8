"""Images of callers: what decoding them costs, how they are decoded, and the processes that do it.

Read `formats.py` first, then `decoding.py` and `pool.py`.
"""

from __future__ import annotations

from strata.images.decoding import as_jpeg, decode
from strata.images.formats import ImageError, pixels_of
from strata.images.pool import DecodersUnavailable, DecodingPool

__all__ = ["DecodersUnavailable", "DecodingPool", "ImageError", "as_jpeg", "decode", "pixels_of"]
