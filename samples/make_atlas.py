"""Render the atlas of drawings once: `python -m samples.make_atlas PATH/TO/NotoColorEmoji.ttf`.

Debian's package `fonts-noto-color-emoji` has the font (SIL Open Font License 1.1).
"""

from __future__ import annotations

import argparse
import json

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


def main() -> None:
    """Write `sprites.png` and `index.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("font")
    font = ImageFont.truetype(parser.parse_args().font, FONT_PIXELS)
    emojis = list(dict.fromkeys(sprite.emoji for sprite in ALL))
    atlas = Image.new("RGBA", (COLUMNS * CELL, -(-len(emojis) // COLUMNS) * CELL))
    for i, emoji in enumerate(emojis):
        atlas.paste(render(emoji, font), (i % COLUMNS * CELL, i // COLUMNS * CELL))
    ATLAS.mkdir(exist_ok=True)
    atlas.quantize(255, method=Image.Quantize.FASTOCTREE).save(ATLAS / "sprites.png", optimize=True)
    (ATLAS / "index.json").write_text(json.dumps(emojis, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
