"""Matcher: the probability that a phrase describes a crop.

Two back ends. `open_clip` loads any open_clip checkpoint; for SigLIP's and the demo's the probability is
sigmoid(scale * cosine + bias), for which they were trained. `blip2` is BLIP-2's image-text matching head, as in the
Monkey paper (arXiv 2311.06607): the softmax over its two classes, "does not match" and "matches".

In float32 a pair's probability depends on its batch by at most 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

import open_clip
import torch
from open_clip.transform import ResizeKeepRatio
from torch import Tensor
from torch.nn.functional import normalize
from torchvision.transforms import Compose, Normalize, Resize, v2
from transformers import Blip2ForImageTextRetrieval, Blip2Processor

from models.base import MatcherStage, Pair, WeightsMissing
from models.devices import beside, best_device, best_precision, features, pixels, placed
from models.weights.cache import locate
from strata.core import OpenClipParameters, Parameters, StageSettings

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class _Encodable:
    """A batch for an open_clip model: its distinct crops and phrases, and for each pair the row of either.

    crops: (crops, 3, height, width); phrases: token ids (phrases, length).
    """

    crops: Tensor
    phrases: Tensor
    crop_rows: list[int]
    phrase_rows: list[int]


class OpenClipMatcher(MatcherStage):
    """An open_clip model: each crop and each phrase of a batch is encoded once, however many pairs have it.

    On a GPU the two encoders compute in half precision; cosines and probabilities are computed in float32.
    """

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = OpenClipParameters.model_validate(settings.parameters)
        self._device = best_device()

    def load(self) -> None:
        """Raises WeightsMissing, or ValueError if there is neither a bias nor a calibration, or both."""
        folder = locate(self.settings)
        require_file(folder, "open_clip_config.json")
        require_file(folder, "*.safetensors", "*.bin", "*.pt")  # without weights open_clip would use random ones
        self._model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=self._device)
        self._model.eval()
        self._resize, self._normalize = on_tensors(transform)
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

    def prepare(self, batch: Sequence[Pair]) -> _Encodable:
        """The distinct crops, resized on the device, and the distinct phrases."""
        crops, crop_rows = distinct(batch, lambda pair: id(pair.crop), lambda pair: pair.crop)
        phrases, phrase_rows = distinct(batch, lambda pair: pair.phrase, lambda pair: pair.phrase)
        with beside():
            resized = torch.stack([self._resize(crop) for crop in pixels(crops)])
            normal = self._normalize(resized.float() / 255)
            return _Encodable(normal, self._tokenizer(phrases).to(self._device), crop_rows, phrase_rows)

    @torch.inference_mode()
    def compute(self, batch: _Encodable) -> list[float]:
        """One probability for each pair."""
        precision = best_precision()
        with torch.autocast(self._device.type, precision, enabled=precision is not torch.float32):
            images, texts = self._model.encode_image(batch.crops), self._model.encode_text(batch.phrases)
        images, texts = normalize(images.float(), dim=-1), normalize(texts.float(), dim=-1)
        cosines = (images[batch.crop_rows] * texts[batch.phrase_rows]).sum(dim=1)
        return probabilities(torch.sigmoid(self._scale * cosines + self._bias))


class Blip2Matcher(MatcherStage):
    """BLIP-2's image-text matching head (`Blip2ForImageTextRetrieval`), which reads crop and phrase together."""

    name: ClassVar[str] = "matcher"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        Parameters.model_validate(settings.parameters)  # it has none

    def load(self) -> None:
        """Raises WeightsMissing."""
        folder = locate(self.settings)
        require_file(folder, "config.json")
        require_file(folder, "*.safetensors", "*.bin")
        self._model = placed(Blip2ForImageTextRetrieval, folder)
        self._processor: Any = Blip2Processor.from_pretrained(folder)
        # the model removes image tokens from the text only if its config has one; only then may the processor add them
        config = self._model.config
        queries = None if config.image_token_index is None else config.num_query_tokens
        self._processor.num_query_tokens = queries

    def prepare(self, batch: Sequence[Pair]) -> Any:
        """The pairs' features, as a BatchFeature."""
        phrases = [pair.phrase for pair in batch]
        crops = [pair.crop for pair in batch]
        return features(self._processor, self._model, crops, text=phrases, padding=True, truncation=True)

    @torch.inference_mode()
    def compute(self, batch: Any) -> list[float]:
        """One probability for each pair: the softmax of the head's two classes, averaged over its queries."""
        answer = self._model(**batch, use_image_text_matching_head=True)
        return probabilities(answer.logits_per_image.float().softmax(dim=1)[:, 1])


def distinct(
    batch: Sequence[Pair], key: Callable[[Pair], Key], value: Callable[[Pair], Value]
) -> tuple[list[Value], list[int]]:
    """The distinct values of a batch in order of first occurrence, and for each pair the index of its value."""
    indices: dict[Key, int] = {}
    values: list[Value] = []
    for pair in batch:
        if indices.setdefault(key(pair), len(values)) == len(values):
            values.append(value(pair))
    return values, [indices[key(pair)] for pair in batch]


def on_tensors(transform: Compose) -> tuple[Compose, Normalize]:
    """open_clip's image transform in two parts: up to uint8 tensors (3, height, width) of one size, and normalising.

    open_clip's own takes Pillow images; on a CPU torchvision's v2 resizes uint8 tensors with the same result.
    """
    *steps, last = transform.transforms
    return Compose([_on_tensors(step) for step in steps]), last


def _on_tensors(step: Any) -> Any:
    if isinstance(step, Resize):
        return v2.Resize(step.size, step.interpolation, step.max_size, step.antialias)
    return _KeepRatio(step) if isinstance(step, ResizeKeepRatio) else step


@dataclass(frozen=True)
class _KeepRatio:
    """open_clip's ResizeKeepRatio, which reads the size of a Pillow image, for tensors."""

    step: ResizeKeepRatio

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        size = self.step.get_params(SimpleNamespace(size=(width, height)), self.step.size, self.step.longest)
        resized: Tensor = v2.functional.resize(image, size, self.step.interpolation)
        return resized


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
