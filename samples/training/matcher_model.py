"""The matcher's model: an open_clip CLIP of six million weights, how it scores, and how it is saved."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from open_clip import SimpleTokenizer
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor

from samples.training.matcher_crops import SIDE

CONTEXT = 40  # tokens
MODEL = {
    "embed_dim": 128,
    "init_logit_scale": 2.3026,  # log 10, as SigLIP starts
    "init_logit_bias": -5.0,
    "vision_cfg": {
        "image_size": SIDE,
        "patch_size": 16,
        "width": 192,
        "layers": 6,
        "head_width": 64,
        "pool_type": "avg",
    },
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}

Array = np.typing.NDArray[np.float32]


@functools.cache
def tokenizer() -> SimpleTokenizer:
    """open_clip's default BPE, which is part of its package."""
    return SimpleTokenizer(context_length=CONTEXT)


def build_model() -> CLIP:
    """The model with random weights."""
    return CLIP(**MODEL)


def to_tensor(pixels: Sequence[np.typing.NDArray[np.uint8]]) -> Tensor:
    """Pixels of crops, each (SIDE, SIDE, 3) uint8, as the model's input: float32 (N, 3, SIDE, SIDE) in -1..1."""
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return batch.float().div_(127.5).sub_(1.0)


def encode_texts(model: CLIP, texts: Sequence[str]) -> Tensor:
    """Unit vectors of the texts, (N, embed_dim).

    The same as the model's encode_text, for a third of the time: its attention is causal and it reads the vector
    at the end token, so the padding after the longest text of the batch changes nothing.
    """
    tokens = tokenizer()(list(texts))
    length = int((tokens != 0).sum(dim=1).max())
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(tokens)), tokens.argmax(dim=1)]
    return torch.nn.functional.normalize(x @ model.text_projection, dim=-1)


def logits(model: CLIP, pixels: Sequence[np.typing.NDArray[np.uint8]], texts: Sequence[str]) -> Tensor:
    """Log odds that a text is true of a crop, (crops, texts)."""
    images = model.encode_image(to_tensor(pixels), normalize=True)
    short = [i for i, text in enumerate(texts) if len(text) < 40]
    long = [i for i, text in enumerate(texts) if len(text) >= 40]
    words = torch.cat([encode_texts(model, [texts[i] for i in part]) for part in (short, long) if part])
    words = words[torch.tensor(short + long).argsort()]
    answer: Tensor = images @ words.T * model.logit_scale.exp() + model.logit_bias
    return answer


@torch.no_grad()
def scores(model: CLIP, pixels: Sequence[np.typing.NDArray[np.uint8]], texts: Sequence[str]) -> Array:
    """Probability that a text is true of a crop, (crops, texts), computed 64 crops at a time."""
    model.eval()
    parts = [logits(model, pixels[i : i + 64], texts).sigmoid() for i in range(0, len(pixels), 64)]
    return torch.cat(parts).numpy() if parts else np.zeros((0, len(texts)), np.float32)


def save_model(model: CLIP, folder: Path) -> None:
    """Write what `open_clip.create_model_and_transforms("local-dir:FOLDER")` reads, weights in fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
