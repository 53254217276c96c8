"""Backgrounds of the demo world: six styles in ten named colours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

Array = np.typing.NDArray[np.float32]

BACKGROUND_COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (240, 240, 238),
    "gray": (150, 150, 152),
    "black": (38, 38, 42),
    "beige": (226, 208, 172),
    "brown": (128, 92, 66),
    "pink": (240, 184, 200),
    "blue": (120, 168, 226),
    "green": (132, 190, 128),
    "yellow": (240, 224, 130),
    "purple": (176, 150, 212),
}


def _plain(rng: np.random.Generator, height: int, width: int) -> Array:
    return np.zeros((height, width), np.float32)


def _gradient(rng: np.random.Generator, height: int, width: int) -> Array:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    ramp: Array = y[:, None] * np.sin(angle) + x[None, :] * np.cos(angle)
    return (ramp * rng.uniform(12, 30)).astype(np.float32)


def _noisy(rng: np.random.Generator, height: int, width: int) -> Array:
    coarse = rng.normal(0, 255 / 4, (height // 8 + 1, width // 8 + 1)).clip(-127, 127).astype(np.float32)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return (smooth * rng.uniform(0.08, 0.3)).astype(np.float32)


def _striped(rng: np.random.Generator, height: int, width: int) -> Array:
    angle, period = rng.uniform(0, np.pi), rng.uniform(14, 36)
    y, x = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    phase = (y[:, None] * np.sin(angle) + x[None, :] * np.cos(angle)) / period
    return np.where(phase % 1 < 0.5, 1, -1).astype(np.float32) * np.float32(rng.uniform(5, 12))


def _checked(rng: np.random.Generator, height: int, width: int) -> Array:
    size = int(rng.integers(14, 34))
    y, x = np.arange(height) // size, np.arange(width) // size
    return np.where((y[:, None] + x[None, :]) % 2, 1, -1).astype(np.float32) * np.float32(rng.uniform(5, 12))


def _dotted(rng: np.random.Generator, height: int, width: int) -> Array:
    pitch, radius = int(rng.integers(18, 34)), rng.uniform(3, 6)
    y, x = np.arange(height) % pitch - pitch / 2, np.arange(width) % pitch - pitch / 2
    inside = y[:, None] ** 2 + x[None, :] ** 2 < radius**2
    return inside.astype(np.float32) * np.float32(rng.choice([-22, 22]))


STYLES: dict[str, Callable[[np.random.Generator, int, int], Array]] = {
    "plain": _plain,
    "gradient": _gradient,
    "noisy": _noisy,
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
}


def make_background(rng: np.random.Generator, height: int, width: int) -> tuple[Image.Image, str]:
    """An RGB background of height×width pixels and the name of its colour."""
    name = str(rng.choice(list(BACKGROUND_COLOURS)))
    style = STYLES[str(rng.choice(list(STYLES)))]
    # the colour varies a little; the style is a pattern of brightness on it
    base = np.array(BACKGROUND_COLOURS[name], np.float32) + rng.uniform(-10, 10, 3).astype(np.float32)
    pixels = base + style(rng, height, width)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), name
