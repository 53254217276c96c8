"""Segmenter: masks of the objects in an image, with or without a model. The captioner gives the objects phrases.

The other images of a batch change masks only by rounding: in float32 less than one pixel in ten thousand differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.ops import masks_to_boxes, nms
from transformers import AutoImageProcessor, AutoModelForMaskGeneration

from models.base import SegmenterStage
from models.demo.salient import salient_masks
from models.devices import features, load_with_exact_parts
from models.items import PLACEHOLDER_IMAGE, Segment
from models.stages.sam.decoder import ImageFeatures, PointDecoder
from models.weights.cache import locate
from strata.core import ClassicalSegmenterParameters, SamParameters, SegmenterParameters, StageSettings

Found = list[tuple[np.typing.NDArray[np.bool_], float]]  # masks (H, W) with scores
LEAST_SIDE = 8  # pixels; a smaller image cannot show an object in front of a background
NEARLY = 0.8  # of the smallest share that is chosen
ENLARGED_TOGETHER = 8_000_000  # pixels of masks that are enlarged in one call: 32 MB in float32
STABILITY_OFFSET = 1.0  # of logits; the default of segment_anything
Shape = tuple[int, int]  # height, width


class ClassicalSegmenter(SegmenterStage):
    """Masks of what differs from a simple background, by `models.demo.salient`. It has no weights."""

    name: ClassVar[str] = "segmenter"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = ClassicalSegmenterParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Do nothing: there are no weights."""

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
        """Segments of each image, the largest first."""
        return [self._segments(image) for image in batch]

    def _segments(self, image: Image.Image) -> list[Segment]:
        pixels: np.typing.NDArray[Any] = np.array(image.convert("RGB"))
        # masks are found at a reduced size, which bounds the time, and enlarged again
        scale = min(1.0, self.parameters.side / max(image.size))
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        if min(small) < LEAST_SIDE:
            return []
        if scale < 1:
            pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
        found = salient_masks(pixels, self.parameters.smallest, self.parameters.max_masks)
        if scale < 1:
            found = [(_enlarge(mask, image.size), score) for mask, score in found]
        return _largest(found, self.parameters)


@dataclass(frozen=True)
class _Pixels:
    """A batch for SAM. values: (images, 3, height, width); shapes: of each image before and after resizing.

    sizes: of each image without what was added to a slender one.
    """

    values: Tensor
    shapes: list[tuple[Shape, Shape]]
    sizes: list[Shape]


class SamSegmenter(SegmenterStage):
    """All masks that SAM or SAM 2 finds in an image. The score of a mask is the model's own estimate of its IoU.

    The steps are those of segment_anything's SamAutomaticMaskGenerator (arXiv 2304.02643, appendix B) without crops:
    a grid of points, three masks per point, thresholds on the estimated IoU and on stability, non-maximum suppression.
    Unlike transformers' mask-generation pipeline it encodes a batch of images in one call, and judges the masks in the
    model's own size (256×256): only those that are chosen are enlarged to the image's, a few at a time. Enlarging all
    masks of a batch of points took 14 GB for an image of 12 megapixels.
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
        # in bfloat16 a coordinate has 8 bits, which moves points by up to 2 of 1024 pixels, and so has a score
        answers = {"shared_embedding": None, "shared_image_embedding": None, "iou_prediction_head": torch.float32}
        self._model = load_with_exact_parts(AutoModelForMaskGeneration, folder, answers)
        self._decoder = PointDecoder(self._model)
        # uncompiled, the additions between the decoder's products take most time
        if self._decoder.compiled_on_gpu():
            # compile now, while no other model runs: all images have the same shapes
            batch = self.prepare([PLACEHOLDER_IMAGE])
            self._decoder.warm_up(self._decoder.features(self._model.get_image_embeddings(batch.values), 0))
            self.compute(batch)

    def prepare(self, batch: Sequence[Image.Image]) -> _Pixels:
        """Make the images' pixels on the device, and their shapes before and after resizing."""
        longest = self._processor.size.longest_edge  # SAM 2 has none: it resizes to a square
        images = [_padded(image, longest) if longest else image for image in batch]
        inputs = features(self._processor, self._model.vision_encoder, images)
        shapes = inputs["original_sizes"].tolist()
        # SAM keeps the aspect ratio and pads; SAM 2 resizes to a square. transformers' own pipeline places the points
        # for SAM 2 as for SAM, so that one end of an oblong image has no points
        resized = inputs.get("reshaped_input_sizes")
        whole = [tuple(inputs["pixel_values"].shape[-2:])] * len(shapes)
        resized = whole if resized is None else resized.tolist()
        sizes = [(image.height, image.width) for image in batch]
        return _Pixels(inputs["pixel_values"], list(zip(shapes, resized, strict=True)), sizes)

    @torch.inference_mode()
    def compute(self, batch: _Pixels) -> list[list[Segment]]:
        """Segments of each image, the largest first."""
        # the image encoder runs once for the batch, the mask decoder for each image on batches of points
        maps = self._model.get_image_embeddings(batch.values)
        answers = []
        for i, (shape, resized) in enumerate(batch.shapes):
            own = self._decoder.features(maps, i)
            points = _grid(self.parameters.points_per_side, resized).to(batch.values.device)
            pieces = points.split(self.parameters.points_per_batch)
            found = [self._candidates(own, piece, resized) for piece in pieces]
            answers.append(self._segments(found, shape, resized, batch.sizes[i]))
        return answers

    @torch.inference_mode()
    def scores_at(self, image: Image.Image, points: Sequence[tuple[int, int]]) -> list[float]:
        """The estimated IoU of each of the three masks for one thing. points: x and y, in pixels of the image."""
        batch = self.prepare([image])
        ((shape, resized),) = batch.shapes
        # the points move with the image when it is resized
        scale = torch.tensor([resized[1] / shape[1], resized[0] / shape[0]])
        placed = (torch.tensor(points, dtype=torch.float32) * scale).to(batch.values.device)
        answer = self._model(
            input_points=placed[None, None],
            input_labels=torch.ones(1, 1, len(points), dtype=torch.int64, device=placed.device),
            image_embeddings=self._model.get_image_embeddings(batch.values),
        )
        scores: list[float] = answer.iou_scores[0, 0].float().tolist()
        return scores

    def _candidates(self, image: ImageFeatures, points: Tensor, resized: Shape) -> tuple[Tensor, ...]:
        """The masks of some points that pass the thresholds. points: (N, 2), x and y in pixels of the resized image.

        Returns logits (M, h, w) in the model's size, scores (M,), boxes (M, 4) in its pixels, and shares of the image's
        area (M,).
        """
        p = self.parameters
        # three masks for each point, with the model's estimates of their IoU, but none with a low estimate
        logits, scores = self._decoder(image, points, p.pred_iou_thresh)
        # without the padding: what is left shows the whole image
        height, width = self._unpadded(logits, resized)
        own = logits[:, :height, :width].float()
        masks = own > 0
        kept = _areas(masks) > 0
        # a mask is stable if it hardly changes with the threshold on its logits: its IoU at 1 and -1
        if p.stability_score_thresh > 0:
            inner, outer = (_areas(own > limit) for limit in (STABILITY_OFFSET, -STABILITY_OFFSET))
            kept &= inner / outer > p.stability_score_thresh
        masks = masks[kept]
        return logits[kept], scores[kept], masks_to_boxes(masks), _areas(masks) / (height * width)

    def _segments(self, found: list[tuple[Tensor, ...]], shape: Shape, resized: Shape, size: Shape) -> list[Segment]:
        """The largest candidates that remain after non-maximum suppression and are not too small."""
        # suppress duplicates (the same object from several points), drop small masks, and keep the largest
        logits, scores, boxes, shares = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = nms(boxes, scores, self.parameters.nms_iou)
        kept = kept[shares[kept] >= self.parameters.smallest]
        kept = kept[shares[kept].argsort(descending=True, stable=True)]
        if not len(kept):
            return []
        # the largest, and those that may be as large: a pixel of the model's size is many of the image's
        last = shares[kept][: self.parameters.max_masks][-1]
        kept = kept[(shares[kept] >= NEARLY * last).nonzero()[:, 0]]
        kept = kept[: 2 * self.parameters.max_masks]  # of many things of one size, not all are enlarged
        # only now enlarge: a mask of 24 megapixels takes 96 MB in float32
        together = max(1, ENLARGED_TOGETHER // max(math.prod(shape), math.prod(resized)))
        masks = [mask for some in kept.split(together) for mask in self._enlarged(logits[some], shape, resized, size)]
        return _largest(list(zip(masks, scores[kept].clamp(0, 1).tolist(), strict=True)), self.parameters)

    def _unpadded(self, logits: Tensor, resized: Shape) -> Shape:
        """The part of the logits (N, h, w) that shows the image: SAM pads it to a square, SAM 2 does not."""
        pad = getattr(self._processor, "pad_size", None)
        if not pad:
            return logits.shape[1], logits.shape[2]
        return (
            math.ceil(resized[0] * logits.shape[1] / pad["height"]),
            math.ceil(resized[1] * logits.shape[2] / pad["width"]),
        )

    def _enlarged(self, logits: Tensor, shape: Shape, resized: Shape, size: Shape) -> np.typing.NDArray[np.bool_]:
        """Logits (N, h, w) as masks (N, H, W) of the image's size. shape: of the image with what was added to it."""
        # post_process_masks removes the padding; it expects axes of images, masks and channels
        (whole,) = self._processor.post_process_masks(
            [logits[:, None].float()], [shape], reshaped_input_sizes=[resized], binarize=False
        )
        masks: np.typing.NDArray[np.bool_] = (whole[:, 0, : size[0], : size[1]] > 0).cpu().numpy()
        return masks


def _padded(image: Image.Image, longest: int) -> Image.Image:
    """The image; if it is too slender for SAM, with white on its right or below it."""
    # SAM resizes the long side to `longest` pixels, and refuses an image whose short side then has none
    least = math.ceil(max(image.size) / longest)
    if min(image.size) >= least or min(image.size) == 0:
        return image
    return ImageOps.expand(
        image.convert("RGB"), (0, 0, max(0, least - image.width), max(0, least - image.height)), "white"
    )


def _grid(side: int, shape: Shape) -> Tensor:
    """The centres of side × side equal cells: (side * side, 2), x and y in pixels of an image of that shape."""
    middles = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(middles * shape[0], middles * shape[1], indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def _areas(masks: Tensor) -> Tensor:
    """The number of pixels of each mask (N, height, width)."""
    return masks.sum(dim=(1, 2))


def _largest(found: Found, parameters: SegmenterParameters) -> list[Segment]:
    """Segments of the largest masks, the largest first, without those smaller than the parameters allow."""
    sized = [(int(mask.sum()), mask, score) for mask, score in found]
    sized = [entry for entry in sized if entry[0] > 0 and entry[0] >= parameters.smallest * entry[1].size]
    sized.sort(key=lambda entry: -entry[0])
    return [Segment(mask, _bounding_box(mask), score) for _, mask, score in sized[: parameters.max_masks]]


def _bounding_box(mask: np.typing.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The box around a mask's pixels: x1, y1, x2, y2, with x2 and y2 exclusive."""
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def _enlarge(mask: np.typing.NDArray[np.bool_], size: tuple[int, int]) -> np.typing.NDArray[np.bool_]:
    """Resize a mask to another size (width, height)."""
    # linear interpolation and a threshold give smoother edges than copying pixels
    soft = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    enlarged: np.typing.NDArray[np.bool_] = soft > 0.5
    return enlarged
