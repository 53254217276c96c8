"""Embeddings: a vector of length 1 for each image or text, whose cosine with another tells how alike the two are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from models.base import Stage
from models.stages.clip import ClipEncoders
from models.stages.features.columns import Columns
from models.stages.imagenet import Classifier
from strata.core import Parameters, StageSettings


class _Embedding(Stage[Any, Columns]):
    """Makes the column of its name."""

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        Parameters.model_validate(settings.parameters)  # it has no parameters: refuses any

    def _columns(self, vectors: Tensor) -> list[Columns]:
        """Raises ArithmeticError on NaN, as half precision or broken weights give it."""
        if vectors.isnan().any():
            raise ArithmeticError(f"the {self.name} is not a number")
        return [{self.name: vector} for vector in vectors.half().cpu().numpy()]


class OpenClipEmbedding(_Embedding):
    """The image tower of an open_clip checkpoint, such as a profile's matcher has."""

    name: ClassVar[str] = "embedding"

    def load(self) -> None:
        """Raises WeightsMissing."""
        self._encoders = ClipEncoders(self.settings)

    def prepare(self, batch: Sequence[Image.Image]) -> Tensor:
        """The images' pixels: (images, 3, height, width)."""
        return self._encoders.pixels_of(batch)

    @torch.inference_mode()
    def compute(self, batch: Tensor) -> list[Columns]:
        """The vector of each image."""
        return self._columns(self._encoders.encode_images(batch))


class OpenClipTextEmbedding(_Embedding):
    """The text tower of an open_clip checkpoint. What is longer than its context is cut there."""

    name: ClassVar[str] = "text_embedding"

    def load(self) -> None:
        """Raises WeightsMissing."""
        self._encoders = ClipEncoders(self.settings)

    def prepare(self, batch: Sequence[str]) -> Tensor:
        """The texts' tokens: (texts, length)."""
        return self._encoders.tokens_of(batch)

    @torch.inference_mode()
    def compute(self, batch: Tensor) -> list[Columns]:
        """The vector of each text."""
        return self._columns(self._encoders.encode_texts(batch))


class ImageNetEmbedding(_Embedding):
    """What EfficientNet-Lite2 computes before its classes: 1280 numbers, a mean over the picture and its mirror image.

    So a picture and its mirror image have the same vector.
    """

    name: ClassVar[str] = "embedding"

    def load(self) -> None:
        """Raises WeightsMissing and ValueError."""
        self._classifier = Classifier(self.settings)

    def prepare(self, batch: Sequence[Image.Image]) -> Tensor:
        """The images' pixels."""
        return Classifier.pixels(batch)

    @torch.inference_mode()
    def compute(self, batch: Tensor) -> list[Columns]:
        """The vector of each image."""
        return self._columns(normalize(self._classifier.vectors(batch), dim=-1))
