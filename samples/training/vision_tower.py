"""Pre-train the vision tower of the ablation's models to classify each cell of a raster, without language.

    python -m samples.training.vision_tower --steps 1500 --out DIR [--resume]

A small timm ResNet learns from scenes rendered while it trains (seeds below HELD_OUT_SEED) the class, colour, box and
sign word of each of 8×8 cells, and where the cell lies, as real towers come with what pairs of image and text taught
them. DIR gets `checkpoint.pt` and, in the end, what `AutoModel.from_pretrained` loads.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import TimmWrapperConfig, TimmWrapperModel

from samples.drawings import WORDS
from samples.scenes import SceneSign
from samples.sprites import COLOURS
from samples.training.caption_data import (
    CLASSES,
    COVER,
    UNKNOWN,
    Sample,
    dense_targets,
    pixels_of,
    scene_sample,
    training_scene,
)

SIDE, GRID, WIDTH = 128, 8, 160
BATCH, RATE, WARM_UP = 16, 2e-3, 50
SAVE_STEPS, SHOW_STEPS = 100, 50


def tower_config() -> TimmWrapperConfig:
    """A ResNet of 0.8 M parameters: 128×128 pixels to 8×8 cells of 160 values."""
    shape = {"layers": [1, 1, 2, 1], "channels": [24, 48, 96, WIDTH], "stem_width": 24, "output_stride": SIDE // GRID}
    more: dict[str, Any] = {"hidden_size": WIDTH}  # for FastVLM; a tower alone has no such setting
    return TimmWrapperConfig(architecture="resnet18", model_args=shape, do_pooling=False, **more)


class CellHead(nn.Module):
    """Predicts the labels, row and column of each cell of the tower's output; used only in pre-training."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = (len(CLASSES), len(COLOURS), 4, len(WORDS), 2)
        self.layers = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GELU(), nn.Conv2d(WIDTH, sum(self.parts), 1)
        )

    def losses(self, features: torch.Tensor, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """The losses by name, scalars, from features (N, WIDTH, GRID, GRID)."""
        # one convolution predicts all targets
        classes, colours, boxes, words, positions = self.layers(features).split(self.parts, dim=1)
        targets = dense_targets(samples, GRID)
        weights = torch.ones(len(CLASSES))
        weights[0] = 0.3  # less for the background, which most cells show
        # boxes count only in cells with a thing
        there = (targets.classes > 0).unsqueeze(1)
        distance = functional.smooth_l1_loss(boxes, targets.boxes, reduction="none", beta=0.1) * there
        return {
            "class": functional.cross_entropy(classes, targets.classes, weights),
            "colour": 0.5 * _known_cross_entropy(colours, targets.colours),
            "box": 2 * distance.sum() / (4 * there.sum().clamp(min=1)),
            "word": _known_cross_entropy(words, word_targets(samples, GRID)),
            "position": functional.mse_loss(positions, cell_positions(GRID).expand_as(positions)),
        }


def _known_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    known = (targets != UNKNOWN).sum().clamp(min=1)
    return functional.cross_entropy(logits, targets, ignore_index=UNKNOWN, reduction="sum") / known


def cell_positions(grid: int) -> torch.Tensor:
    """(2, grid, grid): each cell's row and column, from -1 to 1."""
    line = torch.linspace(-1, 1, grid)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"))


def word_targets(samples: Sequence[Sample], grid: int) -> torch.Tensor:
    """(N, grid, grid): the index in WORDS of the word on the sign in a cell, or `UNKNOWN`."""
    words = np.full((len(samples), grid, grid), UNKNOWN, np.int64)
    for n, sample in enumerate(samples):
        for thing in sample.things:
            if isinstance(thing, SceneSign):
                # the share of each cell that the sign covers, as 0..255
                mask = Image.fromarray(thing.mask).convert("L").resize((grid, grid), Image.Resampling.BOX)
                words[n][np.asarray(mask) > COVER * 255] = WORDS.index(thing.text)
    return torch.from_numpy(words)


class TowerTrainer:
    """Tower, head and optimizer. Step i draws its scenes from (seed, i), so that a resumed run has the same data."""

    def __init__(self, steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.steps, self.seed, self.step = steps, seed, 0
        self.tower, self.head = TimmWrapperModel(tower_config()), CellHead()
        self.optimizer = torch.optim.AdamW(self._parameters(), weight_decay=0.03, betas=(0.9, 0.98))

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.tower.parameters(), *self.head.parameters()]

    def advance(self) -> dict[str, float]:
        """Do one optimizer step; return the losses by name."""
        # new scenes in every step
        rng = np.random.default_rng((self.seed, self.step))
        samples = [scene_sample(training_scene(rng)) for _ in range(BATCH)]
        losses = self.head.losses(self.tower(pixels_of(samples, SIDE)).last_hidden_state, samples)
        # warm-up, then a cosine decay
        rate = RATE * min(1.0, (self.step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * self.step / self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def save(self, path: Path) -> None:
        """Write the checkpoint under a temporary name, and rename it over the last one."""
        state = {name: getattr(self, name).state_dict() for name in ("tower", "head", "optimizer")}
        torch.save({**state, "step": self.step}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)

    def resume(self, path: Path) -> None:
        """Load a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.step = state.pop("step")
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


def train(out: Path, steps: int, seed: int = 0, *, resume: bool = True) -> None:
    """Train until `steps`, then save the tower in `out` as transformers loads it."""
    out.mkdir(parents=True, exist_ok=True)
    trainer, checkpoint = TowerTrainer(steps, seed), out / "checkpoint.pt"
    if resume and checkpoint.exists():
        trainer.resume(checkpoint)
    recent: dict[str, float] = {}
    while trainer.step < steps:
        # running means of the losses, for the printed lines
        for name, value in trainer.advance().items():
            recent[name] = 0.95 * recent.get(name, value) + 0.05 * value
        if trainer.step % SHOW_STEPS == 0:
            print(f"tower, step {trainer.step}: {' '.join(f'{k} {v:.3f}' for k, v in recent.items())}", flush=True)
        if trainer.step % SAVE_STEPS == 0:
            trainer.save(checkpoint)
    trainer.tower.eval().save_pretrained(out)


def main() -> None:
    """Run the pre-training from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    train(arguments.out, arguments.steps, arguments.seed, resume=arguments.resume)


if __name__ == "__main__":
    main()
