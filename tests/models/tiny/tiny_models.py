"""Tiny random checkpoints of the classes that the profiles load, in the layout of the published ones.

The hub's files were written by transformers 4; `make` turns those of transformers 5 into their form. What the hub calls
the weights is in tests/data_files/hub-weights.json.

Random weights say the same of every image unless they are large, find no masks and name no regions: where a test needs
that they do, what decides it is set by hand, and the rest stays random.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from tokenizers import processors
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    BlipImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoModel,
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from bench.models.sizes import TINY_HIERA, TINY_ROPE, TINY_SAM2, TINY_TEXT, TINY_VISION
from bench.models.vision_language import CHAT, SPECIAL, VISION, tokenizer_of_bytes
from samples.training.tokenizer import build_processor

TEXTS = ("A red car and an owl on a white background.", "The owl is to the left of the red car.")


def blip2_captioner(folder: Path, answer: str = "") -> None:
    """BLIP-2 with OPT. answer: as for Florence-2."""
    trained = build_processor(TEXTS, image_size=32, image_tokens=5).tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained.backend_tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>"
    )
    config = Blip2Config(
        vision_config={**_tower(1), "image_size": 32, "patch_size": 16, "initializer_range": 0.02},
        qformer_config={**_tower(1), "vocab_size": 8},
        text_config=OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        ),
        num_query_tokens=4,
        image_token_index=tokenizer.get_vocab()["<image>"],
    )
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    model = _loud(Blip2ForConditionalGeneration(config))
    if answer:
        _recite(model.language_model.model.decoder, [*tokenizer(answer, add_special_tokens=False).input_ids, 2], 4)
    model.half().save_pretrained(folder)
    Blip2Processor(images, tokenizer, num_query_tokens=4).save_pretrained(folder)


def blip2_matcher(folder: Path) -> None:
    """BLIP-2's image-text matching head, with probabilities on both sides of one half."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "car", "dog", "owl", "on", "the"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = Blip2Config(
        vision_config={**_tower(2), "image_size": 32, "patch_size": 16, "initializer_range": 0.02},
        qformer_config={
            **_tower(2),
            "vocab_size": len(words) + 1,
            "encoder_hidden_size": 16,
            "use_qformer_text_input": True,
        },
        num_query_tokens=4,
        image_text_hidden_size=8,
        image_token_index=None,
    )
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    _loud(Blip2ForImageTextRetrieval(config), 0.3).save_pretrained(folder)
    Blip2Processor(images, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)


def florence(folder: Path, answer: str = "") -> None:
    """Florence-2. If an answer is given, it generates this for every image."""
    plain: Any = build_processor([*TEXTS, "What regions are in the image?"], image_size=32, image_tokens=5)
    plain.tokenizer.add_tokens([f"<loc_{index}>" for index in range(1000)])
    config = Florence2Config(
        vision_config={
            "depths": [1, 1],
            "embed_dim": [8, 16],
            "num_heads": [1, 2],
            "num_groups": [1, 2],
            "patch_size": [7, 3],
            "patch_stride": [4, 4],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "window_size": 4,
            "projection_dim": 16,
            "max_position_embeddings": 8,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(plain.tokenizer),
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "max_position_embeddings": 128,
        },
        image_token_id=plain.image_token_id,
    )
    model = _loud(Florence2ForConditionalGeneration(config))
    # as the published checkpoints have it
    published = {"early_stopping": True, "forced_eos_token_id": 2, "no_repeat_ngram_size": 3, "num_beams": 3}
    model.generation_config.update(**published, bos_token_id=0, pad_token_id=1, eos_token_id=2)
    _say(model, answer, plain.tokenizer, [2])
    model.half().save_pretrained(folder)
    rules: dict[str, Any] = {"pure_text": {}, "description_with_bboxes": {}}
    Florence2Processor(plain.image_processor, plain.tokenizer, post_processor_config=rules).save_pretrained(folder)


def sam(folder: Path, sure: float = 1.0) -> None:
    """SAM whose masks are blobs around its prompt points. sure: its quality estimate for each."""
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=16,
            output_channels=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=64,
            patch_size=4,
            mlp_dim=16,
            num_pos_feats=16,
            window_size=2,
            global_attn_indexes=[0],
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=32, image_size=64, patch_size=4),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=32, mlp_dim=16, num_attention_heads=1, iou_head_hidden_dim=16
        ),
    )
    model: Any = SamModel(config)
    _blots(model, sure)
    model.save_pretrained(folder)
    SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}).save_pretrained(folder)


def sam2(folder: Path, sure: float = 9.0) -> None:
    """SAM 2.1, saved with its video memory as the published ones are. sure: as for SAM, before a sigmoid."""
    backbone = TINY_HIERA | {"model_type": "sam2_hiera_det_model"}
    config = Sam2VideoConfig(
        vision_config=TINY_SAM2["vision"] | {"model_type": "sam2_vision_model", "backbone_config": backbone},
        prompt_encoder_config=TINY_SAM2["prompts"],
        mask_decoder_config=TINY_SAM2["masks"],
        image_size=256,
        memory_attention_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16,
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=8,
        mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=16,
    )
    model: Any = Sam2VideoModel(config)
    _blots(model, sure)
    model.save_pretrained(folder)
    Sam2ImageProcessor(size={"height": 256, "width": 256}, mask_size={"height": 64, "width": 64}).save_pretrained(
        folder
    )


def siglip2(folder: Path) -> None:
    """SigLIP 2 as open_clip keeps it: a tower of timm's, a tokenizer of transformers', a bias."""
    config: dict[str, Any] = {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 32,
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 64,
            "vocab_size": 300,
            "hf_tokenizer_name": "timm/ViT-SO400M-16-SigLIP2-384",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 32,
            "heads": 2,
            "layers": 1,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }
    model = CustomTextCLIP(**{name: value for name, value in config.items() if name != "custom_text"})
    with torch.no_grad():
        model.logit_scale.fill_(4.0)
        model.logit_bias.fill_(-4.6)  # a cosine of 0 is a probability of 0.01
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    ending(tokenizer_of_bytes()).save_pretrained(folder)


def openai_clip(folder: Path, *, width: int = 512, patch: int = 32, quick_gelu: bool = True) -> Path:
    """OpenAI's ViT-B/32 with one narrow layer, as open_clip loads it from the hub; ViT-L/14 with 768 and 14."""
    config: dict[str, Any] = {
        "embed_dim": width,
        "quick_gelu": quick_gelu,
        "vision_cfg": {"image_size": 224, "patch_size": patch, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def ending(tokenizer: PreTrainedTokenizerFast, template: str = "$A <|im_end|>") -> PreTrainedTokenizerFast:
    """A tokenizer that ends a text with its end token, as SigLIP's, or makes of it what another template says."""
    marks = [(word, index) for word, index in tokenizer.get_vocab().items() if word in SPECIAL]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    return tokenizer


def qwen3(folder: Path, answer: str = "") -> None:
    """Qwen3, a chat model of text. answer: as for Florence-2."""
    tokenizer = tokenizer_of_bytes()
    config = Qwen3Config(**_language(tokenizer))
    model = _loud(Qwen3ForCausalLM(config))
    _say(model, answer, tokenizer, tokenizer("assistant").input_ids)
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def qwen3_vl_2b(folder: Path, answer: str = "") -> None:
    """Qwen3-VL of 2 billion parameters, whose head is its embedding. answer: as for Florence-2."""
    qwen3_vl(folder, answer, tied=True)


def qwen3_vl(folder: Path, answer: str = "", tied: bool = False) -> None:
    """Qwen3-VL. answer: as for Florence-2. tied: whether its head is its embedding, as of the smaller ones."""
    tokenizer = tokenizer_of_bytes(VISION)
    ids = {mark: tokenizer.get_vocab()[mark] for mark in VISION}
    config = Qwen3VLConfig(
        vision_config=TINY_VISION,
        text_config=_language(tokenizer) | {"rope_parameters": TINY_ROPE, "tie_word_embeddings": tied},
        tie_word_embeddings=tied,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    model = _loud(Qwen3VLForConditionalGeneration(config), 0.3)
    _say(model, answer, tokenizer, tokenizer("assistant").input_ids)
    model.bfloat16().save_pretrained(folder)
    size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    images = Qwen2VLImageProcessor(patch_size=16, size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=CHAT).save_pretrained(folder)


def smollm2(folder: Path) -> None:
    """SmolLM2: a Llama whose head is its embedding, so that the file has one of them."""
    tokenizer = tokenizer_of_bytes()
    config = LlamaConfig(**_language(tokenizer) | {"tie_word_embeddings": True})
    _loud(LlamaForCausalLM(config)).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tower(layers: int) -> dict[str, int]:
    return {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2}


def _loud(model: Any, deviation: float = 0.5) -> Any:
    """Scale a model's weights so that its output depends on its input."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, deviation)
    return model


def _say(model: Any, answer: str, tokenizer: Any, before: Sequence[int]) -> None:
    """Let a model write an answer whatever it is asked; nothing for "". before: the tokens before its first one."""
    if not answer:
        return
    written = [*before, *tokenizer(answer, add_special_tokens=False).input_ids, 2]
    model.generation_config.sequence_bias = [[written[: end + 1], 1e4] for end in range(len(before), len(written))]
    model.generation_config.forced_bos_token_id = None


@torch.no_grad()
def _recite(decoder: Any, written: Sequence[int], images: int) -> None:
    """Let an OPT decoder write these tokens after its image tokens and one more: each follows from the position alone.

    BLIP-2's language model reads no generation config of the checkpoint, which `_say` needs.
    """
    for layer in decoder.layers:
        for projection in (layer.self_attn.out_proj, layer.fc2):
            projection.weight.zero_()
            projection.bias.zero_()
    tokens = decoder.embed_tokens.weight
    tokens -= tokens.mean(dim=1, keepdim=True)
    tokens /= tokens.norm(dim=1, keepdim=True)
    for place, token in enumerate(written):
        decoder.embed_positions.weight[decoder.embed_positions.offset + images + place] = 50 * tokens[token]


def _language(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return TINY_TEXT | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }


@torch.no_grad()
def _blots(model: Any, sure: float) -> None:
    """Make masks that surround the point asked about: image tokens attend to the point's token by nearness.

    All that the decoder could say otherwise is nil; sure: its estimate of each mask, before any sigmoid.
    """
    prompts, decoder = model.prompt_encoder, model.mask_decoder
    for name, parameter in decoder.named_parameters():
        parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("positional_embedding") and tensor.shape[0] == 2:
            tensor.copy_(0.8 * torch.randn(2, tensor.shape[1], generator=torch.Generator().manual_seed(0)))
    points = prompts.point_embed if isinstance(prompts.point_embed, torch.nn.ModuleList) else [prompts.point_embed]
    for embedding in (*points, prompts.not_a_point_embed, prompts.no_mask_embed):
        embedding.weight.zero_()
    for embedding in (decoder.iou_token, decoder.mask_tokens, getattr(decoder, "obj_score_token", decoder.iou_token)):
        embedding.weight[:, 0] = 10  # channel 0 marks tokens that are not points
    first, second = decoder.transformer.layers
    keep, look = first.self_attn, second.cross_attn_image_to_token
    first.layer_norm4.weight.fill_(0.1)  # reduces the influence of the image
    width = keep.q_proj.weight.shape[0]
    apart = torch.eye(width)
    apart[0, 0] = 0
    keep.q_proj.weight.copy_(10 * apart)  # each token attends to itself
    for projection in (keep.k_proj, keep.v_proj, _output(keep)):
        projection.weight.copy_(torch.eye(width))
    half = width // 2
    for i in range(half // 2):  # sines and cosines of the same frequencies, without channel 0
        for projection in (look.q_proj, look.k_proj):
            projection.weight[i, i + 1] = projection.weight[half // 2 + i, half + i + 1] = 1
    look.v_proj.weight[0, 0] = -1
    _output(look).weight[0, 0], _output(look).weight[1, 0] = 10, -10
    decoder.upscale_conv1.weight[0, 0], decoder.upscale_conv1.weight[0, 1] = 1, -1
    decoder.upscale_conv2.weight[0, 0] = decoder.upscale_conv2.weight[1, 1] = 1
    decoder.iou_prediction_head.proj_out.bias.fill_(sure)
    for head in decoder.output_hypernetworks_mlps:
        head.proj_out.bias[0], head.proj_out.bias[1] = 1000, -1000


def _output(attention: Any) -> Any:
    return attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj


def make(maker: Callable[..., None], folder: Path, **arguments: Any) -> Path:
    """Make a checkpoint in a folder, with a fixed seed; return the folder.

    The same checkpoint is made once in a process and copied after that.
    """
    torch.set_num_threads(1)  # more threads are slower for models of this size
    shutil.copytree(_made(maker, tuple(sorted(arguments.items()))), folder, dirs_exist_ok=True)
    return folder


@functools.cache
def _made(maker: Callable[..., None], arguments: tuple[tuple[str, Any], ...]) -> Path:
    """The folder of a checkpoint that nobody changes."""
    folder = Path(tempfile.mkdtemp(dir=_kept().name))
    torch.manual_seed(0)
    maker(folder, **dict(arguments))
    _as_on_the_hub(folder)
    return folder


@functools.cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    """Where the checkpoints of this process are kept until it ends."""
    return tempfile.TemporaryDirectory(prefix="strata-tiny-")


def _as_on_the_hub(folder: Path) -> None:
    """Rewrite a folder's JSON files as transformers 4.57 writes them."""
    # processors of images and videos have files of their own
    processor = _read(folder / "processor_config.json")
    for part, name in (("image_processor", "preprocessor_config"), ("video_processor", "video_preprocessor_config")):
        if part in processor:
            own = {**processor.pop(part), "processor_class": processor["processor_class"]}
            (folder / f"{name}.json").write_text(json.dumps(own))
    # the newer processors had two classes each, and were saved as the faster one
    images = _read(folder / "preprocessor_config.json")
    if images.get("image_processor_type", "").startswith(("Sam2", "Qwen2VL")):
        images["image_processor_type"] += "Fast"
    # tokens of a model's own had names
    tokenizer = _read(folder / "tokenizer_config.json")
    if tokenizer.pop("backend", None):
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "image_token" in tokenizer:
        tokenizer["extra_special_tokens"] = {"image_token": tokenizer.pop("image_token")}
    files = {"preprocessor_config": images, "tokenizer_config": tokenizer, "processor_config": processor}
    for name, content in {**files, "config": _older(_read(folder / "config.json"))}.items():
        if content:
            (folder / f"{name}.json").write_text(json.dumps(content))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _older(config: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration as transformers 4 writes it: other names of the precision and of the rotation."""
    older = {name: _older(value) if isinstance(value, dict) else value for name, value in config.items()}
    if "transformers_version" in older:
        older["transformers_version"] = "4.57.1"
    if "dtype" in older:
        older["torch_dtype"] = older.pop("dtype")
    rotation = older.pop("rope_parameters", {})
    if rotation.get("rope_type") == "default":
        older["rope_theta"] = rotation.pop("rope_theta")
        older["rope_scaling"] = rotation if len(rotation) > 1 else None
    return older
