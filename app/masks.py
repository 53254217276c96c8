"""Masks as pictures."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from strata.core.records import Mask


def mask_image(mask: Mask) -> Image.Image:
    """A COCO compressed run-length encoding as an "L" picture of 0 and 255; runs past its end are cut."""
    height, width = mask.size
    pixels = bytearray()
    for place, run in enumerate(_runs(mask.counts)):
        if len(pixels) >= height * width:
            break
        pixels += (b"\xff" if place % 2 else b"\0") * max(0, min(run, height * width - len(pixels)))
    # COCO counts go down the columns: what they fill is the transposed picture
    columns = bytes(pixels).ljust(height * width, b"\0")
    return Image.frombytes("L", (height, width), columns).transpose(Image.Transpose.TRANSPOSE)


def _runs(counts: str) -> Iterator[int]:
    """Run lengths from COCO's text form: 5 bits a character; from the third on, differences to two before."""
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode("ascii", "replace"):
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        yield runs[-1]
        value = shift = 0
