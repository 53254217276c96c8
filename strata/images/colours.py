"""Colour profiles: pixels in the colours of a camera or a printer become those of sRGB, which models expect.

LittleCMS converts (Pillow's ImageCms), with the intent "perceptual". A profile that is damaged, or of another kind of
pixels than the image's, is ignored, as browsers do.
"""

from __future__ import annotations

import io
from contextlib import suppress

from PIL import Image, ImageCms

from strata.images.metadata import MAX_PROFILE, compressed_profile, png_chunks

SAME = 2  # steps of 255 by which a profile's colours may differ from sRGB and still count as sRGB
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
        with suppress(*_BROKEN):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # the kind of pixels that the profile is for; grey pixels may have a profile for colours
            kind = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(source.profile.xcolor_space.strip())
            if kind is None or (kind == "CMYK") != (mode == "CMYK") or (kind == "L" and mode not in ("L", "LA", "1")):
                return None
            transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), kind, "RGB")
            colours = cls(transform, kind)
            return None if colours._changes_nothing() else colours
        return None

    def apply(self, image: Image.Image) -> Image.Image:
        """The pixels as RGB, or as RGBA if they have transparency."""
        plain = image if image.mode == self._mode else image.convert(self._mode)
        converted = ImageCms.applyTransform(plain, self._transform)
        assert converted is not None  # it is only when converting in place
        if image.mode in ("RGBA", "LA"):
            converted.putalpha(image.getchannel("A"))
        return converted

    def _changes_nothing(self) -> bool:
        """Whether no colour of a grid changes by more than SAME."""
        if self._mode == "CMYK":
            return False
        steps = range(0, 256, 17)
        grid = [(red, green, blue) for red in steps for green in steps for blue in steps]
        before = Image.new("RGB", (len(grid), 1))
        before.putdata(grid if self._mode == "RGB" else [(value[0],) * 3 for value in grid])
        after = self.apply(before.convert(self._mode))
        return all(abs(a - b) <= SAME for a, b in zip(before.tobytes(), after.tobytes(), strict=True))


def png_profile(data: bytes) -> bytes | None:
    """The profile of a PNG; None without one that can be read."""
    for name, body, _ in png_chunks(data):
        if name == b"iCCP":
            return compressed_profile(body)
        if name == b"IDAT":
            break
    return None
