"""`python -m bench.models.changes`: a stage with and without each change for speed, with random weights.

Some changes are in the stages, and "before" is the way until then. Others are trials, which only this script makes:
what a GPU shows decides whether they become a part of the stages.

For each way: milliseconds an item; the operations that Python calls for one item, from torch's profiler; on a GPU also
its kernels, their milliseconds, and their share of the time. On a CPU operations stand for kernels: each is at least
one launch on a GPU, where a compiled part has fewer. What a kernel takes there, no CPU shows.

    python -m bench.models.changes --scale tiny --items 2     # on a CPU, in a minute
    python -m bench.models.changes --device cuda              # a part of `make bench-gpu`
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from bench.models.bare import finish
from bench.models.measuring import profile_of
from bench.models.random_models import random_weights
from models.building import build_stage
from models.devices import compile_on_gpu
from models.items import PLACEHOLDER_IMAGE, CaptionRequest

SIZE = (640, 480)  # of a picture
CROP = (160, 120)


class CopyingDecoder(nn.Module):
    """transformers' own decoder of masks, as `models.stages.sam.decoder` replaced it on 2026-11-29."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    @staticmethod
    def features(maps: Any, index: int) -> Any:
        own = slice(index, index + 1)
        return maps[own] if isinstance(maps, Tensor) else [level[own] for level in maps]

    def forward(self, features: Any, points: Tensor, least: float) -> tuple[Tensor, Tensor]:
        labels = torch.ones(1, len(points), 1, dtype=torch.int64, device=points.device)
        answer = self._model(input_points=points[None, :, None], input_labels=labels, image_embeddings=features)
        logits, estimates = answer.pred_masks[0].flatten(0, 1), answer.iou_scores[0].flatten().float()
        chosen = estimates > least
        return logits[chosen], estimates[chosen]


def copy_features(stage: Any) -> None:
    """Decode as transformers does."""
    stage._decoder = CopyingDecoder(stage._model)
    if compile_on_gpu(stage._model.mask_decoder):
        stage.compute(stage.prepare([PLACEHOLDER_IMAGE]))


def one_by_one(stage: Any) -> None:
    """Florence-2's probabilities by a pass of its decoder for each image."""
    together = stage._log_probabilities

    def alone(tokens: Tensor, encoded: Tensor, mask: Tensor) -> list[list[float]]:
        parts = (one.split(1) for one in (tokens, encoded, mask))
        return [own for one in zip(*parts, strict=True) for own in together(*one)]

    stage._log_probabilities = alone


def compile_encoder(stage: Any) -> None:
    """Compile SAM's image encoder for the batches of this measurement."""
    compile_on_gpu(stage._model.vision_encoder)


def keep_static(stage: Any) -> None:
    """Generate with a cache of fixed size: on a GPU transformers then compiles a step, and records its graph."""
    model = stage._model
    model.generate = partial(model.generate, cache_implementation="static")


@dataclass(frozen=True)
class Change:
    """One way of a stage of a profile. make: changes the loaded stage; kind: of its items."""

    name: str
    profile: str
    stage: str
    make: Callable[[Any], None] | None = None
    kind: str = "image"


CHANGES = (
    Change("as it is", "paper", "segmenter"),
    Change("before: features copied for each point", "paper", "segmenter", copy_features),
    Change("trial: encoder compiled", "paper", "segmenter", compile_encoder),
    Change("as it is", "paper", "detector"),
    Change("before: probabilities one by one", "paper", "detector", one_by_one),
    Change("trial: static cache", "paper", "detector", keep_static),
    Change("as it is", "small", "captioner", kind="crop"),
    Change("trial: static cache", "small", "captioner", keep_static, "crop"),
    Change("as it is", "small", "segmenter"),
    Change("before: features copied for each point", "small", "segmenter", copy_features),
)


class Figures(NamedTuple):
    """Of one item. kernels, kernel_ms and busy (percent of the time) are nil without a GPU."""

    ms: float
    operations: float
    kernels: float = 0.0
    kernel_ms: float = 0.0
    busy: float = 0.0


def items_of(change: Change, count: int) -> list[Any]:
    """Pictures of noise, or requests for the phrases of crops."""
    generator = np.random.default_rng(0)
    width, height = SIZE if change.kind == "image" else CROP
    noise = generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    pictures = [Image.fromarray(one) for one in noise]
    return pictures if change.kind == "image" else [CaptionRequest(picture, "crop") for picture in pictures]


def loaded(change: Change, scale: str, folder: Path) -> Any:
    """The changed stage. The context of `random_weights` must be open."""
    settings = profile_of(change.profile, scale, folder).stages[change.stage]
    stage = build_stage(change.stage, settings)
    stage.load()
    if change.make is not None:
        change.make(stage)
    return stage


def measured(stage: Any, items: Sequence[Any], rounds: int) -> Figures:
    """Compute the items as one batch: once to warm up, some rounds for the time, and once with the profiler."""
    batch = stage.prepare(items)
    stage.compute(batch)
    finish()
    started = time.perf_counter()
    for _ in range(rounds):
        stage.compute(batch)
    finish()
    seconds = (time.perf_counter() - started) / rounds
    on_gpu = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu], acc_events=True) as trace:
        stage.compute(batch)
        finish()
    kernels = [event for event in trace.events() if event.device_type.name == "CUDA"]
    spent = sum(event.time_range.elapsed_us() for event in kernels) / 1000
    ms, count = 1000 * seconds, len(items)
    return Figures(ms / count, _operations(trace) / count, len(kernels) / count, spent / count, 100 * spent / ms)


def _operations(trace: Any) -> int:
    """Operations of torch that call no other one, without views, which launch nothing."""
    own = [event for event in trace.events() if event.name.startswith("aten::")]
    views = {f"aten::{name}" for name in VIEWS}
    return sum(
        event.name not in views and not any(child.name.startswith("aten::") for child in event.cpu_children)
        for event in own
    )


VIEWS = frozenset(
    "as_strided detach_ empty empty_strided empty_like resolve_conj resolve_neg resize_ is_nonzero".split()
)


def main() -> None:
    """Print a table, row by row."""
    parser = argparse.ArgumentParser(prog="python -m bench.models.changes", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--scale", choices=["full", "tiny"], default="full")
    parser.add_argument("--items", type=int, help="a batch; the profile's batch size if not given")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if (given.device == "cuda") != torch.cuda.is_available():
        parser.error("there is a GPU here, or none: hide it by CUDA_VISIBLE_DEVICES= or choose another device")
    print("| profile, stage | way | ms an item | operations | kernels | ms of kernels | busy, % |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for change in CHANGES:
        with tempfile.TemporaryDirectory() as folder, random_weights():
            stage = loaded(change, given.scale, Path(folder))
            found = measured(stage, items_of(change, given.items or stage.settings.batch_size), given.rounds)
        del stage
        torch.cuda.empty_cache()
        figures = (
            f"{found.ms:.2f} | {found.operations:.0f} | {found.kernels:.0f} | {found.kernel_ms:.2f} | {found.busy:.0f}"
        )
        print(f"| {change.profile}, {change.stage} | {change.name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
