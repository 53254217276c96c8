"""The architectures of the vision models of `small` and `modern`, full-size or tiny, as folders without weights.

As `bench.models.architectures` for `paper`. Tokenizers are of bytes: what a token is does not change its cost, but for
prompts, which have some four times as many tokens as published ones; they are shortened for that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    Sam2ImageProcessor,
)

from bench.models.architectures import SCALES, write_detector
from bench.models.sizes import FLORENCE_BASE, qwen_vl_config, sam2_config

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
_TINY_CLIP: dict[str, Any] = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "token",
        "timm_proj": "none",
    },
    "text_cfg": {"context_length": 64, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1},
}


@dataclass(frozen=True)
class Sizes:
    """Which sizes a profile's models have. clip: a name of open_clip's; florence_base: of Florence-2."""

    qwen: str
    hiera: str
    clip: str
    florence_base: bool


SIZES = {
    "small": Sizes("2B", "tiny", "ViT-B-16-SigLIP2-256", florence_base=True),
    "modern": Sizes("8B", "large", "ViT-SO400M-16-SigLIP2-384", florence_base=False),
}
TEST = Sizes("test", "test", "", florence_base=False)


def write_vision_language(profile: str, scale: str, folder: Path) -> dict[str, Path]:
    """Configurations, tokenizers and image processors of a profile's models, each in a folder: by stage."""
    sizes = SIZES[profile] if scale == "full" else TEST
    folders = {name: folder / name for name in ("captioner", "detector", "segmenter", "matcher")}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    _write_qwen(sizes.qwen, folders["captioner"])
    changes = FLORENCE_BASE if sizes.florence_base else {}
    write_detector(SCALES[scale], folders["detector"], changes)
    side = 256 if sizes.hiera == "test" else 1024
    sam2_config(sizes.hiera).save_pretrained(folders["segmenter"])
    quarter = {"height": side // 4, "width": side // 4}
    Sam2ImageProcessor(size={"height": side, "width": side}, mask_size=quarter).save_pretrained(folders["segmenter"])
    config = open_clip.get_model_config(sizes.clip) if sizes.clip else _TINY_CLIP
    (folders["matcher"] / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {}}), encoding="utf-8"
    )
    (folders["matcher"] / "model.safetensors").touch()  # the stage checks that the file exists; it is not read
    # the captioner's model gives the second opinion too
    return folders | {"second_matcher": folders["captioner"]}


def _write_qwen(size: str, folder: Path) -> None:
    tokenizer = tokenizer_of_bytes(VISION)
    ids = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in VISION}
    config = qwen_vl_config(
        size,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    config.save_pretrained(folder)
    pixels = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    images = Qwen2VLImageProcessor(patch_size=16, size=pixels, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=CHAT).save_pretrained(folder)


def tokenizer_of_bytes(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes with Qwen's special tokens, and more of them."""
    words = [*SPECIAL, *more, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in (*SPECIAL, *more)])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=CHAT
    )
