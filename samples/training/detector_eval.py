"""Evaluate a detector on scenes with known truth.

`python -m samples.training.detector_eval weights/detector` measures a saved one on held-out scenes.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou, nms
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from samples.scenes import HELD_OUT_SEED, Scene, SceneOptions, make_scene
from samples.sprites import PHRASES
from samples.training.detector_data import true_boxes

THRESHOLD = 0.3
NMS_IOU = 0.6
FLOOR = 0.01  # detections below this score are ignored
FRESH = 1000  # the held-out seeds before this one were used for decisions while training


@dataclass(frozen=True)
class Found:
    """One image's detections, overlapping ones removed, best first: boxes (n, 4) in pixels, scores, labels (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


Detect = Callable[[list[Image.Image]], list[Found]]


@dataclass(frozen=True)
class Figures:
    """Shares in 0..1. ap50 ignores the phrase; the others hold at one threshold of the score and IoU 0.5.

    phrase, noun: share of the matched detections whose whole phrase, or all but its colour, is right.
    fired_on_empty: share of the scenes without known object and sign that got a detection.
    """

    scenes: int
    boxes: int
    ap50: float
    recall: float
    precision: float
    phrase: float
    noun: float
    fired_on_empty: float


def detect_with(model: Callable[..., Any], processor: Any) -> Detect:
    """Detection with a loaded model and its image processor (any `AutoModelForObjectDetection`)."""

    @torch.inference_mode()
    def detect(images: list[Image.Image]) -> list[Found]:
        inputs = processor(images=images, return_tensors="pt")
        outputs = model(**inputs)
        sizes = [(image.height, image.width) for image in images]
        results = processor.post_process_object_detection(outputs, threshold=FLOOR, target_sizes=sizes)
        return [_apart(result) for result in results]

    return detect


def _apart(result: dict[str, Tensor]) -> Found:
    kept = nms(result["boxes"], result["scores"], NMS_IOU)
    return Found(result["boxes"][kept], result["scores"][kept], result["labels"][kept])


@torch.inference_mode()
def measure(detect: Detect, scenes: Sequence[Scene], threshold: float = THRESHOLD) -> Figures:
    """Compute the figures over `scenes`, 16 images at a time. Each is encoded as JPEG first, as in shards."""
    ranked: list[tuple[float, bool]] = []
    total = sure = hits = right = right_noun = empty = fired = 0
    for start in range(0, len(scenes), 16):
        part = scenes[start : start + 16]
        for scene, found in zip(part, detect([_through_jpeg(scene.image) for scene in part]), strict=True):
            # match all detections to the true boxes, for the precision-recall curve
            truth = true_boxes(scene)
            total += len(truth)
            matches = match(found, truth)
            ranked += [(score, owner is not None) for score, owner in zip(found.scores.tolist(), matches, strict=True)]
            # the other figures use only detections above the threshold
            above = [i for i, score in enumerate(found.scores.tolist()) if score >= threshold]
            sure += len(above)
            if not truth:
                empty += 1
                fired += bool(above)
            for i in above:
                owner = matches[i]
                if owner is not None:
                    hits += 1
                    phrase = PHRASES[int(found.labels[i])]
                    right += phrase == truth[owner][0]
                    right_noun += phrase.split()[-1] == truth[owner][0].split()[-1]
    return Figures(
        scenes=len(scenes),
        boxes=total,
        ap50=average_precision(ranked, total),
        recall=hits / max(total, 1),
        precision=hits / max(sure, 1),
        phrase=right / max(hits, 1),
        noun=right_noun / max(hits, 1),
        fired_on_empty=fired / max(empty, 1),
    )


def match(found: Found, truth: list[tuple[str, tuple[float, ...]]]) -> list[int | None]:
    """Assign each detection, best first, to a true box (IoU of at least 0.5, each box once), or None."""
    if not truth:
        return [None] * len(found.boxes)
    # (detections, true boxes)
    overlaps = box_iou(found.boxes, torch.tensor([box for _, box in truth], dtype=torch.float32))
    taken: set[int] = set()
    matches: list[int | None] = []
    for row in overlaps.tolist():
        # the true box with the largest overlap that is not taken yet
        free = [(overlap, index) for index, overlap in enumerate(row) if overlap >= 0.5 and index not in taken]
        owner = max(free)[1] if free else None
        matches.append(owner)
        if owner is not None:
            taken.add(owner)
    return matches


def average_precision(ranked: Iterable[tuple[float, bool]], total: int) -> float:
    """The area under the precision envelope over recall, from (score, is a hit) of all detections."""
    hits = 0
    # (recall, precision) after each detection
    curve: list[tuple[float, float]] = []
    for rank, (_, hit) in enumerate(sorted(ranked, reverse=True), start=1):
        hits += hit
        curve.append((hits / max(total, 1), hits / rank))
    area, envelope, last = 0.0, 0.0, 1.0
    # integrate from the right, with the highest precision so far
    for recall, precision in reversed(curve):
        area += (last - recall) * envelope
        envelope, last = max(envelope, precision), recall
    return area + last * envelope


def _through_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return Image.open(buffer).convert("RGB")


def held_out(count: int, options: SceneOptions | None = None, start: int = 0) -> list[Scene]:
    """Scenes of `count` held-out seeds from the `start`-th on."""
    seeds = range(HELD_OUT_SEED + start, HELD_OUT_SEED + start + count)
    return [make_scene(seed, options) if options else make_scene(seed) for seed in seeds]


def main() -> None:
    """Print the figures of the detector saved in a folder: on scenes, on empty ones, on unseen sprites."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForObjectDetection.from_pretrained(arguments.folder, dtype=torch.float32).eval()
    detect = detect_with(model, AutoImageProcessor.from_pretrained(arguments.folder))
    # scenes that no training or decision used
    sets = {
        "scenes": held_out(arguments.scenes, start=FRESH),
        "crowded": held_out(arguments.scenes, SceneOptions(min_objects=5), FRESH),
        "empty": held_out(arguments.scenes, SceneOptions(max_objects=0, signs=False), FRESH),
        "unseen": held_out(arguments.scenes, SceneOptions(min_objects=1, signs=False, sprites="unseen"), FRESH),
    }
    for name, scenes in sets.items():
        print(json.dumps({"set": name, **asdict(measure(detect, scenes, arguments.threshold))}))


if __name__ == "__main__":
    main()
