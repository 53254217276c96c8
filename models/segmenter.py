"""Segmenter: masks of the things in an image, with or without a model. Their phrases are the captioner's work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from transformers import AutoImageProcessor, AutoModelForMaskGeneration, pipeline

from models.base import Parameters, Segment, SegmenterStage
from models.devices import best_device, best_precision
from models.salient import salient_masks
from models.weights import locate
from strata.profiles import StageSettings

Found = list[tuple[NDArray[np.bool_], float]]  # masks (H, W) with scores
LEAST_SIDE = 8  # pixels; less than a rim with something inside


class SegmenterParameters(Parameters):
    """max_masks: the largest stay; 20 as Monkey's data was made. smallest: least share of the image's area."""

    max_masks: int = Field(default=20, ge=1)
    smallest: float = Field(default=0.004, ge=0, le=1)


class ClassicalParameters(SegmenterParameters):
    """side: longer images are reduced to this many pixels for the search; masks come in the image's size."""

    side: int = Field(default=320, ge=32)


class ClassicalSegmenter(SegmenterStage):
    """What stands out from a simple background, see `models/salient.py`. Has no weights."""

    name: ClassVar[str] = "segmenter"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = ClassicalParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
        """Segments of each image, largest first."""
        return [self._segments(image) for image in batch]

    def _segments(self, image: Image.Image) -> list[Segment]:
        pixels: NDArray[Any] = np.array(image.convert("RGB"))
        scale = min(1.0, self.parameters.side / max(image.size))
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        if min(small) < LEAST_SIDE:
            return []
        if scale < 1:
            pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
        found = salient_masks(pixels, self.parameters.smallest)
        if scale < 1:
            found = [(_enlarge(mask, image.size), score) for mask, score in found]
        return _largest(found, self.parameters)


class SamParameters(SegmenterParameters):
    """SAM's automatic masks: a grid of points a side, and what a mask must reach to stay."""

    points_per_side: int = Field(default=32, ge=1)
    points_per_batch: int = Field(default=64, ge=1)
    pred_iou_thresh: float = Field(default=0.88, ge=0, le=1)
    stability_score_thresh: float = Field(default=0.95, ge=0, le=1)
    nms_iou: float = Field(default=0.7, ge=0, le=1)


class SamSegmenter(SegmenterStage):
    """SAM or SAM 2 behind the mask-generation pipeline of `transformers`. Scores are SAM's estimate of its IoU."""

    name: ClassVar[str] = "segmenter"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = SamParameters.model_validate(settings.parameters)
        self._generator: Any = None

    def load(self) -> None:
        """Raises WeightsMissing."""
        folder = locate(self.settings)
        self._generator = pipeline(
            "mask-generation",
            model=AutoModelForMaskGeneration.from_pretrained(folder, dtype=best_precision()).eval(),
            image_processor=AutoImageProcessor.from_pretrained(folder),
            device=best_device(),
        )

    @torch.inference_mode()
    def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
        """Segments of each image, largest first. The pipeline batches points, not images."""
        p = self.parameters
        results = self._generator(
            list(batch),
            points_per_crop=p.points_per_side,
            points_per_batch=p.points_per_batch,
            pred_iou_thresh=p.pred_iou_thresh,
            stability_score_thresh=p.stability_score_thresh,
            crops_nms_thresh=p.nms_iou,
        )
        return [_largest(_pairs(result), p) for result in results]


def _pairs(result: dict[str, Any]) -> Found:
    """Masks and scores of the pipeline's answer for one image."""
    scores = [min(max(float(score), 0.0), 1.0) for score in result["scores"]]
    return [(np.asarray(mask, dtype=np.bool_), score) for mask, score in zip(result["masks"], scores, strict=True)]


def _largest(found: Found, parameters: SegmenterParameters) -> list[Segment]:
    """Segments of the largest masks, largest first, none smaller than the parameters allow."""
    sized = [(int(mask.sum()), mask, score) for mask, score in found]
    sized = [entry for entry in sized if entry[0] > 0 and entry[0] >= parameters.smallest * entry[1].size]
    sized.sort(key=lambda entry: -entry[0])
    return [Segment(mask, _tight(mask), score) for _, mask, score in sized[: parameters.max_masks]]


def _tight(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The box around a mask's pixels: x1, y1, x2, y2, the far edges exclusive."""
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def _enlarge(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask in another size (width, height)."""
    soft = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    enlarged: NDArray[np.bool_] = soft > 0.5
    return enlarged


BACKENDS: dict[str, type[SegmenterStage]] = {"classical": ClassicalSegmenter, "sam": SamSegmenter}
