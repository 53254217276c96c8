"""Tagger: words for the whole image, out of a list, by open_clip's zero-shot classification (arXiv 2103.00020).

Each word is put into a template and encoded once, when the model is loaded. A model with a bias, such as SigLIP's and
the demo's, scores a word by sigmoid(scale * cosine + bias), whatever the other words are; a model without one, such as
CLIP, by the softmax of scale * cosine over all words of the list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from models.base import Stage
from models.stages.clip import ClipEncoders
from strata.core.layers import Tag
from strata.core.parameters import OpenClipTaggerParameters
from strata.core.profiles import StageSettings

WORD_LISTS = {"coco-80": "68d553114835db421bce2d13e03e5af04fb850eec098a101ee1fe23cda21a095"}


class OpenClipTagger(Stage[Image.Image, list[Tag]]):
    """Any open_clip checkpoint. An image is encoded once, however many words there are."""

    name: ClassVar[str] = "tagger"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = OpenClipTaggerParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Raises WeightsMissing, and ValueError for a word list that is not the one that profiles mean."""
        self._words = self.parameters.words or words_of(self.parameters.word_list)
        self._encoders = ClipEncoders(self.settings)
        texts = [self.parameters.template.replace("{}", word) for word in self._words]
        size = self.settings.batch_size
        batches = [self._encoders.tokens_of(texts[i : i + size]) for i in range(0, len(texts), size)]
        self._texts = torch.cat([self._encoders.encode_texts(batch) for batch in batches])

    def prepare(self, batch: Sequence[Image.Image]) -> Tensor:
        """The images' pixels: (images, 3, height, width)."""
        return self._encoders.pixels_of(batch)

    @torch.inference_mode()
    def compute(self, batch: Tensor) -> list[list[Tag]]:
        """The best words of each image, the highest score first. Raises ArithmeticError on NaN, as half precision or
        broken weights give it.
        """
        logits = self._encoders.scale * self._encoders.encode_images(batch) @ self._texts.T
        bias = self._encoders.bias
        scores = logits.softmax(dim=1) if bias is None else torch.sigmoid(logits + bias)
        if scores.isnan().any():
            raise ArithmeticError("the tagger's score is not a number")
        best = scores.topk(min(self.parameters.max_tags, len(self._words)), dim=1)
        return [self._tags(*row) for row in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    def _tags(self, scores: Sequence[float], indices: Sequence[int]) -> list[Tag]:
        found = [(score, self._words[index]) for score, index in zip(scores, indices, strict=True)]
        return [Tag(word=word, score=min(score, 1.0)) for score, word in found if score >= self.parameters.threshold]


def words_of(name: str) -> list[str]:
    """The words of a list in this folder. Raises ValueError if the file has changed."""
    data = Path(__file__).with_name(f"{name}.txt").read_bytes()
    if hashlib.sha256(data).hexdigest() != WORD_LISTS[name]:
        raise ValueError(f"the word list {name!r} has changed: give another list a name of its own")
    return [line for line in data.decode().splitlines() if line and not line.startswith("#")]
