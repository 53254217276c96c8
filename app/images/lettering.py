"""The font of overlays, DejaVu Sans: Latin with all accents, Greek, Cyrillic, Hebrew, Arabic, and many signs.

Pillow's built-in font has neither é nor ß, and draws an empty box for each. What DejaVu Sans lacks (Chinese, an emoji)
is left out of the drawing; the record has it. `fonts/LICENSE` is the font's licence; matplotlib's wheel has the same
file.
"""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path

from PIL import ImageFont

_FILE = (Path(__file__).parent / "fonts" / "DejaVuSans.ttf").read_bytes()
_UNKNOWN = "\uffff"  # a code point that is no character: every font draws its sign for a missing glyph
LEFT_OUT = "…"

Font = ImageFont.FreeTypeFont


def font_of(size: float) -> Font:
    """The font with this size in pixels."""
    return ImageFont.truetype(io.BytesIO(_FILE), size)


def drawable(text: str) -> str:
    """The text with LEFT_OUT in place of characters without a glyph, once for several in a row."""
    return re.sub(f"{LEFT_OUT}+", LEFT_OUT, "".join(one if _has_glyph(one) else LEFT_OUT for one in text))


@functools.lru_cache(4096)
def _has_glyph(character: str) -> bool:
    return character.isspace() or _drawn(character) != _drawn(_UNKNOWN)


def _drawn(character: str) -> bytes:
    return bytes(_smallest().getmask(character))


@functools.cache
def _smallest() -> Font:
    return font_of(16)
