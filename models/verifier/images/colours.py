"""Colours of pixels, by names, where they are clear: the second source of a colour that no entry names.

Pixels are named in HSV. Between two names lie hues that have none, since people and lights disagree there. What the
shares of the names say of a colour decides `models.verifier.attributes.shown`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image

from models.crops import crop_box, decode_mask
from models.verifier.attributes import group_of
from models.verifier.entities import Facts
from strata.core import Box, Mask, Record

# hues in degrees of those colours that differ by hue alone; OpenCV halves them to fit a byte
_HUES: Mapping[str, Sequence[tuple[int, int]]] = {
    "red": ((0, 10), (346, 360)),
    "orange": ((20, 36),),
    "yellow": ((48, 64),),
    "green": ((86, 158),),
    "turquoise": ((168, 188),),
    "blue": ((202, 248),),
    "purple": ((264, 290),),
    "pink": ((302, 338),),
}
SATURATED, BRIGHT = 100, 90  # of 255; least of a pixel whose hue names it
PALE, WHITE, BLACK = 28, 215, 50  # of 255; most saturation of grey pixels, least value of white, most of black
LEAST_PIXELS = 64  # of a thing; fewer show no colour
SIDE = 96  # pixels; larger crops are reduced


def see_colours(facts: Facts, record: Record, image: Image.Image) -> None:
    """Set what the pixels of each thing show (`Entity.shares`) where no entry names its colour."""
    scale = (image.width / (record.width or image.width), image.height / (record.height or image.height))
    masks = {f"objects/{i}": thing.mask for i, thing in enumerate(record.objects or ())}
    for entity in facts.entities:
        named = any((found := group_of(word)) and found[0] == "colour" for word in entity.words)
        if entity.box is not None and not named:
            mask = next((masks[name] for name in entity.names if name in masks), None)
            x1, y1, x2, y2 = entity.box
            box = (x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1])
            entity.shares = shares_of(image, box, mask if scale == (1.0, 1.0) else None)


def shares_of(image: Image.Image, box: Box, mask: Mask | None = None) -> dict[str, float]:
    """The share of a thing's pixels that each colour has; empty for a thing with too few.

    Without a mask its pixels are those of the box's middle, of 3/5 of its sides, as a box shows background too.
    """
    if mask is None:
        x1, y1, x2, y2 = box
        dx, dy = 0.2 * (x2 - x1), 0.2 * (y2 - y1)
        box = (x1 + dx, y1 + dy, x2 - dx, y2 - dy)
    crop = crop_box(image, box).convert("RGB")
    step = max(1, max(crop.size) // SIDE)
    pixels = np.asarray(crop)[::step, ::step]
    hsv = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2HSV).reshape(-1, 3).astype(np.int16)
    if mask is not None:
        left, top = max(0, int(box[0])), max(0, int(box[1]))
        inside = decode_mask(mask)[top : top + crop.height, left : left + crop.width][::step, ::step]
        hsv = hsv[inside.reshape(-1)] if inside.size == len(hsv) else hsv
    if len(hsv) * step * step < LEAST_PIXELS:
        return {}
    return {name: float(found.mean()) for name, found in _named(hsv).items()}


def _named(hsv: np.typing.NDArray[np.int16]) -> dict[str, np.typing.NDArray[np.bool_]]:
    """For each colour the pixels that have it. hsv: (pixels, 3), with hues of 0 to 179."""
    hue, saturation, value = 2 * hsv[:, 0], hsv[:, 1], hsv[:, 2]
    vivid, pale = (saturation >= SATURATED) & (value >= BRIGHT), saturation <= PALE
    found = {
        name: vivid & np.logical_or.reduce([(hue >= low) & (hue <= high) for low, high in spans])
        for name, spans in _HUES.items()
    }
    dark = (hue >= 10) & (hue <= 40) & (saturation >= SATURATED) & (value > BLACK) & (value < 150)
    found["orange"] = found["orange"] & (value >= 190)
    return found | {
        "brown": dark,
        "black": value <= BLACK,
        "grey": pale & (value > BLACK + 25) & (value < WHITE - 25),
        "white": pale & (value >= WHITE),
    }
