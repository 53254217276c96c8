"""A vision-language model that trains on a CPU: FastVLM's class with a small ResNet and a small Qwen2.

FastVlmForConditionalGeneration (Vasu et al., arXiv 2412.13303) takes its vision tower from timm, where convolutional
networks, which train fastest on a CPU, are available. It has 64 image tokens and 2 M parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    GenerationConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    TimmWrapperConfig,
    TimmWrapperModel,
)

PATCH = 16  # side in pixels of the square that one image token covers
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE, PAD, USER, ASSISTANT, END = "<image>", "<pad>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'assistant' %}" + ASSISTANT + "{% generation %}"
    "{% for part in message.content %}{{ part.text }}{% endfor %}" + END + "{% endgeneration %}{% else %}" + USER + ""
    "{% for part in message.content %}{% if part.type == 'image' %}" + IMAGE + "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


def build_processor(texts: Iterable[str], side: int, vocabulary: int = 1200) -> LlavaProcessor:
    """Build a processor whose byte-level BPE is trained on `texts`. Images are resized to side × side pixels."""
    # the tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = [PAD, IMAGE, USER, ASSISTANT, END]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, extra_special_tokens={"image_token": IMAGE}
    )
    # the image processor
    images = CLIPImageProcessor(
        size={"height": side, "width": side},
        do_center_crop=False,
        image_mean=list(MEAN),
        image_std=list(STD),
        resample=3,
    )
    return LlavaProcessor(
        images, tokenizer, patch_size=PATCH, vision_feature_select_strategy="full", chat_template=CHAT_TEMPLATE
    )


def build_model(
    processor: LlavaProcessor, tower: TimmWrapperConfig, seed: int, width: int = 160, layers: int = 3
) -> FastVlmForConditionalGeneration:
    """Build a model for a tower's configuration, with random weights that the seed determines."""
    tokenizer = processor.tokenizer
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        num_key_value_heads=max(1, width // 32),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=width**-0.5,
        **ends,
    )
    config = FastVlmConfig(
        vision_config=tower, text_config=text, image_token_index=processor.image_token_id, tie_word_embeddings=True
    )
    torch.manual_seed(seed)
    model = FastVlmForConditionalGeneration(config)
    model.generation_config = GenerationConfig(do_sample=False, **ends)
    return model


def save_start(
    folder: Path, processor: LlavaProcessor, tower: TimmWrapperConfig | Path, seed: int, **shape: int
) -> None:
    """Write an untrained model and its processor. tower: a configuration, or the folder of a pre-trained tower."""
    if isinstance(tower, Path):
        trained = TimmWrapperModel.from_pretrained(tower)
        model = build_model(processor, trained.config, seed, **shape)
        model.model.vision_tower.load_state_dict(trained.state_dict())
    else:
        model = build_model(processor, tower, seed, **shape)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
