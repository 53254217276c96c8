"""open_clip checkpoints: one model that encodes images and texts, so that their cosine says how well they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip.transform import ResizeKeepRatio
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from torchvision.transforms import Compose, Normalize, Resize, v2

from models.base import WeightsMissing
from models.devices import beside, best_device, best_precision, pixels
from models.weights.cache import locate
from strata.core import StageSettings


class ClipEncoders:
    """The two encoders of an open_clip checkpoint, any CLIP or SigLIP; on a GPU they compute in half precision.

    scale: the factor of cosines in the loss it was trained with. bias: added to them by SigLIP's loss, which makes the
    sum the log odds that image and text are a pair; None for CLIP, whose loss ranks texts by a softmax.
    """

    def __init__(self, settings: StageSettings) -> None:
        """Load the checkpoint. Raises WeightsMissing."""
        folder = locate(settings)
        require_file(folder, "open_clip_config.json")
        require_file(folder, "*.safetensors", "*.bin", "*.pt")  # without weights open_clip would use random ones
        self._device = best_device()
        self.model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=self._device)
        self.model.eval()
        self._resize, self._normalize = on_tensors(transform)
        self._tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.scale = float(self.model.logit_scale.exp().item())
        self.bias = None if self.model.logit_bias is None else float(self.model.logit_bias.item())

    def pixels_of(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images, resized on the device and normalized: (images, 3, height, width)."""
        with beside():
            resized = torch.stack([self._resize(image) for image in pixels(images)])
            normal: Tensor = self._normalize(resized.float() / 255)
            return normal

    def tokens_of(self, texts: Sequence[str]) -> Tensor:
        """Token ids on the device: (texts, length)."""
        with beside():
            tokens: Tensor = self._tokenizer(texts).to(self._device)
            return tokens

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """What `pixels_of` made as unit vectors in float32: (images, width)."""
        return self._unit(self.model.encode_image, pixels)

    @torch.inference_mode()
    def encode_texts(self, tokens: Tensor) -> Tensor:
        """What `tokens_of` made as unit vectors in float32: (texts, width)."""
        return self._unit(self.model.encode_text, tokens)

    def _unit(self, encode: Any, batch: Tensor) -> Tensor:
        precision = best_precision()
        with torch.autocast(self._device.type, precision, enabled=precision is not torch.float32):
            vectors = encode(batch)
        return normalize(vectors.float(), dim=-1)


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


def require_file(folder: Path, *patterns: str) -> None:
    """Raises WeightsMissing if no file of the folder has one of the names."""
    if not any(any(folder.glob(pattern)) for pattern in patterns):
        raise WeightsMissing(f"{folder} has no {' or '.join(patterns)}; get it with `strata models fetch`")
