"""Render the atlas of drawings once: `python -m samples.make_atlas PATH/TO/NotoColorEmoji.ttf`.

Debian's package `fonts-noto-color-emoji` has the font (SIL Open Font License 1.1).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from samples.sprites import ALL, ATLAS, CELL

FONT_PIXELS = 109  # the only bitmap size in the font
COLUMNS = 16


def render(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Render one emoji as RGBA of at most CELL×CELL. Raises ValueError if the font has no drawing for it."""
    canvas = Image.new("RGBA", (3 * CELL, 2 * CELL))
    ImageDraw.Draw(canvas).text((20, 20), emoji, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None or box[2] - box[0] < 20:
        raise ValueError(f"the font has no drawing for {emoji!r}")
    sprite = canvas.crop(box)
    sprite.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    return sprite


def sheet(emojis: Sequence[str], font: ImageFont.FreeTypeFont) -> Image.Image:
    """Render emojis as RGBA, COLUMNS in a row. Raises ValueError as `render` does."""
    atlas = Image.new("RGBA", (COLUMNS * CELL, -(-len(emojis) // COLUMNS) * CELL))
    for i, emoji in enumerate(emojis):
        atlas.paste(render(emoji, font), (i % COLUMNS * CELL, i // COLUMNS * CELL))
    return atlas


def in_palette(image: Image.Image, other: Image.Image) -> Image.Image:
    """An RGBA image with each pixel as the nearest colour that another one, of a palette with alpha, has."""
    # Pillow maps to a given palette only without alpha
    palette = np.unique(np.asarray(other.convert("RGBA")).reshape(-1, 4), axis=0)
    found, places = np.unique(np.asarray(image).reshape(-1, 4), axis=0, return_inverse=True)
    nearest = [int(np.abs(palette.astype(int) - colour).sum(axis=1).argmin()) for colour in found.astype(int)]
    pixels = palette[np.array(nearest)[places.ravel()]].reshape(image.height, image.width, 4)
    return Image.fromarray(pixels).quantize(256, method=Image.Quantize.FASTOCTREE)


def main() -> None:
    """Write `sprites.png` and `sprites.json`, and `unnamed.png` for the drawings in `unnamed.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("font")
    font = ImageFont.truetype(parser.parse_args().font, FONT_PIXELS)
    emojis = list(dict.fromkeys(sprite.emoji for sprite in ALL))
    sprites = sheet(emojis, font).quantize(255, method=Image.Quantize.FASTOCTREE)
    sprites.save(ATLAS / "sprites.png", optimize=True)
    (ATLAS / "sprites.json").write_text(json.dumps(emojis, ensure_ascii=False), encoding="utf-8")
    # in the same colours, so that no training tells the two atlases apart by them
    unnamed = sheet(json.loads((ATLAS / "unnamed.json").read_text(encoding="utf-8")), font)
    in_palette(unnamed, sprites).save(ATLAS / "unnamed.png", optimize=True)


if __name__ == "__main__":
    main()
