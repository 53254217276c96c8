"""The drawings of the demo world: named sprites cut from one bundled atlas.

The atlases are rendered once from Noto Color Emoji (SIL Open Font License 1.1, see `samples/atlas/LICENSE`) by
`python -m samples.make_atlas`; afterwards no font is needed. `sprites` has the drawings of scenes; `unnamed`, which is
not in the wheel, has others that the matcher is trained to reject (`samples/training/matcher_crops.py`).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ATLAS = Path(__file__).parent / "atlas"
CELL = 112  # pixels; one sprite's square in the atlas

# hue in degrees, and gain of brightness: yellow with the brightness of red would look brown
COLOURS: dict[str, tuple[float, float]] = {
    "red": (0.0, 1.0),
    "orange": (28.0, 1.25),
    "yellow": (54.0, 1.5),
    "green": (125.0, 1.0),
    "blue": (220.0, 1.1),
    "purple": (285.0, 1.0),
}


@dataclass(frozen=True)
class Sprite:
    """One drawing: its English name, the emoji it was rendered from, and whether it can be drawn in each of COLOURS."""

    name: str
    emoji: str
    colourable: bool = False


def _sprites(text: str, *, colourable: bool = False) -> tuple[Sprite, ...]:
    pairs = [entry.split(":") for entry in text.split()]
    return tuple(Sprite(name.replace("_", " "), emoji, colourable) for name, emoji in pairs)


_PLAIN = """dog:🐕 cat:🐈 horse:🐎 cow:🐄 pig:🐖 sheep:🐑 elephant:🐘 rabbit:🐇 turtle:🐢 duck:🦆 owl:🦉
penguin:🐧 frog:🐸 snail:🐌 bee:🐝 crab:🦀 octopus:🐙 whale:🐳 lion:🦁 monkey:🐒 tree:🌳 cactus:🌵 mushroom:🍄
sunflower:🌻 apple:🍎 banana:🍌 lemon:🍋 pineapple:🍍 carrot:🥕 pizza:🍕 burger:🍔 donut:🍩 cake:🎂 bus:🚌 train:🚂
bicycle:🚲 airplane:✈️ rocket:🚀 sailboat:⛵ house:🏠 key:🔑 clock:⏰ top_hat:🎩 guitar:🎸 drum:🥁 trumpet:🎺
football:⚽ camera:📷 chair:🪑 gift:🎁 star:⭐ moon:🌙 bell:🔔 crown:👑 robot:🤖 snowman:⛄"""

_COLOURED = "car:🚗 balloon:🎈 shirt:👕 book:📕 heart:❤️ dress:👗 backpack:🎒 cap:🧢"

_UNSEEN = """dinosaur:🦖 camel:🐫 watermelon:🍉 tractor:🚜 violin:🎻 anchor:⚓ hammer:🔨 kite:🪁 grapes:🍇
hedgehog:🦔"""

# without drawings that resemble the unseen sprites (a second dinosaur, a bunch of berries)
_DISTRACTORS = (
    "🐅 🦓 🐊 🦒 🦘 🐿 🦉️ 🦚 🦜 🦢 🦩 🐓 🦃 🕊 🐬 🐟 🐠 🦈 🐚 🦋 🐞 🕷 🦂 🦞 🦐 🦑 🐜 🦗 🦇 🐁 🦝 🦥 🦦 🦨 🐼 🐨 🦊 🐺 "
    "🌴 🌲 🌷 🌹 🌺 🌼 🍁 🍂 🍀 🌾 🌽 🥦 🥬 🥒 🌶 🥑 🍆 🥔 🧅 🧄 🥜 🍞 🥐 🥖 🥨 🥯 🧀 🍖 🍗 🥩 🥓 🍟 🌭 🥪 🌮 🌯 🍳 🥘 "
    "🍲 🥗 🍿 🍱 🍙 🍚 🍜 🍝 🍣 🍤 🥟 🦪 🍦 🍨 🍪 🧁 🍫 🍬 🍭 🍮 🍯 🍼 ☕ 🍵 🍷 🍸 🍺 🥤 🍴 🥄 🏺 🧭 🏔 🌋 ⛺ 🏰 🗼 🗽 ⛪ ⛲ "
    "🎡 🎪 🚁 🛵 🛴 🛹 🚤 🛸 🧳 ⌛ ⌚ 🌡 ☂️ ⚡ ❄️ 🔥 💧 🎃 🎄 🎀 🎫 🏆 🏅 🏀 🏐 🏈 🎾 🎳 🏓 🏸 🥊 🎯 🎮 🎲 🧩 🧸 🎨 🧵 🧶 👓 🧥 🧦 "
    "👠 👢 👜 💍 💎 📢 🎵 🎤 🎧 📻 🎷 🎹 📱 ☎️ 🔋 💻 🖨 💿 🎥 📺 🔍 💡 🔦 📰 💰 ✉️ 📦 ✏️ 📌 📎 📏 ✂️ 🔒 🔧 🧲 🧪 🔬 🔭 📡 "
    "💊 🚪 🛏 🚽 🛁 🧴 🧹 🧺 🧽 🛒"
)

PLAIN = _sprites(_PLAIN)
COLOURED = _sprites(_COLOURED, colourable=True)
KNOWN = PLAIN + COLOURED
UNSEEN = _sprites(_UNSEEN)
DISTRACTORS = tuple(Sprite("", emoji) for emoji in _DISTRACTORS.replace("🦉️ ", "").split())
ALL = KNOWN + UNSEEN + DISTRACTORS


def phrase_of(name: str, colour: str | None = None) -> str:
    """The noun phrase for a thing: "a red car", "an owl"."""
    noun = f"{colour} {name}" if colour else name
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


PHRASES: tuple[str, ...] = (
    *(phrase_of(sprite.name) for sprite in PLAIN),
    *(phrase_of(sprite.name, colour) for sprite in COLOURED for colour in COLOURS),
    "a sign",
)


@functools.cache
def _cells() -> dict[str, Image.Image]:
    """The square of every drawing of the atlases that are there, RGBA, by its emoji."""
    cells: dict[str, Image.Image] = {}
    for index in sorted(ATLAS.glob("*.json")):
        atlas = Image.open(index.with_suffix(".png")).convert("RGBA")
        for i, emoji in enumerate(json.loads(index.read_text(encoding="utf-8"))):
            row, column = divmod(i, atlas.width // CELL)
            cells[emoji] = atlas.crop((column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
    return cells


@functools.cache
def render_sprite(sprite: Sprite, colour: str | None = None) -> Image.Image:
    """The sprite as RGBA, cropped to its visible pixels (at most 112×112). The image is cached: do not modify it.

    Raises KeyError for a sprite that is not in the atlas or a colour that is not in COLOURS.
    """
    cell = _cells()[sprite.emoji]
    cell = cell.crop(cell.getchannel("A").point(lambda a: 255 * (a > 64)).getbbox())
    return _recolour(cell, *COLOURS[colour]) if colour else cell


def _recolour(image: Image.Image, hue: float, gain: float) -> Image.Image:
    """Change the sprite's coloured pixels to one hue; grey ones (wheels, windows, outlines) stay."""
    # change hue, brightness and saturation of saturated pixels only
    hsv = np.asarray(image.convert("RGB").convert("HSV")).astype(np.float32)
    coloured = hsv[..., 1] > 90
    hsv[..., 0] = np.where(coloured, hue / 360 * 255, hsv[..., 0])
    hsv[..., 2] = np.where(coloured, np.minimum(hsv[..., 2] * gain, 255), hsv[..., 2])
    hsv[..., 1] = np.where(coloured, np.maximum(hsv[..., 1], 190), hsv[..., 1])
    out = Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")
    out.putalpha(image.getchannel("A"))
    return out
