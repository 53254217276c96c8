"""Copies of pictures as the web has them: saved again, resized, with other colours, cropped, mirrored."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

CROPPED = 0.05  # share of width and height that is cut off, in all
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _recoloured(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Saturation, brightness and contrast changed by up to a third, and the hue by up to 14 degrees."""
    hue, saturation, value = image.convert("HSV").split()
    shift = int(random.integers(4, 11)) * int(random.choice([-1, 1]))
    image = Image.merge("HSV", (hue.point(lambda at: (at + shift) % 256), saturation, value)).convert("RGB")
    for enhance in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = enhance(image).enhance(float(random.choice([random.uniform(0.67, 0.9), random.uniform(1.1, 1.33)])))
    return image


def _cropped(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """CROPPED of each side cut off, at a random place."""
    width, height = (round(side * (1 - CROPPED)) for side in image.size)
    left, top = (int(random.integers(0, more + 1)) for more in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


def _mirrored(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _resized(image: Image.Image, random: np.random.Generator) -> Image.Image:
    factor = random.uniform(0.5, 1.5)
    return image.resize((round(image.width * factor), round(image.height * factor)))


def _same(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return image


# how each kind of copy is made, and the JPEG qualities with which it is saved; originals have 92
KINDS: dict[str, tuple[Change, tuple[int, int]]] = {
    "recompressed": (_same, (30, 60)),
    "resized": (_resized, (70, 90)),
    "recoloured": (_recoloured, (70, 90)),
    "cropped": (_cropped, (70, 90)),
    "mirrored": (_mirrored, (70, 90)),
}


def encoded(image: Image.Image, quality: int) -> bytes:
    """The image as a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
