"""The architectures of the `paper` profile's vision models, full-size or tiny, as folders without weights.

The numbers are those of the published configurations (hub: Salesforce/blip2-opt-2.7b, Salesforce/blip2-itm-vit-g,
microsoft/Florence-2-large, facebook/sam-vit-huge); no hub is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2Processor,
    BlipImageProcessor,
    Florence2Config,
    Florence2Processor,
    PreTrainedTokenizerFast,
    SamConfig,
    SamImageProcessor,
)

from samples.training.tokenizer import build_processor

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a red blue dog car tree on the of with".split()
FLORENCE_TEXTS = ("A red car and an owl on a white background.", "Locate the objects in the image.")


@dataclass(frozen=True)
class Scale:
    """The sizes of the architectures: the full ones, or tiny ones for tests."""

    tower: dict[str, int]  # EVA ViT-g/14 of both BLIP-2 models
    qformer: dict[str, int]
    opt: dict[str, int]
    davit: dict[str, Any]
    bart: dict[str, int]
    sam: dict[str, Any]
    sam_side: int
    points_per_side: int
    florence_side: int
    vocabulary: tuple[int, int, int]  # OPT, BERT, Florence-2


FULL = Scale(
    tower={"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16},
    qformer={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    opt={
        "hidden_size": 2560,
        "word_embed_proj_dim": 2560,
        "ffn_dim": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    davit={
        "depths": [1, 1, 9, 1],
        "embed_dim": [256, 512, 1024, 2048],
        "num_heads": [8, 16, 32, 64],
        "num_groups": [8, 16, 32, 64],
        "projection_dim": 1024,
    },
    bart={
        "d_model": 1024,
        "encoder_layers": 12,
        "decoder_layers": 12,
        "encoder_ffn_dim": 4096,
        "decoder_ffn_dim": 4096,
        "encoder_attention_heads": 16,
        "decoder_attention_heads": 16,
    },
    sam={
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "mlp_dim": 5120,
        "global_attn_indexes": [7, 15, 23, 31],
    },
    sam_side=1024,
    points_per_side=32,
    florence_side=768,
    vocabulary=(50304, 30523, 51289),
)
TINY = Scale(
    tower={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    qformer={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    opt={
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "ffn_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    davit={
        "depths": [1, 1, 1, 1],
        "embed_dim": [8, 8, 16, 16],
        "num_heads": [1, 1, 2, 2],
        "num_groups": [1, 1, 2, 2],
        "projection_dim": 16,
    },
    bart={
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    },
    sam={
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_dim": 16,
        "global_attn_indexes": [1],
    },
    sam_side=256,
    points_per_side=8,
    florence_side=128,
    vocabulary=(1024, 40, 2048),
)
SCALES = {"full": FULL, "tiny": TINY}


def write_architectures(scale: Scale, folder: Path) -> dict[str, Path]:
    """Configurations, tokenizers and image processors of the four models, each in a folder: by stage."""
    writers: dict[str, Callable[[Scale, Path], None]] = {
        "captioner": _captioner,
        "detector": write_detector,
        "segmenter": _segmenter,
        "matcher": _matcher,
    }
    for stage, write in writers.items():
        (folder / stage).mkdir(parents=True, exist_ok=True)
        write(scale, folder / stage)
    return {stage: folder / stage for stage in writers}


def captioner_config(scale: Scale, image_token: int = 50265) -> Blip2Config:
    """BLIP-2 with OPT. image_token: its index; the published one by default."""
    return Blip2Config(
        vision_config={**scale.tower, "image_size": 224, "patch_size": 14, "qkv_bias": True},
        qformer_config={**scale.qformer, "encoder_hidden_size": scale.tower["hidden_size"]},
        text_config={
            **scale.opt,
            "model_type": "opt",
            "vocab_size": scale.vocabulary[0],
            "max_position_embeddings": 2048,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
        num_query_tokens=32,
        image_token_index=image_token,
    )


def _captioner(scale: Scale, folder: Path) -> None:
    # a small tokenizer is enough: the model's vocabulary has its full size
    trained = build_processor(FLORENCE_TEXTS, image_size=32, image_tokens=5).tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained.backend_tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>"
    )
    captioner_config(scale, tokenizer.get_vocab()["<image>"]).save_pretrained(folder)
    Blip2Processor(BlipImageProcessor(size=_square(224)), tokenizer, num_query_tokens=32).save_pretrained(folder)


def matcher_config(scale: Scale) -> Blip2Config:
    """BLIP-2's image-text matching."""
    return Blip2Config(
        vision_config={**scale.tower, "image_size": 224, "patch_size": 14, "qkv_bias": True},
        qformer_config={
            **scale.qformer,
            "vocab_size": scale.vocabulary[1],
            "encoder_hidden_size": scale.tower["hidden_size"],
            "use_qformer_text_input": True,
        },
        num_query_tokens=32,
        image_text_hidden_size=256,
        image_token_index=None,
    )


def _matcher(scale: Scale, folder: Path) -> None:
    # the same tower and Q-Former as the captioner's, with text input
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    matcher_config(scale).save_pretrained(folder)
    (folder / "model.safetensors").touch()  # the stage checks that the file exists; its content is not read
    processor = Blip2Processor(BlipImageProcessor(size=_square(224)), BertTokenizer(str(folder / "vocab.txt")))
    processor.save_pretrained(folder)


def detector_config(scale: Scale, words: int = 0, image_token: int = 51289) -> Florence2Config:
    """Florence-2. words: the least size of its vocabulary."""
    return Florence2Config(
        vision_config={
            **scale.davit,
            "patch_size": [7, 3, 3, 3],
            "patch_stride": [4, 2, 2, 2],
            "patch_padding": [3, 1, 1, 1],
            "patch_prenorm": [False, True, True, True],
            "window_size": 12,
            "max_position_embeddings": 50,
        },
        text_config={
            **scale.bart,
            "model_type": "bart",
            "vocab_size": max(scale.vocabulary[2], words),
            "max_position_embeddings": 1024,
        },
        image_token_id=image_token,
    )


def write_detector(scale: Scale, folder: Path, changes: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> None:
    """Florence-2. changes: of its configuration, by part."""
    # DaViT reduces the image by 32 per side; one more token is their mean
    tokens = (scale.florence_side // 32) ** 2 + 1
    plain: Any = build_processor(FLORENCE_TEXTS, image_size=scale.florence_side, image_tokens=tokens)
    plain.tokenizer.add_tokens([f"<loc_{index}>" for index in range(1000)])
    config: Any = detector_config(scale, len(plain.tokenizer), plain.image_token_id)
    for part, values in changes.items():
        getattr(config, part).update(dict(values))
    config.save_pretrained(folder)
    rules: dict[str, dict[str, str]] = {"pure_text": {}, "description_with_bboxes": {}}
    Florence2Processor(plain.image_processor, plain.tokenizer, post_processor_config=rules).save_pretrained(folder)


def segmenter_config(scale: Scale) -> SamConfig:
    """SAM."""
    side = scale.sam_side
    return SamConfig(
        vision_config={**scale.sam, "image_size": side, "patch_size": 16, "output_channels": 256, "window_size": 14},
        prompt_encoder_config={"image_size": side, "patch_size": 16},
    )


def _segmenter(scale: Scale, folder: Path) -> None:
    side = scale.sam_side
    segmenter_config(scale).save_pretrained(folder)
    SamImageProcessor(size={"longest_edge": side}, pad_size=_square(side)).save_pretrained(folder)


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}
