"""open_clip checkpoints: encoders of images and texts whose cosine measures how well an image and a text agree."""

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
from models.devices import best_device, best_precision, pixels, side_stream
from models.shared import shared_model
from models.weights.cache import locate, require_file
from strata.core import StageSettings

MOST_TOLD = 400  # characters of open_clip's list of names


class ClipEncoders:
    """The two encoders of an open_clip checkpoint (CLIP or SigLIP). On a GPU they compute in half precision.

    Stages of a process that name the same checkpoint have one model: a matcher, and both embeddings.

    scale: the factor of the cosines in the training loss. bias: SigLIP's loss adds it to the scaled cosine, and the sum
    is the log odds that image and text match; None for CLIP, whose loss ranks texts by a softmax.
    """

    def __init__(self, settings: StageSettings) -> None:
        """Load the checkpoint, or share it with the stages of this process that have it. Raises WeightsMissing."""
        folder = locate(settings)
        self._device = best_device()
        # no `turn`: unlike a model of transformers it keeps nothing of a call
        self._shared = shared_model(settings, _load)
        self.model, transform = self._shared.model
        self._resize, self._normalize = on_tensors(transform)
        self._tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.scale = float(self.model.logit_scale.exp().item())
        self.bias = None if self.model.logit_bias is None else float(self.model.logit_bias.item())
        if self.bias is not None and (fault := tokenizer_fault(self._tokenizer)):
            raise WeightsMissing(f"the tokenizer in {folder} is not that of a SigLIP model: {fault}")

    def pixels_of(self, images: Sequence[Image.Image]) -> Tensor:
        """Resize RGB images on the device and normalize them: float (images, 3, height, width)."""
        with side_stream():
            resized = torch.stack([self._resize(image) for image in pixels(images)])
            normal: Tensor = self._normalize(resized.float() / 255)
            return normal

    def tokens_of(self, texts: Sequence[str]) -> Tensor:
        """Tokenize texts: token ids on the device (texts, length)."""
        with side_stream():
            tokens: Tensor = self._tokenizer(texts).to(self._device)
            return tokens

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode the output of `pixels_of` to unit vectors in float32: (images, width)."""
        return self._unit(self.model.encode_image, pixels)

    @torch.inference_mode()
    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Encode the output of `tokens_of` to unit vectors in float32: (texts, width)."""
        return self._unit(self.model.encode_text, tokens)

    def _unit(self, encode: Any, batch: Tensor) -> Tensor:
        # the encoder in half precision, the norm in float32: cosines near one another must stay apart
        precision = best_precision()
        with torch.autocast(self._device.type, precision, enabled=precision is not torch.float32):
            vectors = encode(batch)
        return normalize(vectors.float(), dim=-1)


def _load(folder: Path) -> tuple[Any, Any]:
    """The model and the image transform of a folder, on the best device.

    Raises WeightsMissing if there are no weights, or if they do not fit the model.
    """
    # open_clip would use random weights, without an error, if the folder has none
    require_file(folder, "open_clip_config.json")
    require_file(folder, "*.safetensors", "*.bin", "*.pth")
    # open_clip loads strictly: a name that is missing or left over, or another shape, is a RuntimeError of many lines
    try:
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=best_device())
    except RuntimeError as error:
        if "state_dict" not in str(error):
            raise
        reason = " ".join(str(error).split())[:MOST_TOLD]
        raise WeightsMissing(f"the weights in {folder} do not fit their open_clip_config.json: {reason}") from error
    # the exception: a missing bias becomes 0, which no training ends at, and which makes every pair one of chance
    if model.logit_bias is not None and model.logit_bias.item() == 0:
        raise WeightsMissing(f"the weights in {folder} do not fit their open_clip_config.json: logit_bias is missing")
    return model.eval(), transform


def tokenizer_fault(tokenizer: Any) -> str:
    """What is wrong with the tokens of a SigLIP model, or "". tokenizer: open_clip's; only transformers' are judged.

    SigLIP and SigLIP 2 were trained on texts that have no begin token, end with the end token and are padded on the
    right (big_vision's preprocessing: tokenize with `add_eos`, then pad to 64). Tokenizers of the same vocabulary for
    other models (Gemma's has a begin token and no end token) load without an error, and give other probabilities.
    """
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        return ""
    short, long = (ids.tolist() for ids in tokenizer(["car", "car " * 500]))
    begin, end, pad = inner.bos_token_id, inner.eos_token_id, inner.pad_token_id
    text = short[: len(short) - next((i for i, token in enumerate(reversed(short)) if token != pad), 0)]
    if text[:1] == [pad]:
        return "a text is padded on the left"
    if end is None or end not in (short[len(text) :][:1] if end == pad else text[-1:]):
        return "a text does not end with the end token"
    if long[-1] != end:
        return "a text that is too long does not end with the end token"
    if begin is not None and begin not in (end, pad) and begin in text:
        return "a text begins with a begin token"
    return ""


def on_tensors(transform: Compose) -> tuple[Compose, Normalize]:
    """Divide open_clip's image transform into two parts for tensors: resizing to one size, and normalization.

    open_clip's transform takes Pillow images; torchvision's v2 resizes uint8 tensors (3, height, width), on a CPU with
    the same result.
    """
    # the last step normalizes; it runs once for the whole batch, after the images are stacked
    *steps, last = transform.transforms
    return Compose([_on_tensors(step) for step in steps]), last


def _on_tensors(step: Any) -> Any:
    if isinstance(step, Resize):
        return v2.Resize(step.size, step.interpolation, step.max_size, step.antialias)
    return _KeepRatio(step) if isinstance(step, ResizeKeepRatio) else step


@dataclass(frozen=True)
class _KeepRatio:
    """open_clip's ResizeKeepRatio for tensors. The original needs a Pillow image, whose attribute `size` it reads."""

    step: ResizeKeepRatio

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        size = self.step.get_params(SimpleNamespace(size=(width, height)), self.step.size, self.step.longest)
        resized: Tensor = v2.functional.resize(image, size, self.step.interpolation)
        return resized
