"""Detector: boxes with phrases, by any object detection model of transformers or by Florence-2.

In float32 the other images of a batch change boxes by at most 0.01 pixels and scores by at most 1e-4. For Florence-2's
texts see the captioner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torchvision.ops import nms
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoProcessor,
    Florence2ForConditionalGeneration,
)

from models.base import DetectorStage
from models.devices import features, load_model
from models.items import Detection
from models.stages.florence import FlorenceTask
from models.weights.cache import locate
from strata.core import FlorenceDetectorParameters, LabelDetectorParameters, StageSettings

DENSE_CAPTIONS = "<DENSE_REGION_CAPTION>"
SMALLEST = 1.0  # least side of a box in pixels; a crop of a smaller one would be empty
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

    def _detections(self, result: dict[str, torch.Tensor], size: Size) -> list[Detection]:
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

    The model writes all regions of an image as one text and gives them no scores. Every region gets the geometric mean
    of the probabilities of the text's tokens.
    """

    name: ClassVar[str] = "detector"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = FlorenceDetectorParameters.model_validate(settings.parameters)
        self._model: Any = None
        self._processor: Any = None

    def load(self) -> None:
        """Raises WeightsMissing."""
        folder = locate(self.settings)
        self._processor = AutoProcessor.from_pretrained(folder)
        self._model = load_model(Florence2ForConditionalGeneration, folder)
        self._task = FlorenceTask(self._processor, self._model, DENSE_CAPTIONS)

    def prepare(self, batch: Sequence[Image.Image]) -> Prepared:
        """Make the sizes of the images, and the processor's output for them with the task's prompt."""
        return [image.size for image in batch], self._task.inputs(batch)

    @torch.inference_mode()
    def compute(self, batch: Prepared) -> list[list[Detection]]:
        """Regions of each image, in the order of the model's text."""
        sizes, inputs = batch
        # one text per image, with the scores of its tokens
        answer = self._model.generate(
            **inputs,
            max_new_tokens=self.parameters.max_new_tokens,
            num_beams=self.parameters.num_beams,
            length_penalty=1.0,  # a beam's score is then the mean log probability of its tokens
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = self._processor.batch_decode(answer.sequences, skip_special_tokens=False)
        # parse the regions from the text; the location tokens must stay in it, so special tokens are not skipped above
        results = []
        for size, text, score in zip(sizes, texts, self._probabilities(answer), strict=True):
            parsed = self._processor.post_process_generation(text=text, task=DENSE_CAPTIONS, image_size=size)
            regions = parsed[DENSE_CAPTIONS]
            results.append(_inside(size, regions["labels"], regions["bboxes"], [score] * len(regions["labels"])))
        return results

    def _probabilities(self, answer: Any) -> list[float]:
        """The geometric mean of the token probabilities of each text, 0..1."""
        if self.parameters.num_beams > 1:
            means = answer.sequences_scores
        else:
            # one step at a time, because stacking the logits of all steps would double their memory
            tokens = answer.sequences[:, -len(answer.scores) :]
            steps = zip(answer.scores, tokens.T, strict=True)
            logs = torch.stack([step.log_softmax(-1).gather(1, own[:, None])[:, 0] for step, own in steps], dim=1)
            # tokens after the end of a text are padding and do not count
            written = tokens != self._processor.tokenizer.pad_token_id
            means = torch.where(written, logs, 0).sum(1) / written.sum(1).clamp(min=1)
        return [float(probability) for probability in means.exp().clamp(0, 1)]


def _inside(
    size: Size, phrases: Sequence[str], boxes: Sequence[Sequence[float]], scores: Sequence[float]
) -> list[Detection]:
    """Detections with boxes (x1, y1, x2, y2) clipped to the image, without those that have no phrase or no area."""
    width, height = size
    found = []
    for phrase, (x1, y1, x2, y2), score in zip(phrases, boxes, scores, strict=True):
        x1, x2 = (min(max(x, 0.0), float(width)) for x in (x1, x2))
        y1, y2 = (min(max(y, 0.0), float(height)) for y in (y1, y2))
        if phrase and x2 - x1 >= SMALLEST and y2 - y1 >= SMALLEST:
            found.append(Detection((x1, y1, x2, y2), phrase, score))
    return found
