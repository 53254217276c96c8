"""The models of `paper`, `modern` and `small` without weights, on torch's meta device, in their published sizes.

The sizes are those of the hub's configurations at the profiles' revisions; no hub is asked. They are checked by what is
published beside them: the bytes of all parameters (`PUBLISHED`), which a wrong width, depth or vocabulary would change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Florence2ForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLForConditionalGeneration,
    Sam2Model,
    SamModel,
)

from bench.models.architectures import FULL, captioner_config, matcher_config, segmenter_config
from bench.models.sizes import QWEN_4B, florence_config, qwen_vl_config, sam2_config

# millions of parameters of the published checkpoints, by their byte counts (docs/how-to/real-models.md, the profiles);
# of SAM 2.1 without 7.55 of the memory for videos, which Sam2Model has not
PUBLISHED = {
    "Salesforce/blip2-opt-2.7b": 3744.8,
    "Salesforce/blip2-itm-vit-g": 1172.1,
    "florence-community/Florence-2-large": 776.8,
    "florence-community/Florence-2-base": 231.6,
    "facebook/sam-vit-huge": 641.1,
    "facebook/sam2.1-hiera-large": 216.9,
    "facebook/sam2.1-hiera-tiny": 31.4,
    "Qwen/Qwen3-VL-8B-Instruct": 8767.1,
    "Qwen/Qwen3-VL-2B-Instruct": 2127.5,
    "Qwen/Qwen3-4B-Instruct-2507": 4022.5,
}


def _open_clip(name: str) -> Any:
    import open_clip

    return open_clip.create_model(name, device="meta", load_weights=False)


MAKERS: dict[str, Callable[[], Any]] = {
    "Salesforce/blip2-opt-2.7b": lambda: Blip2ForConditionalGeneration(captioner_config(FULL)),
    "Salesforce/blip2-itm-vit-g": lambda: Blip2ForImageTextRetrieval(matcher_config(FULL)),
    "florence-community/Florence-2-large": lambda: Florence2ForConditionalGeneration(florence_config("large")),
    "florence-community/Florence-2-base": lambda: Florence2ForConditionalGeneration(florence_config("base")),
    "facebook/sam-vit-huge": lambda: SamModel(segmenter_config(FULL)),
    "facebook/sam2.1-hiera-large": lambda: Sam2Model(sam2_config("large")),
    "facebook/sam2.1-hiera-tiny": lambda: Sam2Model(sam2_config("tiny")),
    "timm/ViT-SO400M-16-SigLIP2-384": lambda: _open_clip("ViT-SO400M-16-SigLIP2-384"),
    "timm/ViT-B-16-SigLIP2-256": lambda: _open_clip("ViT-B-16-SigLIP2-256"),
    "Qwen/Qwen3-VL-8B-Instruct": lambda: Qwen3VLForConditionalGeneration(qwen_vl_config("8B")),
    "Qwen/Qwen3-VL-2B-Instruct": lambda: Qwen3VLForConditionalGeneration(qwen_vl_config("2B")),
    "Qwen/Qwen3-4B-Instruct-2507": lambda: Qwen3ForCausalLM(Qwen3Config(**QWEN_4B)),
}


def made(name: str) -> Any:
    """A model of the table on the meta device, which holds shapes and no numbers."""
    with torch.device("meta"):
        return MAKERS[name]().eval().requires_grad_(False)
