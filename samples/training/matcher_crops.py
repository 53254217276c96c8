"""Crops of the demo world for the matcher's training: pixels and their truth."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from samples.scenes import DISTRACTORS, POOLS, Scene, SceneObject, SceneOptions, make_scene
from samples.sprites import ATLAS, Sprite

SIDE = 96  # pixels; the matcher's input square
HOLD_OUT, UNNAMED_HOLD_OUT = 8, 4  # every eighth distractor is kept out of training, and every fourth unnamed drawing
INSIDE = 0.25  # an object with less than this share of its pixels in a crop is not in the crop
WHITE = (255, 255, 255)
# drawings that resemble neither a known nor an unseen one: no other hearts, clocks, vehicles, hammers or melons
UNNAMED = tuple(Sprite("", emoji) for emoji in json.loads((ATLAS / "unnamed.json").read_text(encoding="utf-8")))

Pixels = np.typing.NDArray[np.uint8]
Box = tuple[int, int, int, int]


class Thing(NamedTuple):
    """What a phrase names: an object's name ("" for a distractor) and, where it has or mentions one, its colour."""

    name: str
    colour: str | None = None


@dataclass(frozen=True)
class Crop:
    """One training image. pixels: (SIDE, SIDE, 3) uint8, RGB.

    things are surely in it and its subject; maybe are partly in it, so phrases about them are neither true nor
    false. background is the colour word behind them, if known. A whole scene has its caption and its seed.
    """

    pixels: Pixels
    things: tuple[Thing, ...] = ()
    maybe: tuple[Thing, ...] = ()
    background: str | None = None
    caption: str = ""
    seed: int = -1


def distractor_pool(*, held_out: bool) -> str:
    """The name of a pool of unnamed sprites: those for training, or the held-out ones, for choosing thresholds."""
    name = "distractors-held-out" if held_out else "distractors-training"
    held = (*DISTRACTORS[::HOLD_OUT], *UNNAMED[::UNNAMED_HOLD_OUT])
    POOLS.setdefault(name, held if held_out else _without(held))
    return name


def _without(held: tuple[Sprite, ...]) -> tuple[Sprite, ...]:
    return tuple(sprite for sprite in (*DISTRACTORS, *UNNAMED) if sprite not in held)


def thing_of(obj: SceneObject) -> Thing:
    """The object as a thing."""
    return Thing(obj.name, obj.colour)


def things_of(scene: Scene) -> tuple[SceneObject, ...]:
    """The scene's objects and signs."""
    return (*scene.objects, *scene.signs)


def cut(image: Image.Image, box: Box | None = None) -> Pixels:
    """The box of the image (or all of it) squashed to (SIDE, SIDE, 3), as the service's transform does it."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))


def jittered(box: Box, scene: Scene, rng: np.random.Generator) -> Box:
    """The box as a detector might give it: edges off by up to 6 %, and padded by 0 to 15 % or not, in the image."""
    x1, y1, x2, y2 = box
    # the same padding at all edges, and an error of each edge
    pad = max(0.0, rng.uniform(-0.1, 0.15))
    off = rng.uniform(-0.06, 0.06, 4)
    width, height = x2 - x1, y2 - y1
    return inside(
        scene,
        x1 + (off[0] - pad) * width,
        y1 + (off[1] - pad) * height,
        x2 + (off[2] + pad) * width,
        y2 + (off[3] + pad) * height,
    )


def inside(scene: Scene, x1: float, y1: float, x2: float, y2: float) -> Box:
    """The box rounded to whole pixels and cut to the scene's image."""
    width, height = scene.image.size
    return max(0, round(x1)), max(0, round(y1)), min(width, round(x2)), min(height, round(y2))


def masked(scene: Scene, obj: SceneObject, box: Box, rng: np.random.Generator) -> Image.Image:
    """The box with everything but the object in white; often with an outline off by a pixel, as a segmenter's is."""
    # dilate or erode in half of the cases
    mask = Image.fromarray(obj.mask).convert("L").crop(box)
    match rng.integers(4):
        case 0:
            mask = mask.filter(ImageFilter.MaxFilter(int(rng.choice([3, 5]))))
        case 1:
            mask = mask.filter(ImageFilter.MinFilter(3))
    return Image.composite(scene.image.crop(box), Image.new("RGB", mask.size, WHITE), mask)


def share_inside(obj: SceneObject, box: Box) -> float:
    """Share of the object's visible pixels that lie in the box, 0..1."""
    x1, y1, x2, y2 = box
    return float(obj.mask[y1:y2, x1:x2].sum()) / max(1, int(obj.mask.sum()))


def partly_inside(scene: Scene, box: Box, *, but: SceneObject | None = None) -> tuple[Thing, ...]:
    """The things other than one object of which a crop of the box shows enough to name them."""
    others = (obj for obj in things_of(scene) if obj is not but)
    return tuple(thing_of(obj) for obj in others if share_inside(obj, box) >= INSIDE)


def region_crop(scene: Scene, obj: SceneObject, rng: np.random.Generator) -> Crop:
    """The object's box, jittered, cut from the scene."""
    box = jittered(obj.box, scene, rng)
    return Crop(cut(scene.image, box), (thing_of(obj),), partly_inside(scene, box, but=obj), scene.background)


def masked_crop(scene: Scene, obj: SceneObject, rng: np.random.Generator) -> Crop:
    """The object's box cut from the scene with everything outside of its mask painted white."""
    image = masked(scene, obj, jittered(obj.box, scene, rng), rng)
    return Crop(cut(image), (thing_of(obj),), (), "white")


def loose_crop(scene: Scene, rng: np.random.Generator) -> Crop:
    """A box that belongs to no object: between two objects, or at random; often only background."""
    width, height = scene.image.size
    objects = things_of(scene)
    # the middle between two objects, or a random point
    if len(objects) >= 2 and rng.random() < 0.6:
        one, two = (objects[i].box for i in rng.choice(len(objects), 2, replace=False))
        x, y = (one[0] + one[2] + two[0] + two[2]) / 4, (one[1] + one[3] + two[1] + two[3]) / 4
    else:
        x, y = rng.uniform(0, width), rng.uniform(0, height)
    wide, high = rng.uniform(0.06, 0.22, 2) * (width, height)
    box = inside(scene, x - wide, y - high, x + wide, y + high)
    return Crop(cut(scene.image, box), (), partly_inside(scene, box), scene.background)


def whole_crop(scene: Scene, seed: int) -> Crop:
    """The whole scene; all its things are true of it."""
    things = tuple(thing_of(obj) for obj in things_of(scene))
    return Crop(cut(scene.image), things, (), scene.background, scene.caption, seed)


def clutter_crop(rng: np.random.Generator) -> Crop:
    """Random shapes and noise, for which no phrase is true; they stand for photographs."""
    side = SIDE * 2
    # a blurred mosaic with random polygons and lines
    base = rng.integers(0, 256, (int(rng.integers(1, 24)), int(rng.integers(1, 24)), 3), dtype=np.uint8)
    image = Image.fromarray(base).resize((side, side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 12))):
        points = [(float(x), float(y)) for x, y in rng.uniform(-20, side + 20, (int(rng.integers(3, 7)), 2))]
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            draw.polygon(points, fill=colour)
        else:
            draw.line(points, fill=colour, width=int(rng.integers(1, 20)), joint="curve")
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 3))))
    return Crop(cut(image))


def turned(crop: Crop, rng: np.random.Generator) -> Crop:
    """A distractor's crop with swapped colours or upside down, which gives more kinds of unnamed things."""
    pixels = crop.pixels
    if rng.random() < 0.5:
        pixels = pixels[..., rng.permutation(3)]
    if rng.random() < 0.25:
        pixels = pixels[::-1]
    return Crop(pixels, crop.things, crop.maybe, None)


def compressed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene as it was drawn, or with its image as a JPEG of quality 75 to 95, as shards have it."""
    if rng.random() < 0.5:
        return scene
    buffer = io.BytesIO()
    scene.image.save(buffer, "JPEG", quality=int(rng.integers(75, 96)))
    return replace(scene, image=Image.open(buffer).convert("RGB"))


def crops_of_scene(seed: int, rng: np.random.Generator, reject: float) -> Iterator[Crop]:
    """The training crops of one scene, about four.

    reject: the share of scenes with distractors, and of scenes from which a loose crop is taken.
    """
    if rng.random() < reject:
        yield from _distractor_crops(seed, rng)
        return
    scene = compressed(make_scene(seed), rng)
    objects = things_of(scene) if rng.random() < 0.5 else scene.objects
    for i in rng.permutation(len(objects))[:4]:
        make = masked_crop if rng.random() < 0.45 else region_crop
        yield make(scene, objects[i], rng)
    if rng.random() < reject:
        yield loose_crop(scene, rng)
    if rng.random() < 0.4:
        yield whole_crop(scene, seed)


def _distractor_crops(seed: int, rng: np.random.Generator) -> Iterator[Crop]:
    scene = compressed(make_scene(seed, SceneOptions(min_objects=2, sprites=distractor_pool(held_out=False))), rng)
    for obj in scene.objects:
        make = masked_crop if rng.random() < 0.5 else region_crop
        yield turned(make(scene, obj, rng), rng)
    if rng.random() < 0.2:
        yield whole_crop(scene, seed)
    if rng.random() < 0.5:
        yield clutter_crop(rng)
