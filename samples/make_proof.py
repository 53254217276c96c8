"""Make the pictures of `strata models prove`: `python -m samples.make_proof`.

Drawn scenes (`drawn-0.jpg` …) with their truth (`drawings.json`), a sign (`sign.png`), and three photographs of
scikit-image, which this needs. Their truth (`photographs.toml`, with their licences) is written by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from models.crops import encode_mask
from samples.scenes import HELD_OUT_SEED, KNOWN, PHRASES, Scene, SceneOptions, make_scene

FOLDER = Path(__file__).resolve().parents[1] / "models" / "prove" / "pictures"
SCENES = 6
FIRST_SEED = HELD_OUT_SEED + 9_100_000  # no other figure uses these
QUALITY = 92  # of 100, of the JPEG files
PHOTOGRAPHS = {"chelsea": "cat", "coffee": "cup", "astronaut": "astronaut"}  # of skimage.data, and their names here
PHOTOGRAPH_QUALITY = 88
SIGN = {"OPEN": (240, 60), "FRESH COFFEE": (120, 190)}  # lines of text, and where they begin


def truth_of(scene: Scene, file: str) -> dict[str, Any]:
    """What a scene shows, and what it does not, as an entry of drawings.json."""
    names = {thing.name for thing in scene.objects}
    wrong = [phrase for phrase in PHRASES if not any(name in phrase for name in names | {"sign"})]
    return {
        "file": file,
        "caption": scene.caption,
        "absent": [sprite.name for sprite in KNOWN if not any(sprite.name in name for name in names)],
        "things": [
            {
                "phrase": thing.phrase,
                "words": [thing.name],
                "box": thing.box,
                "outlines": [encode_mask(thing.mask).counts],
                "right": [thing.phrase],
                "wrong": [wrong[(17 * i + 5 * len(scene.caption)) % len(wrong)]],
            }
            for i, thing in enumerate(scene.objects)
        ],
    }


def draw_sign() -> Image.Image:
    """A green board with two lines of text on a grey wall."""
    image = Image.new("RGB", (640, 360), (168, 166, 160))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((60, 30, 580, 290), 24, (24, 92, 58), (245, 245, 240), 6)
    for text, place in SIGN.items():
        draw.text(place, text, (248, 246, 236), font=ImageFont.load_default(size=56))
    return image


def save_photographs() -> None:
    """Save the photographs of scikit-image as JPEG."""
    from skimage import data

    for source, name in PHOTOGRAPHS.items():
        Image.fromarray(getattr(data, source)()).save(FOLDER / f"{name}.jpg", quality=PHOTOGRAPH_QUALITY)


def main() -> None:
    """Write all pictures, and the truth of the scenes."""
    save_photographs()
    draw_sign().save(FOLDER / "sign.png")
    truths = []
    for number in range(SCENES):
        scene = make_scene(FIRST_SEED + number, SceneOptions(min_objects=2, max_objects=4, signs=False))
        file = f"drawn-{number}.jpg"
        scene.image.save(FOLDER / file, quality=QUALITY, subsampling=0)
        truths.append(truth_of(scene, file))
    (FOLDER / "drawings.json").write_text(json.dumps({"pictures": truths}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
