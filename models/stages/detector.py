"""Detector: boxes with phrases, by any object detection model of transformers or by Florence-2.

In float32 the other images of a batch change boxes by at most 0.01 pixels and scores by at most 1e-4. For Florence-2's
texts see the captioner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import nms
from transformers import AutoImageProcessor, AutoModelForObjectDetection, AutoProcessor
from transformers.modeling_outputs import BaseModelOutput

from models.base import DetectorStage
from models.boxes import clipped
from models.devices import features, load_model
from models.items import Detection
from models.shared import shared_model
from models.stages.florence import BINS, Bins, FlorenceTask, RegionParser, load_florence
from models.weights.cache import locate
from strata.core import FlorenceDetectorParameters, LabelDetectorParameters, StageSettings

DENSE_CAPTIONS = "<DENSE_REGION_CAPTION>"
LOGITS_TOGETHER = 1024  # tokens whose logits are in memory at a time: 100 MB in bfloat16 for Florence-2's vocabulary
Size = tuple[int, int]  # width, height
Prepared = tuple[list[Size], Any]  # the images' sizes, and the processor's output for them


class LabelDetector(DetectorStage):
    """A model of `AutoModelForObjectDetection`; the phrase of a detection is its label.

    RT-DETR does not suppress duplicates across labels and may find one object under two labels. Therefore non-maximum
    suppression runs here over all labels together.
    """

    name: ClassVar[str] = "detector"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = LabelDetectorParameters.model_validate(settings.parameters)
        self._model: Any = None
        self._processor: Any = None

    def load(self) -> None:
        """Raises WeightsMissing."""
        folder = locate(self.settings)
        self._processor = AutoImageProcessor.from_pretrained(folder)
        # the model computes boxes as fractions of the image: bfloat16 would round them to 1/256 of it
        self._model = load_model(AutoModelForObjectDetection, folder, torch.float32)

    def prepare(self, batch: Sequence[Image.Image]) -> Prepared:
        """Make the sizes of the images, and the processor's output for them."""
        return [image.size for image in batch], features(self._processor, self._model, batch)

    @torch.inference_mode()
    def compute(self, batch: Prepared) -> list[list[Detection]]:
        """Detections of each image, by falling score."""
        sizes, inputs = batch
        found = self._processor.post_process_object_detection(
            self._model(**inputs),
            threshold=self.parameters.threshold,
            # transformers orders sizes as height, width
            target_sizes=[(height, width) for width, height in sizes],
        )
        return [self._detections(result, size) for result, size in zip(found, sizes, strict=True)]

    def _detections(self, result: dict[str, Tensor], size: Size) -> list[Detection]:
        kept = nms(result["boxes"], result["scores"], self.parameters.nms_iou)
        names = self._model.config.id2label
        return _inside(
            size,
            [names[int(label)] for label in result["labels"][kept]],
            result["boxes"][kept].tolist(),
            result["scores"][kept].tolist(),
        )


class FlorenceDetector(DetectorStage):
    """Florence-2 with the task `<DENSE_REGION_CAPTION>`: phrases of a few words rather than labels.

    The model writes all regions of an image as one text: each phrase, then the locations of its box. The score of a
    region is the geometric mean of the probabilities of its own tokens.
    """

    name: ClassVar[str] = "detector"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = FlorenceDetectorParameters.model_validate(settings.parameters)
        self._model: Any = None
        self._processor: Any = None

    def load(self) -> None:
        """Raises WeightsMissing."""
        self._processor = AutoProcessor.from_pretrained(locate(self.settings))
        # a captioner with the same weights uses the same model
        self._shared = shared_model(self.settings, load_florence)
        self._model, self.turn = self._shared.model, self._shared.turn
        self._task = FlorenceTask(self._processor, self._model, DENSE_CAPTIONS)
        self._regions = RegionParser(self._processor.tokenizer)

    def prepare(self, batch: Sequence[Image.Image]) -> Prepared:
        """Make the sizes of the images, and the processor's output for them with the task's prompt."""
        return [image.size for image in batch], self._task.inputs(batch)

    @torch.inference_mode()
    def compute(self, batch: Prepared) -> list[list[Detection]]:
        """Regions of each image, in the order of the model's text."""
        sizes, inputs = batch
        # encode once, for writing and for the probabilities of what was written
        states = self._model.model(**inputs, use_cache=False).encoder_last_hidden_state
        mask = inputs["attention_mask"]
        tokens = self._model.generate(
            encoder_outputs=BaseModelOutput(states),  # of its own: `generate` repeats what is in it for each beam
            attention_mask=mask,
            max_new_tokens=self.parameters.max_new_tokens,
            num_beams=self.parameters.num_beams,
            length_penalty=1.0,  # beams are compared by the mean log probability of their tokens
            do_sample=False,
        )
        logs = self._log_probabilities(tokens, states, mask)
        results = []
        for size, row, own in zip(sizes, tokens[:, 1:].tolist(), logs, strict=True):
            regions = self._regions.parse(row, own)
            boxes = [_pixels(region.bins, size) for region in regions]
            scores = [region.score for region in regions]
            results.append(_inside(size, [region.phrase for region in regions], boxes, scores))
        return results

    def _log_probabilities(self, tokens: Tensor, encoded: Tensor, mask: Tensor) -> list[list[float]]:
        """The log probability of each token after the first, by one pass of the decoder over all of them.

        The scores that `generate` can keep have the size of the vocabulary for every step and beam: some gigabytes.
        """
        states = self._model.model(
            encoder_outputs=BaseModelOutput(encoded),
            attention_mask=mask,
            decoder_input_ids=tokens[:, :-1],
            use_cache=False,
        ).last_hidden_state
        together = max(1, LOGITS_TOGETHER // states.shape[1])
        found: list[list[float]] = []
        for some, chosen in zip(states.split(together), tokens[:, 1:, None].split(together), strict=True):
            logits = self._model.lm_head(some)
            # the softmax in float32: bfloat16 has two or three digits
            own = logits.gather(2, chosen)[..., 0].float() - logits.float().logsumexp(-1)
            found += own.tolist()
        return found


def _pixels(bins: Bins, size: Size) -> tuple[float, float, float, float]:
    """The box of four of Florence-2's 1000 bins a side, in pixels: the middles of the bins."""
    x1, y1, x2, y2 = ((bin + 0.5) / BINS * side for bin, side in zip(bins, size * 2, strict=True))
    return x1, y1, x2, y2


def _inside(
    size: Size, phrases: Sequence[str], boxes: Sequence[Sequence[float]], scores: Sequence[float]
) -> list[Detection]:
    """Detections with boxes (x1, y1, x2, y2) clipped to the image, without those that have no word or no area."""
    found = []
    for phrase, box, score in zip(phrases, boxes, scores, strict=True):
        inside = clipped(box, size)
        if any(map(str.isalnum, phrase)) and inside is not None:
            found.append(Detection(inside, phrase, score))
    return found
