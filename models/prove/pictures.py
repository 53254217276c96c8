"""The pictures of a proof and what is true of them: two worlds, photographs and the drawn scenes of the demo."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from models.crops import crop_box, crop_segment, decode_mask
from models.items import Segment
from strata.core import Box, Mask, Profile, StageSettings

World = Literal["photographs", "drawings"]
FOLDER = Path(__file__).parent / "pictures"
FILES: dict[World, str] = {"photographs": "photographs.toml", "drawings": "drawings.json"}
GAP = 12  # pixels between the two copies of `doubled`
BitMask = np.typing.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Thing:
    """One thing of a picture. words: of which one must name it; masks: those that are right, none if not known.

    right, wrong: phrases that the matcher must tell apart on the thing's crop.
    """

    phrase: str
    words: tuple[str, ...]
    box: Box
    masks: tuple[BitMask, ...] = ()
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    def crop_of(self, image: Image.Image) -> Image.Image:
        """The thing as captioner and matcher see it: white outside of its mask; its box if it has no mask."""
        if self.masks:
            return crop_segment(image, Segment(self.masks[0], self.box, 1.0))
        return crop_box(image, self.box)


@dataclass(frozen=True)
class Line:
    """A line of text that can be read in a picture."""

    text: str
    box: Box


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture and its truth. absent: words for what it does not show; lines: None if its text is not known."""

    name: str
    image: Image.Image
    caption: str
    things: tuple[Thing, ...]
    absent: tuple[str, ...]
    lines: tuple[Line, ...] | None = None

    def doubled(self) -> Picture:
        """The picture twice, one below the other: everything in it is there a second time."""
        width, height = self.image.size
        image = Image.new("RGB", (width, 2 * height + GAP), "white")
        image.paste(self.image, (0, 0))
        image.paste(self.image, (0, height + GAP))
        below = height + GAP
        again = tuple(
            Thing(thing.phrase, thing.words, (x1, y1 + below, x2, y2 + below))
            for thing in self.things
            for x1, y1, x2, y2 in [thing.box]
        )
        return Picture(f"{self.name}, twice", image, self.caption, self.things + again, self.absent)


def world_of(settings: StageSettings) -> World:
    """The pictures that a stage's model knows: Strata's own small models, and the classical segmenter, only drawings.

    The OCR and the composer of every profile are asked about photographs: they see text, and notes.
    """
    return "drawings" if settings.model.startswith("bundled:") or settings.backend == "classical" else "photographs"


def worlds_of(profile: Profile, world: World | None = None) -> dict[str, World]:
    """The world of each stage. world: that of all stages that see pictures, whatever their models are."""
    found = {name: world_of(settings) for name, settings in profile.stages.items()}
    if world is None:
        return found
    return {name: world if name not in ("ocr", "composer") else "photographs" for name in found}


def load_pictures(world: World) -> list[Picture]:
    """The pictures of a world, with their truth."""
    path = FOLDER / FILES[world]
    text = path.read_text(encoding="utf-8")
    data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    return [_picture(entry) for entry in data["pictures"]]


def _picture(entry: dict[str, Any]) -> Picture:
    image = Image.open(FOLDER / entry["file"]).convert("RGB")
    lines = entry.get("lines")
    return Picture(
        name=Path(entry["file"]).stem,
        image=image,
        caption=entry["caption"],
        things=tuple(_thing(thing, image.size) for thing in entry.get("things", ())),
        absent=tuple(entry["absent"]),
        lines=None if lines is None else tuple(Line(line["text"], tuple(line["box"])) for line in lines),
    )


def _thing(entry: dict[str, Any], size: tuple[int, int]) -> Thing:
    return Thing(
        phrase=entry["phrase"],
        words=tuple(entry["words"]),
        box=tuple(entry["box"]),
        masks=tuple(_mask(outline, size) for outline in entry.get("outlines", ())),
        right=tuple(entry.get("right", ())),
        wrong=tuple(entry.get("wrong", ())),
    )


def _mask(outline: str | Sequence[Sequence[int]], size: tuple[int, int]) -> BitMask:
    """A mask from COCO's run lengths, or from the corners (x, y) of a polygon. size: width, height."""
    if isinstance(outline, str):
        return decode_mask(Mask(size=size[::-1], counts=outline))
    canvas = Image.new("1", size)
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in outline], fill=1)
    return np.asarray(canvas, dtype=np.bool_)


def named(text: str, words: Iterable[str]) -> list[str]:
    """Those of the words that a text has, each in singular or plural; "cat" is not in "caterpillar"."""
    return [word for word in words if re.search(rf"\b{re.escape(word)}(?:s|es)?\b", text, re.IGNORECASE)]
