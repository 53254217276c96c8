"""EfficientNet-Lite with ImageNet's 1000 classes: the tagger of whole images, and a matcher that judges kinds.

The weights are Google's EfficientNet-Lite2 (Apache-2.0). Every image and crop is resized to one square, whatever its
shape: a centre crop, as in the evaluation of such models, would cut off what a long box holds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from models.base import MatcherStage, Stage
from models.devices import best_device
from models.items import Pair
from models.kinds.coco import CLASSES, kind_of
from models.shared import shared_model
from models.stages.efficientnet import EfficientNetLite2
from models.weights.cache import require_file
from strata.core import ImageNetTaggerParameters, Parameters, StageSettings
from strata.core.layers import Tag

SIDE = 260  # pixels: the resolution that EfficientNet-Lite2 was trained for


class Classifier:
    """The network. Its probabilities are the softmax over the 1000 classes, in float32."""

    def __init__(self, settings: StageSettings) -> None:
        """Load the weights, or share them with the stages of this process that have them.

        Raises WeightsMissing, and ValueError unless they are those of the architecture.
        """
        # no `turn`: the network keeps nothing of a call
        self._shared = shared_model(settings, _load)
        self._model: EfficientNetLite2 = self._shared.model

    @staticmethod
    def pixels(images: Sequence[Image.Image]) -> Tensor:
        """Images of any size: float (images, 3, 260, 260), -1 to 1."""
        resized = [image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images]
        whole = torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2)
        return whole.to(best_device()).float() / 127.5 - 1

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """The probability of each class, a mean over the picture and its mirror image: (images, 1000).

        Raises ArithmeticError on NaN, from broken weights.
        """
        both: Tensor = self._model(torch.cat([pixels, pixels.flip(3)])).softmax(dim=1)
        found = (both[: len(pixels)] + both[len(pixels) :]) / 2
        if found.isnan().any():
            raise ArithmeticError("the classifier's probability is not a number (NaN)")
        return found

    @torch.inference_mode()
    def vectors(self, pixels: Tensor) -> Tensor:
        """What the classes are computed from, a mean over the picture and its mirror image: (images, 1280)."""
        both: Tensor = self._model.vectors(torch.cat([pixels, pixels.flip(3)]))
        return (both[: len(pixels)] + both[len(pixels) :]) / 2


def _load(folder: Path) -> EfficientNetLite2:
    """The network of a folder, on the best device. Raises WeightsMissing and ValueError."""
    require_file(folder, "model.safetensors")
    model = EfficientNetLite2()
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} holds no weights of EfficientNet-Lite2: {reason}") from error
    return model.eval().to(best_device())


class ImageNetTagger(Stage[Image.Image, list[Tag]]):
    """Tags are the first words of ImageNet's classes, such as "Egyptian cat"."""

    name: ClassVar[str] = "tagger"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = ImageNetTaggerParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Raises WeightsMissing and ValueError."""
        self._classifier = Classifier(self.settings)
        self._words = class_words()

    def prepare(self, batch: Sequence[Image.Image]) -> Tensor:
        """The images' pixels."""
        return Classifier.pixels(batch)

    def compute(self, batch: Tensor) -> list[list[Tag]]:
        """The classes of each image that are probable enough, the most probable first."""
        best = self._classifier.probabilities(batch).topk(self.parameters.max_tags, dim=1)
        rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [
            [
                Tag(word=self._words[index], score=min(score, 1.0))
                for score, index in zip(*row, strict=True)
                if score >= self.parameters.threshold
            ]
            for row in rows
        ]


class KindMatcher(MatcherStage):
    """The probability that a crop belongs to one of the ImageNet classes that support the phrase's kind.

    None for a phrase that names no kind of COCO, or one for which ImageNet has no class, such as a person: this matcher
    cannot judge it.
    """

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        Parameters.model_validate(settings.parameters)  # it has no parameters: refuses any

    def load(self) -> None:
        """Raises WeightsMissing and ValueError."""
        self._classifier = Classifier(self.settings)

    def prepare(self, batch: Sequence[Pair]) -> tuple[list[tuple[int, ...]], Tensor | None]:
        """The classes of each pair's kind, and the pixels of the crops that have any."""
        kinds = [kind_of(pair.phrase) for pair in batch]
        classes = [kind.classes if kind else () for kind in kinds]
        crops = [pair.crop for pair, own in zip(batch, classes, strict=True) if own]
        return classes, Classifier.pixels(crops) if crops else None

    def compute(self, batch: tuple[list[tuple[int, ...]], Tensor | None]) -> list[float | None]:
        """The probability of each pair, 0..1, or None."""
        classes, pixels = batch
        rows = iter(self._classifier.probabilities(pixels) if pixels is not None else ())
        return [min(1.0, float(next(rows)[list(own)].sum())) if own else None for own in classes]


def class_words() -> list[str]:
    """The first word of each ImageNet class, in their order: WordNet's first lemma."""
    words: list[str] = json.loads(CLASSES.read_text(encoding="utf-8"))["words"]
    return words
