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
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2Model,
    Sam2VisionConfig,
    SamModel,
)

from bench.models.architectures import FULL, captioner_config, detector_config, matcher_config, segmenter_config

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
_FLORENCE_BASE: dict[str, Any] = {
    "vision_config": {
        "depths": [1, 1, 9, 1],
        "embed_dim": [128, 256, 512, 1024],
        "num_heads": [4, 8, 16, 32],
        "num_groups": [4, 8, 16, 32],
        "projection_dim": 768,
    },
    "text_config": {
        "d_model": 768,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072,
        "encoder_attention_heads": 12,
        "decoder_attention_heads": 12,
    },
}
_HIERA: dict[str, dict[str, Any]] = {
    "large": {
        "hidden_size": 144,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "window_size_per_stage": [8, 4, 16, 8],
        "global_attention_blocks": [23, 33, 43],
        "window_positional_embedding_background_size": [7, 7],
    },
    "tiny": {
        "hidden_size": 96,
        "num_attention_heads": 1,
        "blocks_per_stage": [1, 2, 7, 2],
        "embed_dim_per_stage": [96, 192, 384, 768],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 14, 7],
        "global_attention_blocks": [5, 7, 9],
        "window_positional_embedding_background_size": [7, 7],
    },
}
_QWEN_VL: dict[str, dict[str, Any]] = {
    "8B": {
        "text_config": {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
        },
        "vision_config": {
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "out_hidden_size": 4096,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        "tie_word_embeddings": False,
    },
    "2B": {
        "text_config": {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
        },
        "vision_config": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        "tie_word_embeddings": True,
    },
}
_QWEN_4B: dict[str, Any] = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


def _florence_large() -> Any:
    config: Any = detector_config(FULL)
    config.text_config.update({"vocab_size": 51328, "max_position_embeddings": 4096})
    return Florence2ForConditionalGeneration(config)


def _florence_base() -> Any:
    config = detector_config(FULL)
    for part, changes in _FLORENCE_BASE.items():
        getattr(config, part).update(changes)
    return Florence2ForConditionalGeneration(config)


def _sam2(size: str) -> Any:
    own = _HIERA[size]
    channels = own["embed_dim_per_stage"][::-1]
    vision = Sam2VisionConfig(backbone_config=Sam2HieraDetConfig(**own), backbone_channel_list=channels)
    return Sam2Model(Sam2Config(vision_config=vision))


def _qwen_vl(size: str) -> Any:
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(**_QWEN_VL[size]))


def _open_clip(name: str) -> Any:
    import open_clip

    return open_clip.create_model(name, device="meta", load_weights=False)


MAKERS: dict[str, Callable[[], Any]] = {
    "Salesforce/blip2-opt-2.7b": lambda: Blip2ForConditionalGeneration(captioner_config(FULL)),
    "Salesforce/blip2-itm-vit-g": lambda: Blip2ForImageTextRetrieval(matcher_config(FULL)),
    "florence-community/Florence-2-large": _florence_large,
    "florence-community/Florence-2-base": _florence_base,
    "facebook/sam-vit-huge": lambda: SamModel(segmenter_config(FULL)),
    "facebook/sam2.1-hiera-large": lambda: _sam2("large"),
    "facebook/sam2.1-hiera-tiny": lambda: _sam2("tiny"),
    "timm/ViT-SO400M-16-SigLIP2-384": lambda: _open_clip("ViT-SO400M-16-SigLIP2-384"),
    "timm/ViT-B-16-SigLIP2-256": lambda: _open_clip("ViT-B-16-SigLIP2-256"),
    "Qwen/Qwen3-VL-8B-Instruct": lambda: _qwen_vl("8B"),
    "Qwen/Qwen3-VL-2B-Instruct": lambda: _qwen_vl("2B"),
    "Qwen/Qwen3-4B-Instruct-2507": lambda: Qwen3ForCausalLM(Qwen3Config(**_QWEN_4B)),
}


def made(name: str) -> Any:
    """A model of the table on the meta device, which holds shapes and no numbers."""
    with torch.device("meta"):
        return MAKERS[name]().eval().requires_grad_(False)
