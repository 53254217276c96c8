"""Train the demo's matcher: `python -m samples.training.matcher --minutes 20 --out DIR [--start WEIGHTS] [--resume]`.

A small open_clip CLIP learns from random weights whether a text is true of a crop, with the sigmoid loss of
SigLIP (arXiv 2303.15343) over all pairs of a batch, several texts being true of one crop. Its scale and bias are
trained too, so that sigmoid(scale * cosine + bias) is a probability. Crops of drawings without a name, empty
background and unknown words are true of nothing: that is what lets it reject what it does not know. With `--start`
saved weights are trained further, with a frozen text encoder.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP

from samples.training.matcher_crops import Crop, crops_of_scene
from samples.training.matcher_eval import calibrate, measure
from samples.training.matcher_model import build_model, logits, save_model
from samples.training.matcher_texts import same_name, texts_for, truths, vocabulary

BATCH = 64  # crops
SCALE_RATE = 20.0
WARM_UP = 0.03  # of the time
CHECKPOINT, FIGURES = 180, 3600  # seconds of training between two checkpoints, and two evaluations
FIRST_SEED, FURTHER_SEED = 7 * 2**32, 8 * 2**32  # of its scenes; other trainings use other ranges of seeds
POSITIVE, COLOUR = 3.0, 3.0  # weights in the loss of true pairs, and of false ones with the right name
RANKING = 2.0  # weight of the ranking loss


class Course(NamedTuple):
    """The highest learning rate, the share of scenes with things to reject at the start and the end, the first seed."""

    rate: float
    reject: tuple[float, float]
    first_seed: int


FROM_RANDOM, FURTHER = Course(1e-3, (0.1, 0.4), FIRST_SEED), Course(5e-4, (0.4, 0.5), FURTHER_SEED)


@dataclass
class Progress:
    """The progress of a training: seconds trained, steps taken, scenes drawn."""

    seconds: float = 0.0
    steps: int = 0
    scenes: int = 0


def draw_crops(progress: Progress, course: Course, done: float) -> list[Crop]:
    """The next BATCH crops, from the next scenes. The share of things to reject grows during the training."""
    crops: list[Crop] = []
    reject = course.reject[0] + (course.reject[1] - course.reject[0]) * done
    while len(crops) < BATCH:
        seed = course.first_seed + progress.scenes
        crops += crops_of_scene(seed, np.random.default_rng((seed, 1)), reject)
        progress.scenes += 1
    return crops[:BATCH]


def loss_of(model: CLIP, crops: list[Crop], words: list[str], rng: np.random.Generator) -> torch.Tensor:
    """Weighted binary cross-entropy of all pairs whose truth is known, and the ranking loss, summed, per crop."""
    # all pairs of the batch's crops and texts
    texts = texts_for(crops, words, rng)
    truth = torch.from_numpy(truths(crops, texts))
    predicted = logits(model, [crop.pixels for crop in crops], [text.text for text in texts])
    # no weight for unknown pairs, more for true ones and for false ones that differ by colour
    weights = torch.where(truth.isnan(), 0.0, torch.where(truth > 0, POSITIVE, 1.0))
    weights *= torch.where(torch.from_numpy(same_name(crops, texts)) & (truth == 0), COLOUR, 1.0)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        predicted, truth.nan_to_num(0.0), weights, reduction="sum"
    )
    return (loss + RANKING * (ranking_loss(predicted, truth) + ranking_loss(predicted.T, truth.T))) / len(crops)


def ranking_loss(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of a row's true columns against all known ones, summed over the rows that have a true one.

    Which of all texts fits is learnt several times faster than whether each one does.
    """
    rows = (truth > 0).any(dim=1)
    # -log of the softmax probability of all true columns together
    known = predicted[rows].masked_fill(truth[rows].isnan(), -torch.inf)
    true = known.masked_fill(truth[rows] == 0, -torch.inf)
    return (known.logsumexp(dim=1) - true.logsumexp(dim=1)).sum()


def rate_at(done: float, highest: float) -> float:
    """The learning rate after a share of the time: linear warm-up, then a cosine decay to nearly 0."""
    if done < WARM_UP:
        return highest * (done + 0.002) / (WARM_UP + 0.002)
    return highest * (0.5 + 0.5 * math.cos(math.pi * min(1.0, (done - WARM_UP) / (1 - WARM_UP)))) + 1e-6


def build_optimizer(model: CLIP) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices only. Scale and bias, which change much, have SCALE_RATE times the rate."""
    # three groups of parameters with their own decay and rate
    scalars = [model.logit_scale, model.logit_bias]
    named = [(name, p) for name, p in model.named_parameters() if p.ndim > 0 and p.requires_grad]
    matrices = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in named if p.ndim == 1 or "embedding" in name]
    groups = [
        {"params": matrices, "weight_decay": 0.1, "factor": 1.0},
        {"params": others, "weight_decay": 0.0, "factor": 1.0},
        {"params": scalars, "weight_decay": 0.0, "factor": SCALE_RATE},
    ]
    return torch.optim.AdamW(groups, lr=FROM_RANDOM.rate, betas=(0.9, 0.98), fused=True)


def save_checkpoint(path: Path, model: CLIP, optimizer: torch.optim.AdamW, progress: Progress) -> None:
    """Replace the checkpoint atomically, so that an interruption leaves the old one."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(progress)}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def started_from(weights: Path) -> CLIP:
    """The model of a folder. Its text encoder is frozen: texts that the training does not show keep their vectors."""
    model: CLIP = open_clip.create_model_and_transforms(f"local-dir:{weights}")[0]
    trained = {id(parameter) for parameter in (*model.visual.parameters(), model.logit_scale, model.logit_bias)}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    return model


def train(model: CLIP, out: Path, minutes: float, course: Course, *, resume: bool) -> None:
    """Train for `minutes` of wall-clock time, including earlier runs; keep a checkpoint in `out`."""
    optimizer = build_optimizer(model)
    checkpoint, progress = out / "checkpoint.pt", Progress()
    # continue from the checkpoint
    if resume and checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
    words, budget, told = vocabulary(held_out=False), minutes * 60, 0.0
    saved = measured = progress.seconds
    while progress.seconds < budget:
        started = time.monotonic()
        # the rate follows the share of the time that is used
        done = progress.seconds / budget
        for group in optimizer.param_groups:
            group["lr"] = rate_at(done, course.rate) * group["factor"]
        model.train()
        # the step's number determines its crops and texts
        rng = np.random.default_rng((course.first_seed, progress.steps))
        loss = loss_of(model, draw_crops(progress, course, done), words, rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.steps += 1
        progress.seconds += time.monotonic() - started
        told = 0.95 * told + 0.05 * loss.item() if told else loss.item()
        if progress.steps % 20 == 0:
            print(f"{progress.seconds / 60:5.1f} min  step {progress.steps}  loss {told:.3f}", flush=True)
        if progress.seconds - saved >= CHECKPOINT:
            saved = progress.seconds
            save_checkpoint(checkpoint, model, optimizer, progress)
        if progress.seconds - measured >= FIGURES:
            measured = progress.seconds
            print(measure(model, scenes=25), flush=True)
    save_checkpoint(checkpoint, model, optimizer, progress)


def main() -> None:
    """Train, calibrate, save the model in `out` and print its figures on held-out scenes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="saved weights to train further")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = started_from(arguments.start) if arguments.start else build_model()
    course = FURTHER if arguments.start else FROM_RANDOM
    train(model, arguments.out, arguments.minutes, course, resume=arguments.resume)
    print(f"threshold of the calibrated scores, then moved to 0.5: {calibrate(model):.4f}")
    save_model(model, arguments.out)
    print(measure(model, scenes=300, threshold=0.5), flush=True)


if __name__ == "__main__":
    main()
