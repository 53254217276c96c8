"""Images that cost a worker much memory: pages of dense text, photographs of 24 megapixels, wide panoramas."""

from __future__ import annotations

import functools
import io
import random
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from samples.scenes import make_scene

PAGE = (1654, 2339)  # pixels; A4 at 200 dots per inch
PHOTOGRAPH, PANORAMA = (6000, 4000), (20_000, 1500)
PADDED_BYTES = 40_000_000  # of a file, most of them after the end of its image


def pages(count: int) -> Iterator[bytes]:
    """PNGs of pages with 80 to 190 lines of text, each of which fills the width."""
    for number in range(count):
        rng = random.Random(number)
        page = Image.new("L", PAGE, "white")
        draw = ImageDraw.Draw(page)
        height = rng.choice((12, 16, 22, 28))
        font = ImageFont.load_default(height * 0.8)
        for top in range(20, PAGE[1] - height, height):
            words = " ".join("".join(rng.choices(string.ascii_letters, k=rng.randint(2, 9))) for _ in range(60))
            draw.text((20, top), words, fill=rng.randrange(80), font=font)
        yield _encoded(page, "PNG")


def photographs(count: int, size: tuple[int, int] = PHOTOGRAPH) -> Iterator[bytes]:
    """JPEGs: the demo's things on backgrounds, with the noise of a camera. size: their width and height."""
    for number in range(count):
        yield _encoded(_noisy(_scene(number).resize(size, Image.Resampling.BICUBIC), number), "JPEG", quality=90)


def panoramas(count: int) -> Iterator[bytes]:
    """JPEGs of PANORAMA pixels: many scenes side by side."""
    for number in range(count):
        wide = Image.new("RGB", PANORAMA)
        for place in range(0, PANORAMA[0], PANORAMA[1]):
            scene = _scene(1000 * (number + 1) + place // PANORAMA[1]).resize((PANORAMA[1], PANORAMA[1]))
            wide.paste(scene, (place, 0))
        yield _encoded(_noisy(wide, number), "JPEG", quality=90)


def write_padded(folder: Path, count: int) -> None:
    """Files of PADDED_BYTES with small JPEGs; the rest of each is a hole, which takes no space on the disk."""
    folder.mkdir(parents=True)
    for number in range(count):
        with (folder / f"{number:04d}.jpg").open("wb") as file:
            file.write(_encoded(_scene(number), "JPEG"))
            file.truncate(PADDED_BYTES)


def write_images(folder: Path, images: Iterator[bytes]) -> None:
    """A folder with these images."""
    folder.mkdir(parents=True)
    for number, data in enumerate(images):
        (folder / f"{number:04d}.{'png' if data[1:4] == b'PNG' else 'jpg'}").write_bytes(data)


@functools.cache
def _scene(seed: int) -> Image.Image:
    return make_scene(seed).image


def _noisy(image: Image.Image, seed: int) -> Image.Image:
    pixels = np.asarray(image)
    noise = np.random.default_rng(seed).integers(0, 12, pixels.shape, dtype=np.uint8)
    return Image.fromarray(np.clip(pixels, 6, 249) + noise - 6)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
