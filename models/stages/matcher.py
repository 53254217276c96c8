"""Matcher: the probability that a phrase describes a crop.

There are two back ends. `open_clip` loads any open_clip checkpoint; the probability is sigmoid(scale * cosine + bias),
for which SigLIP and the demo's model were trained. `blip2` is BLIP-2's image-text matching head, as in the Monkey paper
(arXiv 2311.06607): the softmax over its two classes, "does not match" and "matches".

In float32 the other pairs of a batch change a probability by at most 1e-4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from transformers import Blip2ForImageTextRetrieval, Blip2Processor

from models.base import MatcherStage
from models.devices import features, load_model
from models.items import Pair
from models.stages.clip import ClipEncoders
from models.weights.cache import locate, require_file
from strata.core import OpenClipParameters, Parameters, StageSettings

# LAVIS: lavis/processors/blip_processors.py, BlipCaptionProcessor; lavis/models/blip2_models/blip2.py, max_txt_len
_PUNCTUATION = re.compile(r"[.!\"()*#:;~]")
_MOST_WORDS, _MOST_TOKENS = 50, 32
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class _Encodable:
    """A batch for an open_clip model: its distinct crops and phrases, and for each pair the row of both.

    crops: (crops, 3, height, width); phrases: token ids (phrases, length).
    """

    crops: Tensor
    phrases: Tensor
    crop_rows: list[int]
    phrase_rows: list[int]


class OpenClipMatcher(MatcherStage):
    """An open_clip model. Each distinct crop and phrase of a batch is encoded once, even if several pairs contain it.

    On a GPU the two encoders compute in half precision; cosines and probabilities are computed in float32.
    """

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = OpenClipParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Load the weights. Raises WeightsMissing, and ValueError unless there is either a bias or a calibration."""
        self._encoders = ClipEncoders(self.settings)
        self._scale, self._bias = self._line()

    def _line(self) -> tuple[float, float]:
        """The scale and bias that turn a cosine into log odds."""
        # SigLIP was trained with a bias; for CLIP the profile must give a scale and a bias
        calibration, bias = self.parameters.calibration, self._encoders.bias
        if calibration is not None:
            if bias is not None:
                raise ValueError(f"matcher {self.settings.model} has a bias of its own: remove its calibration")
            return calibration
        if bias is None:
            raise ValueError(f"matcher {self.settings.model} has no bias of its own: set its calibration")
        return self._encoders.scale, bias

    def prepare(self, batch: Sequence[Pair]) -> _Encodable:
        """Encode the distinct crops as pixels and the distinct phrases as tokens, on the device."""
        # crops are compared by identity, phrases by their text
        crops, crop_rows = distinct(batch, lambda pair: id(pair.crop), lambda pair: pair.crop)
        phrases, phrase_rows = distinct(batch, lambda pair: pair.phrase, lambda pair: pair.phrase)
        encoders = self._encoders
        return _Encodable(encoders.pixels_of(crops), encoders.tokens_of(phrases), crop_rows, phrase_rows)

    @torch.inference_mode()
    def compute(self, batch: _Encodable) -> list[float | None]:
        """The probability of each pair, 0..1."""
        return probabilities(torch.sigmoid(self._scale * self._cosines(batch) + self._bias))

    def _cosines(self, batch: _Encodable) -> Tensor:
        # the vectors have unit length, so their dot product is the cosine
        images = self._encoders.encode_images(batch.crops)
        texts = self._encoders.encode_texts(batch.phrases)
        return (images[batch.crop_rows] * texts[batch.phrase_rows]).sum(dim=1)

    @torch.inference_mode()
    def cosines(self, pairs: Sequence[Pair]) -> list[float]:
        """The cosine of each pair, -1..1, in batches of the stage's size; for figures that are defined by cosines."""
        found: list[float] = []
        step = self.settings.batch_size
        for first in range(0, len(pairs), step):
            found += self._cosines(self.prepare(pairs[first : first + step])).tolist()
        return found


class Blip2Matcher(MatcherStage):
    """BLIP-2's image-text matching head (`Blip2ForImageTextRetrieval`), which encodes crop and phrase together."""

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        Parameters.model_validate(settings.parameters)  # it has no parameters: refuses any

    def load(self) -> None:
        """Load the weights. Raises WeightsMissing."""
        folder = locate(self.settings)
        require_file(folder, "config.json")
        require_file(folder, "*.safetensors", "*.bin")
        self._model = load_model(Blip2ForImageTextRetrieval, folder)
        self._processor: Any = Blip2Processor.from_pretrained(folder)
        # the processor may add image tokens to the text only if the model removes them: if its config names the token
        config = self._model.config
        queries = None if config.image_token_index is None else config.num_query_tokens
        self._processor.num_query_tokens = queries
        self._processor.tokenizer.model_max_length = _MOST_TOKENS

    def prepare(self, batch: Sequence[Pair]) -> Any:
        """Make the processor's output for the pairs, a BatchFeature."""
        phrases = [lavis_text(pair.phrase) for pair in batch]
        crops = [pair.crop for pair in batch]
        return features(self._processor, self._model, crops, text=phrases, padding=True, truncation=True)

    @torch.inference_mode()
    def compute(self, batch: Any) -> list[float | None]:
        """The probability of each pair: the softmax of the head's two logits, which are means over the queries."""
        answer = self._model(**batch, use_image_text_matching_head=True)
        return probabilities(answer.logits_per_image.float().softmax(dim=1)[:, 1])


def lavis_text(phrase: str) -> str:
    """A phrase as LAVIS prepares it for BLIP-2: without capitals, and without these marks."""
    words = _PUNCTUATION.sub(" ", phrase.lower()).split()
    return " ".join(words[:_MOST_WORDS])


def distinct(
    batch: Sequence[Pair], key: Callable[[Pair], Key], value: Callable[[Pair], Value]
) -> tuple[list[Value], list[int]]:
    """The distinct values of a batch in the order of their first occurrence, and the index of each pair's value."""
    indices: dict[Key, int] = {}
    values: list[Value] = []
    for pair in batch:
        if indices.setdefault(key(pair), len(values)) == len(values):
            values.append(value(pair))
    return values, [indices[key(pair)] for pair in batch]


def probabilities(scores: Tensor) -> list[float | None]:
    """The tensor as floats. Raises ArithmeticError on NaN, if half precision overflowed or the weights are broken."""
    values: list[float] = scores.tolist()
    if any(math.isnan(value) for value in values):
        raise ArithmeticError("the matcher's probability is not a number (NaN)")
    return list(values)
