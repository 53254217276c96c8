"""Hashes of pictures: of the pixels, PDQ, which pictures that look alike share but for some bits, and a thumbnail.

PDQ: Meta, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019. Copies whose edges were cut
off or whose colours were changed have other hashes; they are compared by their thumbnails.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image

MOST_PIXELS = 16_000_000  # larger images are made smaller before, as the stages see them
SIDE = 512  # pixels of a side; PDQ's authors hash pictures of this size
THUMBNAIL = 32  # pixels of a thumbnail's side, whatever the picture's shape; its colours have half of that
THUMBNAIL_BYTES = THUMBNAIL**2 * 3 // 2
_MIRRORED = 5  # the picture flipped from left to right, in the order of pdqhash.compute_dihedral


class PictureHash(NamedTuple):
    """pixels: SHA-256 of width, height and RGB. pdq, mirrored: 32 bytes, of the picture and of its mirror image.

    quality: PDQ's measure of how much the hash says, 0 to 100. thumbnail: THUMBNAIL_BYTES (`thumbnail_of`).
    """

    pixels: bytes
    pdq: bytes
    mirrored: bytes
    quality: int
    thumbnail: bytes


def picture_hash(image: Image.Image) -> PictureHash:
    """The hashes of an RGB image. Raises ImportError without pdqhash."""
    import pdqhash

    image = shrunk(image)
    small = np.asarray(image.resize((SIDE, SIDE), reducing_gap=2.0))
    turned, quality = pdqhash.compute_dihedral(small)
    pdq, mirrored = (np.packbits(np.asarray(turned[turn], np.uint8)).tobytes() for turn in (0, _MIRRORED))
    return PictureHash(pixel_hash(image), pdq, mirrored, int(quality), thumbnail_of(image))


def thumbnail_of(image: Image.Image) -> bytes:
    """The image in THUMBNAIL × THUMBNAIL pixels: Y, then Cb and Cr of each 2 × 2 pixels, as JPEG has them (BT.601).

    Its shape becomes a square, so that a crop of any shape differs from the image by a stretch and a shift.
    """
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    light, *colours = small.convert("YCbCr").split()
    half = THUMBNAIL // 2
    return b"".join([light.tobytes(), *(one.resize((half, half), Image.Resampling.BOX).tobytes() for one in colours)])


def shrunk(image: Image.Image) -> Image.Image:
    """The image; one of more than MOST_PIXELS divided by a whole number, so that each pixel is the mean of a square."""
    factor = 1
    while image.width * image.height > MOST_PIXELS * factor**2:
        factor += 1
    return image.reduce(factor) if factor > 1 else image


def pixel_hash(image: Image.Image) -> bytes:
    """SHA-256 of an RGB image's width, height and pixels: equal however the pixels are stored without loss."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.tobytes())
    return digest.digest()
