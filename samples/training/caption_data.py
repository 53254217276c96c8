"""Training data of the captioner: scenes with their captions, and crops of single things with their phrases.

Crops imitate what a pipeline hands the captioner: all pixels outside of a mask painted white, cut to a box,
where neither mask nor box is quite right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageFilter

from samples.scenes import HELD_OUT_SEED, Scene, SceneObject, SceneOptions, make_scene
from samples.sprites import COLOURS, KNOWN
from samples.training.tokenizer import MEAN, STD

CLASSES: tuple[str, ...] = ("", *(sprite.name for sprite in KNOWN), "sign")  # 0: an empty cell
# Shares of scenes by number of objects, 0 to 6: many objects are harder, and only scenes with few have large ones.
OBJECT_SHARES = (0.06, 0.18, 0.18, 0.18, 0.14, 0.13, 0.13)
JPEG_SHARE = 0.3  # scenes reach the service as JPEG files
COVER = 0.25  # smallest share of a cell that a thing must cover to be the cell's label
UNKNOWN = -100


@dataclass(frozen=True, eq=False)
class Sample:
    """An image, its target text, and the things whose masks lie in it."""

    image: Image.Image
    text: str
    things: tuple[SceneObject, ...]


@dataclass(frozen=True, eq=False)
class DenseTargets:
    """The labels of G×G cells: classes and colours (N, G, G), boxes (N, 4, G, G).

    `UNKNOWN` marks cells without colour. Boxes are left, top, right and bottom distances from the cell's middle,
    as fractions of the image's sides.
    """

    classes: torch.Tensor
    colours: torch.Tensor
    boxes: torch.Tensor


def draw_samples(rng: np.random.Generator, scenes: int, crops: int) -> tuple[list[Sample], list[Sample]]:
    """Draw new training samples: whole scenes, and crops from these scenes."""
    # some scenes are compressed as JPEG, like the images of shards
    drawn = [training_scene(rng) for _ in range(scenes)]
    whole = [scene_sample(scene) for scene in drawn]
    whole = [replace(one, image=_recompress(one.image, rng)) if rng.random() < JPEG_SHARE else one for one in whole]
    # crops are of random things in these scenes
    sources = [(scene, thing) for scene in drawn for thing in (*scene.objects, *scene.signs)]
    chosen = rng.choice(len(sources), size=crops, replace=len(sources) < crops)
    return whole, [crop_sample(*sources[int(index)], rng) for index in chosen]


def training_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of a training seed; scenes with many objects are more frequent than by default."""
    count = int(rng.choice(len(OBJECT_SHARES), p=OBJECT_SHARES))
    signs = count > 0 or rng.random() < 0.4
    return make_scene(int(rng.integers(HELD_OUT_SEED)), SceneOptions(count, count, signs=signs))


def scene_sample(scene: Scene) -> Sample:
    """The whole image and its caption."""
    return Sample(scene.image, scene.caption, (*scene.objects, *scene.signs))


def crop_sample(scene: Scene, thing: SceneObject, rng: np.random.Generator) -> Sample:
    """One thing: all pixels outside of its distorted mask are white, and the image is cropped to its distorted box."""
    # distort box and mask as a segmenter's may be, and paint the rest white
    left, top, right, bottom = box = _roughen_box(thing.box, scene.image.size, rng)
    mask = _roughen_mask(thing.mask[top:bottom, left:right], rng)
    pixels = np.where(mask[..., None], np.asarray(scene.image.crop(box)), 255).astype(np.uint8)
    x1, y1, x2, y2 = thing.box
    # the thing's box and mask in the coordinates of the crop
    placed = replace(
        thing, box=(x1 - left, y1 - top, x2 - left, y2 - top), mask=thing.mask[top:bottom, left:right] & mask
    )
    return Sample(Image.fromarray(pixels), thing.phrase, (placed,))


def _roughen_box(
    box: tuple[int, int, int, int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    width, height = box[2] - box[0], box[3] - box[1]
    # each edge moves by -3 to 10 % of the side, within the image
    grow = rng.uniform(-0.03, 0.1, 4) * (width, height, width, height)
    left, top = max(0, round(box[0] - grow[0])), max(0, round(box[1] - grow[1]))
    return left, top, min(size[0], round(box[2] + grow[2])), min(size[1], round(box[3] + grow[3]))


def _roughen_mask(mask: np.typing.NDArray[np.bool_], rng: np.random.Generator) -> np.typing.NDArray[np.bool_]:
    """Return the mask unchanged, dilated, eroded, with a piece missing, or covering everything."""
    kind = rng.choice(5, p=(0.35, 0.3, 0.1, 0.1, 0.15))
    if kind in (1, 2):
        width = int(rng.choice((3, 5, 7) if kind == 1 else (3, 5)))
        grown = ImageFilter.MaxFilter(width) if kind == 1 else ImageFilter.MinFilter(width)
        rough = np.asarray(Image.fromarray(mask).convert("L").filter(grown)) > 0
        return rough if 2 * rough.sum() > mask.sum() else mask  # erosion would remove thin things
    if kind == 3:
        height, width = mask.shape
        y, x = rng.integers(height), rng.integers(width)
        mask = mask.copy()
        mask[y : y + height // 3, x : x + width // 3] = False
    return np.ones_like(mask) if kind == 4 else mask


def _recompress(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(70, 96)))
    return Image.open(buffer).convert("RGB")


def pixels_of(samples: Sequence[Sample], side: int) -> torch.Tensor:
    """Pixels as float (N, 3, side, side), resized and normalised as the processor does."""
    # (N, side, side, 3) uint8 -> (N, 3, side, side) in 0..1, then normalised
    squeezed = [np.asarray(one.image.resize((side, side), Image.Resampling.BICUBIC)) for one in samples]
    values = torch.from_numpy(np.stack(squeezed)).permute(0, 3, 1, 2).float() / 255
    return (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def dense_targets(samples: Sequence[Sample], grid: int) -> DenseTargets:
    """The labels of each cell of a grid×grid raster over each sample's image."""
    classes = np.zeros((len(samples), grid, grid), np.int64)
    colours = np.full((len(samples), grid, grid), UNKNOWN, np.int64)
    boxes = np.zeros((len(samples), 4, grid, grid), np.float32)
    middles = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    for n, sample in enumerate(samples):
        # each cell belongs to the thing that covers most of it, if that is more than COVER
        best = np.full((grid, grid), COVER * 255)
        for thing in sample.things:
            mask = Image.fromarray(thing.mask).convert("L").resize((grid, grid), Image.Resampling.BOX)
            here = np.asarray(mask) > best
            best = np.maximum(best, np.asarray(mask))
            classes[n][here] = CLASSES.index(thing.name)
            colours[n][here] = list(COLOURS).index(thing.colour) if thing.colour else UNKNOWN
            # distances from the cell's centre to the box's edges, in shares of the image
            left, right = (np.array(thing.box[0::2]) / sample.image.width).astype(np.float32)
            top, bottom = (np.array(thing.box[1::2]) / sample.image.height).astype(np.float32)
            across, down = np.meshgrid(middles, middles)
            boxes[n][:, here] = np.stack([across - left, down - top, right - across, bottom - down])[:, here]
    return DenseTargets(torch.from_numpy(classes), torch.from_numpy(colours), torch.from_numpy(boxes))
