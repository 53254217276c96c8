"""Draw the elements of a scene before they are placed: rotated and scaled objects, and word signs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from samples.sprites import COLOURS, Sprite, render_sprite

WORDS = (
    "OPEN CLOSED EXIT STOP SALE CAFE HOTEL TAXI BANK PARK BOOKS MUSIC SCHOOL MARKET GARDEN BAKERY CINEMA "
    "MUSEUM LIBRARY STATION WELCOME PHARMACY HELLO DANGER TICKETS FRESH COFFEE PIZZERIA FLOWERS KITCHEN"
).split()
SIGN_COLOURS = (
    ((250, 250, 248), (20, 20, 24)),
    ((250, 214, 60), (20, 20, 24)),
    ((30, 70, 150), (250, 250, 250)),
    ((30, 110, 60), (250, 250, 250)),
    ((160, 30, 36), (250, 250, 250)),
)


@dataclass(frozen=True)
class Drawing:
    """An element of a scene as RGBA, with its name and colour. text: the word on a sign."""

    image: Image.Image
    name: str
    colour: str | None
    text: str = ""


def draw_objects(rng: np.random.Generator, side: int, count: int, pool: tuple[Sprite, ...]) -> list[Drawing]:
    """Draw `count` different objects of a pool. side: the shorter side of the scene in pixels."""
    drawings: list[Drawing] = []
    # the more objects, the smaller the largest of them, as a share of the side
    largest = {0: 0.5, 1: 0.5, 2: 0.45, 3: 0.4, 4: 0.36, 5: 0.34}.get(count, 0.32)
    taken: set[tuple[str, str | None]] = set()
    while len(drawings) < count:
        sprite = pool[int(rng.integers(len(pool)))]
        colour = str(rng.choice(list(COLOURS))) if sprite.colourable else None
        # no two objects share a name and colour
        key = (sprite.name or sprite.emoji, colour)
        if key in taken:
            continue
        taken.add(key)
        # scale, mirror and rotate at random
        drawing = render_sprite(sprite, colour)
        pixels = side * rng.uniform(0.24, largest)
        scale = pixels / max(drawing.size)
        drawing = drawing.resize(
            (max(8, round(drawing.width * scale)), max(8, round(drawing.height * scale))),
            Image.Resampling.BILINEAR,
        )
        if rng.random() < 0.5:
            drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        drawing = drawing.rotate(rng.uniform(-25, 25), Image.Resampling.BILINEAR, expand=True)
        drawings.append(Drawing(drawing, sprite.name, colour))
    return drawings


def draw_sign(rng: np.random.Generator, side: int) -> Drawing:
    """Draw a sign with a word in readable letters. side: the shorter side of the scene in pixels."""
    board, ink = SIGN_COLOURS[int(rng.integers(len(SIGN_COLOURS)))]
    text = str(rng.choice(WORDS))
    font = ImageFont.load_default(size=float(rng.uniform(0.085, 0.12) * side))
    left, top, right, bottom = font.getbbox(text, stroke_width=0.6)
    margin = round((bottom - top) * rng.uniform(0.45, 0.8))
    size = (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin)
    image = Image.new("RGBA", size)
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), margin // 2, board, ink, max(1, margin // 5))
    draw.text((margin - left, margin - top), text, ink, font=font, stroke_width=0.6)
    image = image.rotate(rng.uniform(-5, 5), Image.Resampling.BICUBIC, expand=True)
    return Drawing(image, "sign", None, text)
