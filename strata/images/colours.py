"""Colour profiles: pixels in the colours of a camera or a printer become those of sRGB, which models expect.

LittleCMS converts (Pillow's ImageCms), with the intent "perceptual". A profile that is damaged, or of another kind of
pixels than the image's, is ignored, as browsers do.
"""

from __future__ import annotations

import io
from contextlib import suppress
from functools import lru_cache

from PIL import Image, ImageChops, ImageCms

from strata.images.metadata import MAX_PROFILE, compressed_profile, png_chunks

SAME = 2  # steps of 255 by which a profile's colours may differ from sRGB and still count as sRGB
# conversions that are kept, because images often have the same profile; each takes up to 0.5 MB, and some milliseconds
KEPT, KEPT_PROFILE = 8, 2**15  # how many, and the bytes of the largest profile of one
_BROKEN = (ImageCms.PyCMSError, OSError, ValueError, TypeError, OverflowError)


class Colours:
    """The conversion of an image's pixels to sRGB. Create it with `of`."""

    def __init__(self, transform: ImageCms.ImageCmsTransform, mode: str) -> None:
        self._transform, self._mode = transform, mode

    @classmethod
    def of(cls, profile: bytes | None, mode: str) -> Colours | None:
        """The conversion for a profile and a mode of Pillow; None if the pixels stay as they are."""
        if not profile or len(profile) > MAX_PROFILE or mode.startswith(("I", "F", "LAB", "HSV")):
            return None
        make = _conversion if len(profile) <= KEPT_PROFILE else _conversion.__wrapped__
        with suppress(*_BROKEN):
            return make(profile, mode)
        return None

    def apply(self, image: Image.Image) -> Image.Image:
        """The pixels as RGB, or as RGBA if they have transparency."""
        plain = image if image.mode == self._mode else image.convert(self._mode)
        converted = ImageCms.applyTransform(plain, self._transform)
        assert converted is not None  # it is only when converting in place
        if image.mode in ("RGBA", "LA"):
            converted.putalpha(image.getchannel("A"))
        return converted

    def changes_nothing(self) -> bool:
        """Whether no colour of a grid changes by more than SAME."""
        if self._mode == "CMYK":
            return False
        steps = range(0, 256, 17)
        grid = [(red, green, blue) for red in steps for green in steps for blue in steps]
        before = Image.new("RGB", (len(grid), 1))
        before.putdata(grid if self._mode == "RGB" else [(value[0],) * 3 for value in grid])
        differences = ImageChops.difference(before, self.apply(before.convert(self._mode)))
        return max(differences.tobytes()) <= SAME


@lru_cache(maxsize=KEPT)
def _conversion(profile: bytes, mode: str) -> Colours | None:
    """As `Colours.of`. Raises an error of _BROKEN, which is not kept: it may come from a limit of memory."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    # the kind of pixels that the profile is for; grey pixels may have a profile for colours
    kind = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(source.profile.xcolor_space.strip())
    if kind is None or (kind == "CMYK") != (mode == "CMYK") or (kind == "L" and mode not in ("L", "LA", "1")):
        return None
    colours = Colours(ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), kind, "RGB"), kind)
    return None if colours.changes_nothing() else colours


def png_profile(data: bytes) -> bytes | None:
    """The profile of a PNG; None without one that can be read."""
    for name, body, _ in png_chunks(data):
        if name == b"iCCP":
            return compressed_profile(body)
        if name == b"IDAT":
            break
    return None
