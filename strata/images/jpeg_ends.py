"""JPEG files whose end is missing, as after a download that broke off: which of their pixels are there.

libjpeg makes grey pixels of what is missing. OpenCV, and img2dataset, which reads with it, take such an image however
much is missing; Pillow and torchvision take none. TensorFlow's `decode_jpeg` lets the caller say which share of the
lines must be there (`acceptable_fraction`). Here that is ACCEPTED.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageChops

from strata.images.formats import Header, ImageError

ACCEPTED = 0.95  # of the lines of an image
_END = b"\xff\xd9"
_OTHER = bytes((0x55, 0xAA, 0x13, 0x77, 0xC1)) * 20  # pixels that follow where some are missing; no marker
_ZEROS = 512  # least bytes of an unwritten part: a block of a disk
_PIXELS = 2  # of these bytes, those that may be the last pixels
_LINES = 256  # that are compared at a time


def with_end(data: bytes, more: bytes = b"") -> bytes:
    """The file with an end marker, without the zeros that a file system leaves where nothing was written.

    more: compressed pixels before the end marker.
    """
    cut = data.rstrip(b"\0")
    # a few zeros may be pixels
    cut = data if len(data) - len(cut) < _ZEROS else data[: len(cut) + _PIXELS]
    cut = cut.rstrip(b"\xff")  # of a marker whose code is missing
    return cut + more + _END


def missing_end(image: Image.Image, data: bytes, header: Header, open_file: Callable[[bytes], Image.Image]) -> str:
    """A line on the pixels that are missing in an image without end marker. image: the pixels with the marker added.

    The pixels that are missing are those that change when other bytes follow. Raises ImageError if they are too many,
    or if a scan of a progressive image is missing, and what Pillow raises.
    """
    detail = f"JPEG, {header.width} × {header.height}: the end of the file is missing"
    if not header.whole:
        raise ImageError("truncated", f"{detail}, with whole scans")
    other = open_file(with_end(data, _OTHER))
    other.load()
    # find the first line that differs
    first = image.height
    for top in range(0, image.height, _LINES):
        box = (0, top, image.width, min(top + _LINES, image.height))
        if different := ImageChops.difference(image.crop(box), other.crop(box)).getbbox():
            first = top + different[1]
            break
    missing = image.height - first
    if missing > (1 - ACCEPTED) * image.height:
        raise ImageError("truncated", f"{detail}, with {missing} of {image.height} lines")
    return (
        f"the end of the file is missing, with {missing} of {image.height} lines"
        if missing
        else "the end marker is missing"
    )
