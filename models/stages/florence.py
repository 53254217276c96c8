"""A task of Florence-2. The tokens of its prompt are the same for all images, so they are made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from models.base import PLACEHOLDER_IMAGE
from models.devices import features


class FlorenceTask:
    """task: as the model card writes it, such as `<CAPTION>`. processor, model: transformers', of any size."""

    def __init__(self, processor: Any, model: Any, task: str) -> None:
        self._processor, self._model = processor.image_processor, model
        made = features(processor, model, [PLACEHOLDER_IMAGE], text=[task])
        self._tokens = {name: made[name] for name in ("input_ids", "attention_mask")}

    def inputs(self, images: Sequence[Image.Image]) -> Any:
        """The input of `generate` for the task on each image, a BatchFeature on the model's device."""
        made = features(self._processor, self._model, images)
        made.update({name: row.expand(len(images), -1) for name, row in self._tokens.items()})
        return made
