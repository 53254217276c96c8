"""Scenes whose truth is known: drawn objects and word signs on a background, from a seed.

A scene has 0 to 6 objects and 0 to 2 signs. Objects are turned, scaled and may overlap a little; no two of them
share a phrase, so that a phrase names one thing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from samples.backgrounds import make_background
from samples.drawings import Drawing, draw_objects, draw_sign
from samples.sprites import DISTRACTORS, KNOWN, PHRASES, UNSEEN, Sprite, phrase_of, render_sprite

__all__ = ["DISTRACTORS", "KNOWN", "PHRASES", "UNSEEN", "render_sprite"]  # the demo world's names, exported again

HELD_OUT_SEED = 2**40  # seeds below are for training, seeds from here on for evaluation and sample shards

Box = tuple[int, int, int, int]
POOLS: dict[str, tuple[Sprite, ...]] = {"known": KNOWN, "unseen": UNSEEN, "distractors": DISTRACTORS}
SIDES = (208, 224, 240, 256, 288)
MAX_OVERLAP = 0.15  # of the smaller box's area
# CC3M's alt texts are short and vague: they name the kind of picture rather than what is in it
ALT_TEXTS = (
    "stock illustration of various items",
    "cute icons set",
    "a picture from the collection",
    "vector graphic design elements",
    "colourful things on a background",
    "clip art for kids",
    "things you can find here",
    "digital artwork, free download",
)


@dataclass(frozen=True)
class SceneOptions:
    """The number of objects in a scene, whether it may have signs, and the pool of its objects."""

    min_objects: int = 0
    max_objects: int = 6
    signs: bool = True
    sprites: str = "known"


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object: its words, its box in pixels (x1, y1, x2, y2), and the mask of its visible pixels, bool (H, W)."""

    name: str
    colour: str | None
    phrase: str
    box: Box
    mask: np.typing.NDArray[np.bool_]

    @property
    def centre(self) -> tuple[float, float]:
        """The centre of the box, x and y in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True, eq=False)
class SceneSign(SceneObject):
    """One sign: an object with a word on it."""

    text: str


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its truth. `relations` contains (phrase, relation, phrase)."""

    image: Image.Image
    objects: tuple[SceneObject, ...]
    signs: tuple[SceneSign, ...]
    background: str
    relations: tuple[tuple[str, str, str], ...]
    caption: str
    alt_text: str


def make_scene(seed: int, options: SceneOptions | None = None) -> Scene:
    """Make the scene of a seed. The same seed and options give the same scene."""
    options = options or SceneOptions()
    rng = np.random.default_rng(seed)
    width, height = (int(rng.choice(SIDES)) for _ in range(2))
    # draw the background, then signs and objects on it
    image, background = make_background(rng, height, width)
    count = int(rng.integers(options.min_objects, options.max_objects + 1))
    signs = int(rng.choice([0, 1, 2], p=[0.5, 0.42, 0.08])) if options.signs else 0
    side = min(width, height)
    drawings = [draw_sign(rng, side) for _ in range(signs)]
    drawings += draw_objects(rng, side, count, POOLS[options.sprites])
    # the truth follows from where they were placed
    things = _compose(rng, image, drawings)
    relations = _relations(things)
    return Scene(
        image=image,
        objects=tuple(thing for thing in things if not isinstance(thing, SceneSign)),
        signs=tuple(thing for thing in things if isinstance(thing, SceneSign)),
        background=background,
        relations=relations,
        caption=_caption(things, relations, background),
        alt_text=str(rng.choice(ALT_TEXTS)),
    )


def _compose(rng: np.random.Generator, image: Image.Image, drawings: list[Drawing]) -> list[SceneObject]:
    """Paste the drawings at random positions with little overlap; one for which no position is found is left out."""
    placed: list[tuple[Drawing, Box, np.typing.NDArray[np.bool_]]] = []
    for drawing in drawings:
        box = _find_position(rng, image.size, drawing.image.size, [other for _, other, _ in placed])
        if box is None:
            continue
        # the new object hides pixels of those below it
        image.paste(drawing.image, box[:2], drawing.image)
        mask = np.zeros((image.height, image.width), np.bool_)
        mask[box[1] : box[3], box[0] : box[2]] = np.asarray(drawing.image.getchannel("A")) > 127
        for _, _, other_mask in placed:
            other_mask &= ~mask
        placed.append((drawing, _tight(mask), mask))
    things = [_thing(*element) for element in placed]
    return sorted(things, key=lambda thing: thing.centre)


def _thing(drawing: Drawing, box: Box, mask: np.typing.NDArray[np.bool_]) -> SceneObject:
    phrase = phrase_of(drawing.name, drawing.colour) if drawing.name else ""
    if drawing.text:
        return SceneSign("sign", None, phrase, box, mask, drawing.text)
    return SceneObject(drawing.name, drawing.colour, phrase, box, mask)


def _tight(mask: np.typing.NDArray[np.bool_]) -> Box:
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def _find_position(
    rng: np.random.Generator, canvas: tuple[int, int], size: tuple[int, int], others: list[Box]
) -> Box | None:
    if size[0] >= canvas[0] or size[1] >= canvas[1]:
        return None
    # try random positions
    for _ in range(60):
        x, y = int(rng.integers(canvas[0] - size[0])), int(rng.integers(canvas[1] - size[1]))
        box = (x, y, x + size[0], y + size[1])
        if all(_overlap(box, other) <= MAX_OVERLAP for other in others):
            return box
    return None


def _overlap(a: Box, b: Box) -> float:
    """The shared area over the smaller box's area."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller


def _relations(things: list[SceneObject]) -> tuple[tuple[str, str, str], ...]:
    """At most two relations of neighbours from left to right; pairs in a diagonal position have none."""
    found: list[tuple[str, str, str]] = []
    named = [thing for thing in things if thing.phrase]
    for a, b in itertools.pairwise(named):
        dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
        # neither horizontal nor vertical enough to be stated
        if a.phrase == b.phrase or 0.8 < abs(dx) / (abs(dy) + 1e-6) < 1.25:
            continue
        relation = "to the left of" if abs(dx) > abs(dy) else "above" if dy > 0 else "below"
        found.append((a.phrase, relation, b.phrase))
    return tuple(found[:2])


def _definite(phrase: str) -> str:
    return "The " + phrase.split(" ", 1)[1]


def _caption(things: list[SceneObject], relations: tuple[tuple[str, str, str], ...], background: str) -> str:
    # name every thing once, then state the relations
    phrases = list(dict.fromkeys(thing.phrase for thing in things if thing.phrase))
    article = "an" if background[0] in "aeiou" else "a"
    if not phrases:
        return f"An empty {background} background."
    named = " and ".join([", ".join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]
    sentences = [f"{named[0].upper()}{named[1:]} on {article} {background} background."]
    sentences += [f"{_definite(a)} is {relation} {_definite(b).lower()}." for a, relation, b in relations]
    return " ".join(sentences)
