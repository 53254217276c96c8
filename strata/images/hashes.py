"""Hashes of pictures: of the pixels, and PDQ, which pictures that look alike share but for some bits.

PDQ: Meta, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image

MOST_PIXELS = 16_000_000  # larger images are made smaller before, as the stages see them
SIDE = 512  # pixels of a side; PDQ's authors hash pictures of this size
WINDOW = 0.95  # of width and height
WINDOW_SIDE = 128  # pixels of a window's side: PDQ takes a twentieth of the time, and differs in some four bits
# where the windows lie: from 0, at the left or top, to 1
PLACES = ((0.5, 0.5), (0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8))
_MIRRORED = 5  # the picture flipped from left to right, in the order of pdqhash.compute_dihedral


class PictureHash(NamedTuple):
    """pixels: SHA-256 of width, height and RGB. pdq, mirrored: 32 bytes, of the picture and of its mirror image.

    windows: 32 bytes of each window of PLACES, one after the other. quality: PDQ's measure of how much the hash says, 0
    to 100.
    """

    pixels: bytes
    pdq: bytes
    mirrored: bytes
    windows: bytes
    quality: int


def picture_hash(image: Image.Image) -> PictureHash:
    """The hashes of an RGB image. Raises ImportError without pdqhash."""
    import pdqhash

    image = shrunk(image)
    small = np.asarray(image.resize((SIDE, SIDE), reducing_gap=2.0))
    turned, quality = pdqhash.compute_dihedral(small)
    bits = [turned[0], turned[_MIRRORED]]
    for across, down in PLACES:
        width, height = image.width * WINDOW, image.height * WINDOW
        left, top = across * (image.width - width), down * (image.height - height)
        window = image.resize((WINDOW_SIDE, WINDOW_SIDE), box=(left, top, left + width, top + height), reducing_gap=2.0)
        bits.append(pdqhash.compute(np.asarray(window))[0])
    pdq, mirrored, *windows = (np.packbits(np.asarray(each, np.uint8)).tobytes() for each in bits)
    return PictureHash(pixel_hash(image), pdq, mirrored, b"".join(windows), int(quality))


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
