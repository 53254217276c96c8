"""The published sizes of the models of `modern` and `small`, and tiny ones for tests, as configurations.

Those of `paper` are in `bench.models.architectures`. Sources: the hub's configurations at the profiles' revisions.
"""

from __future__ import annotations

from typing import Any

from transformers import Florence2Config, Qwen3VLConfig, Sam2Config, Sam2HieraDetConfig, Sam2VisionConfig

from bench.models.architectures import FULL, detector_config

FLORENCE_BASE: dict[str, Any] = {
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
FLORENCE_LARGE: dict[str, dict[str, Any]] = {"text_config": {"vocab_size": 51328, "max_position_embeddings": 4096}}
HIERA: dict[str, dict[str, Any]] = {
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
QWEN_VL: dict[str, dict[str, Any]] = {
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
QWEN_4B: dict[str, Any] = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
TINY_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 1024,
}
TINY_VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}
TINY_HIERA: dict[str, Any] = {
    "hidden_size": 8,
    "image_size": [256, 256],
    "num_attention_heads": 1,
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64],
    "num_attention_heads_per_stage": [1, 1, 1, 1],
    "window_size_per_stage": [8, 4, 4, 4],
    "global_attention_blocks": [3],
    "window_positional_embedding_background_size": [4, 4],
}


# of SAM 2 around TINY_HIERA
TINY_SAM2: dict[str, dict[str, Any]] = {
    "vision": {
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
        "fpn_hidden_size": 32,
    },
    "prompts": {"hidden_size": 32, "image_size": 256, "patch_size": 16},
    "masks": {"hidden_size": 32, "mlp_dim": 16, "num_attention_heads": 1, "iou_head_hidden_dim": 16},
}
TINY_ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]}


def florence_config(size: str) -> Florence2Config:
    """Florence-2, "large" or "base". The published large one has more positions than its texts need."""
    config: Any = detector_config(FULL)
    changes: dict[str, dict[str, Any]] = FLORENCE_BASE if size == "base" else FLORENCE_LARGE
    for part, values in changes.items():
        getattr(config, part).update(values)
    return config  # type: ignore[no-any-return]


def sam2_config(size: str) -> Sam2Config:
    """SAM 2.1 without its video memory: "large", "tiny" (both published), or "test"."""
    if size == "test":
        small = Sam2VisionConfig(backbone_config=Sam2HieraDetConfig(**TINY_HIERA), **TINY_SAM2["vision"])
        prompts, masks = TINY_SAM2["prompts"], TINY_SAM2["masks"]
        return Sam2Config(vision_config=small, prompt_encoder_config=prompts, mask_decoder_config=masks)
    own = HIERA[size]
    vision = Sam2VisionConfig(
        backbone_config=Sam2HieraDetConfig(**own), backbone_channel_list=own["embed_dim_per_stage"][::-1]
    )
    return Sam2Config(vision_config=vision)


def qwen_vl_config(size: str, **tokens: Any) -> Qwen3VLConfig:
    """Qwen3-VL: "8B", "2B" (both published), or "test". tokens: the ids of its special tokens."""
    if size == "test":
        text: dict[str, Any] = TINY_TEXT | {"rope_parameters": TINY_ROPE}
        return Qwen3VLConfig(text_config=text, vision_config=TINY_VISION, **tokens)
    return Qwen3VLConfig(**QWEN_VL[size], **tokens)
