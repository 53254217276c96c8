"""A task of Florence-2. Its prompt has the same tokens for all images, so they are made only once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from models.devices import features
from models.items import PLACEHOLDER_IMAGE


class FlorenceTask:
    """A task of a Florence-2 model.

    task: as in the model card, such as `<CAPTION>`. processor, model: of transformers, of any size.
    """

    def __init__(self, processor: Any, model: Any, task: str) -> None:
        self._processor, self._model = processor.image_processor, model
        # the processor makes tokens only together with an image
        batch = features(processor, model, [PLACEHOLDER_IMAGE], text=[task])
        self._tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def inputs(self, images: Sequence[Image.Image]) -> Any:
        """Make the input of `generate` for the task on each image, a BatchFeature on the model's device."""
        batch = features(self._processor, self._model, images)
        batch.update({name: row.expand(len(images), -1) for name, row in self._tokens.items()})
        return batch
