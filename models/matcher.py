"""Matcher: the probability that a phrase is true of a crop.

Two back ends. `open_clip` loads any open_clip checkpoint; SigLIP's and the demo's answer
sigmoid(scale * cosine + bias), the probability they were trained for. `blip2` is BLIP-2's image-text matching
head, as in the Monkey paper: the softmax over its two classes, "does not match" and "matches".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import open_clip
import torch
from torch import Tensor
from transformers import Blip2ForImageTextRetrieval, Blip2Processor

from models.base import MatcherStage, Pair, Parameters, WeightsMissing
from models.devices import best_device, best_precision
from models.weights import locate
from strata.profiles import StageSettings

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class OpenClipParameters(Parameters):
    """An open_clip matcher's parameters in a profile.

    calibration: (scale, bias) for CLIP models, which have no bias of their own: their cosines were trained for
    ranking, so a probability needs a line fitted to the log odds of labelled pairs (Platt scaling). It is refused
    for models that bring their own bias.
    """

    calibration: tuple[float, float] | None = None


class OpenClipMatcher(MatcherStage):
    """An open_clip model: each crop and each phrase of a batch is encoded once, however many pairs name it."""

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = OpenClipParameters.model_validate(settings.parameters)
        self._device = best_device()

    def load(self) -> None:
        """Raises WeightsMissing, or ValueError if there is neither a bias nor a calibration, or both."""
        folder = locate(self.settings)
        require_file(folder, "open_clip_config.json")
        require_file(folder, "*.safetensors", "*.bin", "*.pt")  # open_clip would go on with random weights
        self._model, _, self._transform = open_clip.create_model_and_transforms(
            f"local-dir:{folder}", device=self._device
        )
        self._model.eval()
        self._tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self._scale, self._bias = self._line()

    def _line(self) -> tuple[float, float]:
        """Scale and bias that turn a cosine into log odds."""
        calibration, bias = self.parameters.calibration, self._model.logit_bias
        if bias is None and calibration is None:
            raise ValueError(f"matcher {self.settings.model} has no bias of its own: set its calibration")
        if bias is not None and calibration is not None:
            raise ValueError(f"matcher {self.settings.model} has a bias of its own: remove its calibration")
        return calibration or (self._model.logit_scale.exp().item(), bias.item())

    @torch.inference_mode()
    def compute(self, batch: Sequence[Pair]) -> list[float]:
        """One probability for each pair."""
        crops, crop_rows = distinct(batch, lambda pair: id(pair.crop), lambda pair: pair.crop)
        phrases, phrase_rows = distinct(batch, lambda pair: pair.phrase, lambda pair: pair.phrase)
        pixels = torch.stack([self._transform(crop.convert("RGB")) for crop in crops]).to(self._device)
        images = self._model.encode_image(pixels, normalize=True)
        texts = self._model.encode_text(self._tokenizer(phrases).to(self._device), normalize=True)
        cosines = (images[crop_rows] * texts[phrase_rows]).sum(dim=1)
        return probabilities(torch.sigmoid(self._scale * cosines + self._bias))


class Blip2Matcher(MatcherStage):
    """BLIP-2's image-text matching head (`Blip2ForImageTextRetrieval`), which reads crop and phrase together."""

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        Parameters.model_validate(settings.parameters)  # it takes none

    def load(self) -> None:
        """Raises WeightsMissing."""
        folder = locate(self.settings)
        require_file(folder, "config.json")
        require_file(folder, "*.safetensors", "*.bin")
        model: Any = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=best_precision())
        self._model = model.to(best_device()).eval()
        self._processor: Any = Blip2Processor.from_pretrained(folder)
        # the model cuts image tokens off the text only if its config names one; the processor must do as much
        queries = None if model.config.image_token_index is None else model.config.num_query_tokens
        self._processor.num_query_tokens = queries

    @torch.inference_mode()
    def compute(self, batch: Sequence[Pair]) -> list[float]:
        """One probability for each pair: the softmax of the head's two classes, meaned over its queries."""
        crops = [pair.crop.convert("RGB") for pair in batch]
        phrases = [pair.phrase for pair in batch]
        inputs = self._processor(images=crops, text=phrases, padding=True, truncation=True, return_tensors="pt").to(
            self._model.device, self._model.dtype
        )
        answer = self._model(**inputs, use_image_text_matching_head=True)
        return probabilities(answer.logits_per_image.float().softmax(dim=1)[:, 1])


def distinct(
    batch: Sequence[Pair], key: Callable[[Pair], Key], value: Callable[[Pair], Value]
) -> tuple[list[Value], list[int]]:
    """The different values of a batch in order of first sight, and for each pair the place of its value."""
    places: dict[Key, int] = {}
    values: list[Value] = []
    for pair in batch:
        if places.setdefault(key(pair), len(values)) == len(values):
            values.append(value(pair))
    return values, [places[key(pair)] for pair in batch]


def probabilities(scores: Tensor) -> list[float]:
    """The tensor as floats. Raises ArithmeticError on NaN: half precision overflowed, or the weights are broken."""
    values: list[float] = scores.tolist()
    if any(math.isnan(value) for value in values):
        raise ArithmeticError("the matcher's score is not a number")
    return values


def require_file(folder: Path, *patterns: str) -> None:
    """Raises WeightsMissing if no file of the folder has one of the names."""
    if not any(any(folder.glob(pattern)) for pattern in patterns):
        raise WeightsMissing(f"{folder} has no {' or '.join(patterns)}; get it with `strata models fetch`")


BACKENDS: dict[str, type[MatcherStage]] = {"open_clip": OpenClipMatcher, "blip2": Blip2Matcher}
