"""Which pictures a profile's models know: a row of any other picture carries a warning.

A profile names its domain if its models are of no use beyond it. Whether a picture belongs to the domain is told by a
few statistics of its pixels, which do not depend on what the models find. Pages and screenshots are in no domain, and
carry a warning with every profile that reads text: a description tells what can be seen, not what is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from models.boxes import area
from strata.core import Record, kept

OUTSIDE = "outside_domain"  # the types of the warnings
MOSTLY_TEXT = "mostly_text"


# Drawn scenes have a background of a named colour, of which only the brightness varies, and softly. The limits were
# chosen on 600 scenes (seeds from 9,100,000; PNG and JPEG of quality 75 to 95, at 0.6 to 1.7 of their size; 100 of them
# empty) and the 71 photographs of the tuning half, so that at most 1 % of the scenes fail. On 1,000 other scenes 0.7 %
# fail, and none of the 58 other photographs passes (docs/decisions.md).
SIDE = 320  # pixels; pictures are compared at this longest side
BACKGROUND, AT_RIM = 0.5, 0.65  # least share of background pixels in the picture, and in its rim (1/16 of its side)
HUE, BRIGHTNESS = 8.0, 40.0  # of 255; most that a background pixel differs from the rim's median
PALETTE = 18.0  # of 255; most that a channel of the rim's median differs from the nearest named colour
ROUGH = 2.2  # of 255; most that the Laplacian's median is in the background
SMOOTH, SMOOTH_SHARE = 1.5, 0.33  # of 255; least share of pixels whose Laplacian is below SMOOTH
# the backgrounds of the demo's scenes, as in samples/backgrounds.py, which models may not import (a test compares them)
NAMED_COLOURS = (
    (240, 240, 238),
    (150, 150, 152),
    (38, 38, 42),
    (226, 208, 172),
    (128, 92, 66),
    (240, 184, 200),
    (120, 168, 226),
    (132, 190, 128),
    (240, 224, 130),
    (176, 150, 212),
)

# What a page, a slide or a screenshot has: so many lines whose boxes have together such a share of the picture's area.
# Rendered pages of 20 and 28 pixels a letter have 34 and 24 lines on 0.59 and 0.54, the photographed `page` 7 on 0.83,
# the studio's gallery 79 on 0.19. Of the labelled photographs those with the most lines after it, of signs and books,
# have 3 to 6 on 0.07 to 0.08.
TEXT = ((5, 0.25), (20, 0.1))

Pixels = np.typing.NDArray[Any]


def looks_drawn(image: Image.Image) -> bool:
    """Whether an RGB image looks like a scene that `strata samples` draws."""
    pixels = _reduced(image)
    grey = pixels.mean(axis=2)
    rim = _rim(grey.shape)
    # the background's colour, and the pixels that have its hue and nearly its brightness
    base = np.median(pixels[rim], axis=0)
    hue = np.stack([pixels[..., 0] - pixels[..., 1], pixels[..., 1] - pixels[..., 2]], axis=2)
    same = np.abs(hue - np.median(hue[rim], axis=0)).max(axis=2) <= HUE
    same &= np.abs(grey - base.mean()) <= BRIGHTNESS
    if same.mean() < BACKGROUND or same[rim].mean() < AT_RIM:
        return False
    if np.abs(np.array(NAMED_COLOURS) - base).max(axis=1).min() > PALETTE:
        return False
    # no texture: sensors' noise and surfaces differ from pixel to pixel, the scenes' patterns do not
    rough = np.abs(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 0.6), cv2.CV_32F))
    return bool(np.median(rough[same]) <= ROUGH and (rough < SMOOTH).mean() >= SMOOTH_SHARE)


def _reduced(image: Image.Image) -> Pixels:
    """The pixels of an image, float32 (H, W, 3), whose longest side is SIDE."""
    scale = SIDE / max(image.size)
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return np.asarray(image.convert("RGB").resize(size, resampling), np.float32)


def _rim(shape: tuple[int, ...]) -> np.typing.NDArray[np.bool_]:
    """The outermost pixels of an image (H, W)."""
    thickness = max(2, min(shape) // 16)
    rim = np.ones(shape, np.bool_)
    rim[thickness:-thickness, thickness:-thickness] = False
    return rim


class Domain(NamedTuple):
    """What a domain is called, and whether an RGB image belongs to it."""

    words: str
    holds: Callable[[Image.Image], bool]


DOMAINS = {"drawn_scenes": Domain("drawn scenes", looks_drawn)}  # as `Profile.domain` names them


def warned(record: Record, image: Image.Image, name: str, domain: str | None) -> Record:
    """The record with a warning if its image, upright RGB, lies outside the domain of the profile with this name.

    Another one says that the picture is mostly text.
    """
    if record.failure is not None:
        return record
    is_text = is_mostly_text(record)
    if domain is not None and (is_text or not DOMAINS[domain].holds(image)):
        words = f"the models of profile {name} know only {DOMAINS[domain].words}; this picture does not look like one"
        record = record.warned(OUTSIDE, words)
    if is_text:
        lines = len(kept(record.text))
        words = (
            f"most of this picture is text ({lines} lines were read); its description tells little of what is written"
        )
        record = record.warned(MOSTLY_TEXT, words)
    return record


def is_mostly_text(record: Record) -> bool:
    """Whether the kept lines of text say that a picture is a page, a slide or a screenshot."""
    boxes = [line.box for line in kept(record.text)]
    size = max(1, (record.width or 0) * (record.height or 0))
    share = sum(map(area, boxes)) / size
    return any(len(boxes) >= lines and share >= least for lines, least in TEXT)
