"""Segmenter: masks of the things in an image, with or without a model. The captioner gives them phrases.

Masks depend on the batch only through rounding: in float32 fewer than one pixel in ten thousand differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import masks_to_boxes, nms
from transformers import AutoImageProcessor, AutoModelForMaskGeneration

from models.base import PLACEHOLDER_IMAGE, Segment, SegmenterStage
from models.demo.salient import salient_masks
from models.devices import compile_on_gpu, features, load_model
from models.weights.cache import locate
from strata.core import ClassicalSegmenterParameters, SamParameters, SegmenterParameters, StageSettings

Found = list[tuple[np.typing.NDArray[np.bool_], float]]  # masks (H, W) with scores
LEAST_SIDE = 8  # pixels; a smaller image has no room for a background with a thing on it
STABILITY_OFFSET = 1.0  # of logits; segment_anything's
Shape = tuple[int, int]  # height, width


class ClassicalSegmenter(SegmenterStage):
    """What differs from a simple background, see `models/demo/salient.py`. Has no weights."""

    name: ClassVar[str] = "segmenter"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = ClassicalSegmenterParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
        """Segments of each image, largest first."""
        return [self._segments(image) for image in batch]

    def _segments(self, image: Image.Image) -> list[Segment]:
        pixels: np.typing.NDArray[Any] = np.array(image.convert("RGB"))
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


@dataclass(frozen=True)
class _Pixels:
    """A batch for SAM: (images, 3, height, width), and for each image its shape and the shape it was brought to."""

    values: Tensor
    shapes: list[tuple[Shape, Shape]]


class SamSegmenter(SegmenterStage):
    """All masks that SAM or SAM 2 finds in an image. Scores are the model's own estimate of its IoU.

    The steps are those of segment_anything's SamAutomaticMaskGenerator (arXiv 2304.02643, appendix B) without crops:
    a grid of points, three masks a point, thresholds on the estimated IoU and on stability, non-maximum suppression.
    Unlike transformers' mask-generation pipeline it encodes a batch of images in one call, resizes only masks whose
    estimated IoU passes the threshold, and keeps the model's small logits until the final choice of masks.
    """

    name: ClassVar[str] = "segmenter"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = SamParameters.model_validate(settings.parameters)
        self._model: Any = None
        self._processor: Any = None

    def load(self) -> None:
        """Raises WeightsMissing."""
        folder = locate(self.settings)
        self._processor = AutoImageProcessor.from_pretrained(folder)
        self._model = load_model(AutoModelForMaskGeneration, folder)
        # each point has its own copy of the image's features: without compiling, adding to them takes most of the time
        if compile_on_gpu(self._model.mask_decoder):
            self.compute(self.prepare([PLACEHOLDER_IMAGE]))  # compile now; the shapes are the same for all images

    def prepare(self, batch: Sequence[Image.Image]) -> _Pixels:
        """The images' pixels, and their shapes before and after."""
        made = features(self._processor, self._model, batch)
        shapes = made["original_sizes"].tolist()
        # SAM keeps an image's aspect ratio and pads; SAM 2 resizes it to a square. transformers' pipeline places the
        # points for SAM 2 as for SAM, so that one end of an oblong image gets none
        resized = made.get("reshaped_input_sizes")
        whole = [tuple(made["pixel_values"].shape[-2:])] * len(shapes)
        resized = whole if resized is None else resized.tolist()
        return _Pixels(made["pixel_values"], list(zip(shapes, resized, strict=True)))

    @torch.inference_mode()
    def compute(self, batch: _Pixels) -> list[list[Segment]]:
        """Segments of each image, largest first."""
        maps = self._model.get_image_embeddings(batch.values)
        answers = []
        for i, (shape, resized) in enumerate(batch.shapes):
            own = maps[i : i + 1] if isinstance(maps, Tensor) else [level[i : i + 1] for level in maps]
            points = _grid(self.parameters.points_per_side, resized).to(batch.values.device)
            pieces = points.split(self.parameters.points_per_batch)
            found = [self._candidates(own, piece, shape, resized) for piece in pieces]
            answers.append(self._segments(found, shape, resized))
        return answers

    def _candidates(self, maps: Any, points: Tensor, shape: Shape, resized: Shape) -> tuple[Tensor, ...]:
        """Masks of some points, (N, 2) as x and y of the resized image, that pass the thresholds.

        Logits (M, h, w) as the model gives them, scores (M,), boxes (M, 4) and areas (M,) in pixels of the image.
        """
        p = self.parameters
        # three masks a point, with the model's estimate of their IoU
        answer = self._model(
            input_points=points[None, :, None],
            input_labels=torch.ones(1, len(points), 1, dtype=torch.int64, device=points.device),
            image_embeddings=maps,
        )
        logits, scores = answer.pred_masks[0].flatten(0, 1), answer.iou_scores[0].flatten().float()
        if p.pred_iou_thresh > 0:
            sure = scores > p.pred_iou_thresh
            logits, scores = logits[sure], scores[sure]
        # stable: the mask hardly changes when the threshold on its logits does
        whole = self._enlarged(logits, shape, resized)
        masks = whole > 0
        if p.stability_score_thresh > 0:
            inner, outer = (_areas(whole > limit) for limit in (STABILITY_OFFSET, -STABILITY_OFFSET))
            stable = inner / outer > p.stability_score_thresh
            logits, scores, masks = logits[stable], scores[stable], masks[stable]
        return logits, scores, masks_to_boxes(masks), _areas(masks)

    def _segments(self, found: list[tuple[Tensor, ...]], shape: Shape, resized: Shape) -> list[Segment]:
        """The largest candidates that are left after non-maximum suppression and are not too small."""
        logits, scores, boxes, areas = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = nms(boxes, scores, self.parameters.nms_iou)
        kept = kept[areas[kept] >= max(1.0, self.parameters.smallest * shape[0] * shape[1])]
        kept = kept[areas[kept].argsort(descending=True, stable=True)][: self.parameters.max_masks]
        masks = (self._enlarged(logits[kept], shape, resized) > 0).cpu().numpy()
        return [
            Segment(mask, _tight(mask), score)
            for mask, score in zip(masks, scores[kept].clamp(0, 1).tolist(), strict=True)
        ]

    def _enlarged(self, logits: Tensor, shape: Shape, resized: Shape) -> Tensor:
        """Logits (N, h, w) in the image's shape."""
        (whole,) = self._processor.post_process_masks(
            [logits[:, None].float()], [shape], reshaped_input_sizes=[resized], binarize=False
        )
        enlarged: Tensor = whole[:, 0]
        return enlarged


def _grid(side: int, shape: Shape) -> Tensor:
    """(side * side, 2): the centres of side × side equal fields, as x and y in pixels of an image of that shape."""
    middles = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(middles * shape[0], middles * shape[1], indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def _areas(masks: Tensor) -> Tensor:
    """Pixels of masks (N, height, width)."""
    return masks.sum(dim=(1, 2))


def _largest(found: Found, parameters: SegmenterParameters) -> list[Segment]:
    """Segments of the largest masks, largest first, none smaller than the parameters allow."""
    sized = [(int(mask.sum()), mask, score) for mask, score in found]
    sized = [entry for entry in sized if entry[0] > 0 and entry[0] >= parameters.smallest * entry[1].size]
    sized.sort(key=lambda entry: -entry[0])
    return [Segment(mask, _tight(mask), score) for _, mask, score in sized[: parameters.max_masks]]


def _tight(mask: np.typing.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The box around a mask's pixels: x1, y1, x2, y2, the far edges exclusive."""
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def _enlarge(mask: np.typing.NDArray[np.bool_], size: tuple[int, int]) -> np.typing.NDArray[np.bool_]:
    """The mask in another size (width, height)."""
    soft = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    enlarged: np.typing.NDArray[np.bool_] = soft > 0.5
    return enlarged
