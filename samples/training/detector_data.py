"""Training data of the demo detector: pixels, and the phrase and box of each object and sign."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from samples.scenes import Scene, SceneOptions, make_scene
from samples.sprites import PHRASES
from samples.training.detector_model import SIZE

EMPTY = 0.04  # share of scenes made empty, on top of those the generator leaves empty
STRANGE = 0.06  # share of scenes with unnamed drawings, which must not be detected as named ones
PHRASE_INDEX = {phrase: index for index, phrase in enumerate(PHRASES)}


def training_scene(seed: int) -> Scene:
    """The scene of one training example; the same seed gives the same scene."""
    draw = np.random.default_rng(seed).random()
    if draw < EMPTY:
        return make_scene(seed, SceneOptions(max_objects=0, signs=False))
    if draw < EMPTY + STRANGE:
        return make_scene(seed, SceneOptions(sprites="distractors"))
    return make_scene(seed)


def true_boxes(scene: Scene) -> list[tuple[str, tuple[float, ...]]]:
    """Phrase and box (absolute pixels, x1 y1 x2 y2) of everything to detect: named objects, then signs."""
    named = [(found.phrase, found.box) for found in scene.objects if found.phrase in PHRASE_INDEX]
    return [*named, *(("a sign", sign.box) for sign in scene.signs)]


def pixels_of(image: Image.Image) -> Tensor:
    """(3, SIZE, SIZE) in 0..1, as the saved image processor makes it."""
    small = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR), dtype=np.float32)
    return torch.from_numpy(small / 255).permute(2, 0, 1)


def labels_of(scene: Scene) -> dict[str, Tensor]:
    """RT-DETR's labels: class_labels (n,) and boxes (n, 4) as cx, cy, w, h in 0..1."""
    found = true_boxes(scene)
    corners = torch.tensor([box for _, box in found], dtype=torch.float32).reshape(-1, 2, 2)
    corners = corners / torch.tensor(scene.image.size)
    boxes = torch.cat([corners.mean(1), corners[:, 1] - corners[:, 0]], dim=1)
    classes = torch.tensor([PHRASE_INDEX[phrase] for phrase, _ in found], dtype=torch.long)
    return {"class_labels": classes, "boxes": boxes}


def batch_of(seeds: range) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Pixels (len(seeds), 3, SIZE, SIZE) and labels of these seeds' training scenes."""
    scenes = [training_scene(seed) for seed in seeds]
    return torch.stack([pixels_of(scene.image) for scene in scenes]), [labels_of(scene) for scene in scenes]
