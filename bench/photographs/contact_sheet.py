"""The photographs with a profile's answers, on one picture."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.photographs.judging import Verdict

COLUMNS = 10
CELL, PICTURE, MARGIN = (190, 186), (182, 128), 4  # pixels
LETTERS, LINES = 34, 4  # of an answer under its picture
MOST_BYTES = 1_500_000
RIGHT, WRONG, SILENT = "#2a8c3c", "#c8281e", "#999999"  # frames: all right, something wrong, nothing told


def draw(verdicts: Sequence[Verdict], path: Path) -> None:
    """Write the sheet as a JPEG of at most MOST_BYTES."""
    rows = -(-len(verdicts) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL[0], rows * CELL[1]), "white")
    for number, each in enumerate(verdicts):
        sheet.paste(_cell(each), (number % COLUMNS * CELL[0], number // COLUMNS * CELL[1]))
    # the best quality that fits
    for quality in range(85, 20, -5):
        data = io.BytesIO()
        sheet.save(data, "JPEG", quality=quality, optimize=True, progressive=True)
        if data.tell() <= MOST_BYTES:
            break
    path.write_bytes(data.getvalue())


def _cell(each: Verdict) -> Image.Image:
    cell = Image.new("RGB", CELL, "white")
    pen, font = ImageDraw.Draw(cell), ImageFont.load_default(size=10)
    with Image.open(each.photograph.file) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail(PICTURE, Image.Resampling.LANCZOS)
    left = (CELL[0] - picture.width) // 2
    cell.paste(picture, (left, MARGIN))
    colour = WRONG if each.wrong or each.misread or each.failure else RIGHT if each.right or each.read else SILENT
    pen.rectangle(
        (left - 3, MARGIN - 3, left + picture.width + 2, MARGIN + picture.height + 2), outline=colour, width=3
    )
    # the font has no letters beyond Latin ones
    words = each.words.encode("latin-1", "replace").decode("latin-1") or "(nothing)"
    lines = textwrap.wrap(words, LETTERS, max_lines=LINES, placeholder=" ...")
    pen.multiline_text((MARGIN, PICTURE[1] + 2 * MARGIN), "\n".join(lines), "black", font, spacing=1)
    return cell
