"""Detector: boxes with phrases, from any object detection model of `transformers` or from Florence-2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from pydantic import Field
from torchvision.ops import nms
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoProcessor,
    Florence2ForConditionalGeneration,
)

from models.base import Detection, DetectorStage, Parameters
from models.devices import best_device, best_precision
from models.weights import locate
from strata.profiles import StageSettings

DENSE_CAPTIONS = "<DENSE_REGION_CAPTION>"
SMALLEST = 1.0  # pixels; a thinner box holds nothing that a crop could show


class LabelParameters(Parameters):
    """threshold: lowest score kept; low, for the matcher asks again and can only drop. nms_iou: of boxes that
    overlap more, whatever their labels, the best stays.
    """

    threshold: float = Field(default=0.3, ge=0, le=1)
    nms_iou: float = Field(default=0.6, ge=0, le=1)


class LabelDetector(DetectorStage):
    """A model behind `AutoModelForObjectDetection`: the phrase of a detection is its label.

    RT-DETR promises each object once but not each place: two labels may claim the same thing, hence the
    suppression across labels.
    """

    name: ClassVar[str] = "detector"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = LabelParameters.model_validate(settings.parameters)
        self._model: Any = None
        self._processor: Any = None

    def load(self) -> None:
        """Raises WeightsMissing."""
        folder = locate(self.settings)
        self._processor = AutoImageProcessor.from_pretrained(folder)
        # weights may be stored in half precision, in which CPUs are slow or lost
        self._model = AutoModelForObjectDetection.from_pretrained(folder, dtype=torch.float32).to(best_device()).eval()

    @torch.inference_mode()
    def compute(self, batch: Sequence[Image.Image]) -> list[list[Detection]]:
        """Detections of each image, best first."""
        inputs = self._processor(images=list(batch), return_tensors="pt").to(self._model.device)
        outputs = self._model(**inputs)
        sizes = [(image.height, image.width) for image in batch]
        found = self._processor.post_process_object_detection(
            outputs, threshold=self.parameters.threshold, target_sizes=sizes
        )
        return [self._detections(result, image) for result, image in zip(found, batch, strict=True)]

    def _detections(self, result: dict[str, torch.Tensor], image: Image.Image) -> list[Detection]:
        kept = nms(result["boxes"], result["scores"], self.parameters.nms_iou)
        names = self._model.config.id2label
        return _inside(
            image,
            [names[int(label)] for label in result["labels"][kept]],
            result["boxes"][kept].tolist(),
            result["scores"][kept].tolist(),
        )


class FlorenceParameters(Parameters):
    """max_new_tokens: of the answer with all regions of an image. num_beams: 1 is greedy."""

    max_new_tokens: int = Field(default=1024, ge=1)
    num_beams: int = Field(default=3, ge=1)


class FlorenceDetector(DetectorStage):
    """Florence-2 asked for `<DENSE_REGION_CAPTION>`: phrases of a few words rather than labels.

    The answer is one text and has no scores of its regions; every region of an image gets the geometric mean of
    the probabilities of the answer's tokens.
    """

    name: ClassVar[str] = "detector"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = FlorenceParameters.model_validate(settings.parameters)
        self._model: Any = None
        self._processor: Any = None

    def load(self) -> None:
        """Raises WeightsMissing."""
        folder = locate(self.settings)
        self._processor = AutoProcessor.from_pretrained(folder)
        model: Any = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=best_precision())
        self._model = model.to(best_device()).eval()

    @torch.inference_mode()
    def compute(self, batch: Sequence[Image.Image]) -> list[list[Detection]]:
        """Regions of each image, in the order in which the model names them."""
        prompts = [DENSE_CAPTIONS] * len(batch)
        inputs = self._processor(images=list(batch), text=prompts, return_tensors="pt")
        answer = self._model.generate(
            **inputs.to(self._model.device, self._model.dtype),
            max_new_tokens=self.parameters.max_new_tokens,
            num_beams=self.parameters.num_beams,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = self._processor.batch_decode(answer.sequences, skip_special_tokens=False)
        scores = self._probabilities(answer)
        results = []
        for image, text, score in zip(batch, texts, scores, strict=True):
            parsed = self._processor.post_process_generation(text=text, task=DENSE_CAPTIONS, image_size=image.size)
            regions = parsed[DENSE_CAPTIONS]
            results.append(_inside(image, regions["labels"], regions["bboxes"], [score] * len(regions["labels"])))
        return results

    def _probabilities(self, answer: Any) -> list[float]:
        """Each answer's geometric mean of its tokens' probabilities."""
        logs = self._model.compute_transition_scores(
            answer.sequences, answer.scores, getattr(answer, "beam_indices", None), normalize_logits=True
        )
        written = answer.sequences[:, -logs.shape[1] :] != self._processor.tokenizer.pad_token_id
        means = torch.where(written, logs, 0).sum(1) / written.sum(1).clamp(min=1)
        return [float(probability) for probability in means.exp().clamp(0, 1)]


def _inside(
    image: Image.Image, phrases: Sequence[str], boxes: Sequence[Sequence[float]], scores: Sequence[float]
) -> list[Detection]:
    """Detections with boxes (x1, y1, x2, y2) cut to the image, without those of no phrase or no area left."""
    found = []
    for phrase, (x1, y1, x2, y2), score in zip(phrases, boxes, scores, strict=True):
        x1, x2 = (min(max(x, 0.0), float(image.width)) for x in (x1, x2))
        y1, y2 = (min(max(y, 0.0), float(image.height)) for y in (y1, y2))
        if phrase and x2 - x1 >= SMALLEST and y2 - y1 >= SMALLEST:
            found.append(Detection((x1, y1, x2, y2), phrase, score))
    return found


BACKENDS: dict[str, type[DetectorStage]] = {"transformers": LabelDetector, "florence2": FlorenceDetector}
