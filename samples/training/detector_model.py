"""The demo detector's shape: a small RT-DETR v2 that starts from random weights, and how it is saved.

`transformers` initialises the class for weights that are about to be loaded over it (batch norm gains near zero,
linear layers at a hundredth), from which training makes hardly any progress; `build_model` initialises what follows the
backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import RTDetrImageProcessor, RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

from samples.sprites import COLOURED, COLOURS, PHRASES, PLAIN

SIZE = 128  # pixels; the square every image is resized to
WIDTH = 64
LEVELS = 3


def build_config() -> RTDetrV2Config:
    """The architecture, with one label per phrase of the demo world (`id2label[i] == PHRASES[i]`)."""
    # a small ResNet whose last three stages are used
    backbone = RTDetrResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128, 192], depths=[1, 1, 2, 1], layer_type="basic"
    )
    backbone.set_output_features_output_indices(out_indices=[2, 3, 4], out_features=None)
    return RTDetrV2Config(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        d_model=WIDTH,
        encoder_hidden_dim=WIDTH,
        encoder_in_channels=[64, 128, 192],
        encoder_ffn_dim=2 * WIDTH,
        encoder_attention_heads=4,
        decoder_in_channels=[WIDTH] * LEVELS,
        decoder_ffn_dim=4 * WIDTH,
        decoder_layers=3,
        decoder_attention_heads=4,
        num_queries=30,
        num_denoising=16,
        id2label=dict(enumerate(PHRASES)),
        label2id={phrase: index for index, phrase in enumerate(PHRASES)},
    )


def build_model(seed: int) -> RTDetrV2ForObjectDetection:
    """A detector with random weights from `seed`, its class heads factored into nouns and colours."""
    torch.manual_seed(seed)
    model = RTDetrV2ForObjectDetection(build_config())
    # the library's initialisation is too small for training from random weights
    inner = model.model
    for part in (inner.encoder_input_proj, inner.encoder, inner.enc_output, inner.decoder_input_proj):
        part.apply(_reset)
    for layer in inner.decoder.layers:
        for block in (layer.self_attn, layer.mlp):
            block.apply(_reset)
    for head in (inner.decoder.query_pos_head, inner.enc_bbox_head, *inner.decoder.bbox_embed):
        head.apply(_reset)
    for head in (inner.enc_bbox_head, *inner.decoder.bbox_embed):
        nn.init.zeros_(head.layers[-1].weight)  # boxes are at their anchors at first
        nn.init.zeros_(head.layers[-1].bias)
    # one module instead of two that share tensors, so that factoring one factors both
    model.class_embed = inner.decoder.class_embed
    model.bbox_embed = inner.decoder.bbox_embed
    for head in class_heads(model):
        parametrize.register_parametrization(head, "weight", _NounPlusColour(_phrase_parts()))
    return model


def class_heads(model: RTDetrV2ForObjectDetection) -> list[nn.Linear]:
    """The encoder's class head, then the decoder layers'."""
    return [model.model.enc_score_head, *model.model.decoder.class_embed]


def encode(model: RTDetrV2ForObjectDetection, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The model's first half only: logits (batch, cells, phrases) and boxes (batch, cells, 4) of the encoder.

    Follows `RTDetrV2Model.forward` of transformers 5.23 up to the choice of the queries, for unpadded images.
    """
    inner: Any = model.model
    # backbone and encoder: maps at strides 8, 16 and 32
    levels = [level for level, _ in inner.backbone(pixels, torch.ones(len(pixels), *pixels.shape[-2:]))]
    maps = [project(level) for project, level in zip(inner.encoder_input_proj, levels, strict=True)]
    maps = inner.encoder(maps).last_hidden_state
    maps = [project(level) for project, level in zip(inner.decoder_input_proj, maps, strict=True)]
    # one prediction per cell; boxes are offsets to anchors, before the sigmoid
    anchors, valid = inner.generate_anchors(tuple(tuple(level.shape[-2:]) for level in maps))
    memory = inner.enc_output(valid * torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1))
    return inner.enc_score_head(memory), (inner.enc_bbox_head(memory) + anchors).sigmoid()


def copy_encoder_head(model: RTDetrV2ForObjectDetection) -> None:
    """Start the decoder's class heads from the encoder's, whose cells become the decoder's queries."""
    first, *others = class_heads(model)
    for head in others:
        head.load_state_dict(first.state_dict())


def save(model: RTDetrV2ForObjectDetection, folder: Path) -> None:
    """Write the model, its factored heads multiplied out, as fp16 safetensors with its image processor."""
    # a model without factored heads, which the library can load
    plain = RTDetrV2ForObjectDetection(build_config())
    plain.load_state_dict(_multiplied_out(model))
    plain.half().save_pretrained(folder)
    config = build_config()
    config.architectures = [type(plain).__name__]
    config.dtype = torch.float32  # float16 is only for storage: several CPU kernels do not support it
    config.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)


def _multiplied_out(model: RTDetrV2ForObjectDetection) -> dict[str, Tensor]:
    """The state of the same model without factored heads.

    Not by `remove_parametrizations` on a copy, for copies share the class that it takes the weight away from.
    """
    state = {name: value for name, value in model.state_dict().items() if ".parametrizations." not in name}
    for name, module in model.named_modules(remove_duplicate=False):
        if parametrize.is_parametrized(module, "weight"):
            state[f"{name}.weight"] = module.weight.detach()
    return state


class _NounPlusColour(nn.Module):
    """Class weights as noun's plus colour's, so that "a red car" also learns from red hats and blue cars.

    A colour of a coloured noun is one of 48 phrases seen in under one object in a hundred.
    """

    parts: Tensor
    inverse: Tensor

    def __init__(self, parts: Tensor) -> None:
        super().__init__()
        self.register_buffer("parts", parts)
        self.register_buffer("inverse", torch.linalg.pinv(parts))

    def forward(self, weights: Tensor) -> Tensor:
        """(parts, width) to (phrases, width)."""
        return self.parts @ weights

    def right_inverse(self, weights: Tensor) -> Tensor:
        """(phrases, width) to the nearest (parts, width)."""
        return self.inverse @ weights


def _phrase_parts() -> Tensor:
    """0/1 matrix (phrases, nouns + colours): which parts each of PHRASES has, in its order."""
    # one row per phrase: its noun, and its colour or None
    nouns = [*(sprite.name for sprite in (*PLAIN, *COLOURED)), "sign"]
    colours = [None, *COLOURS]
    pairs: list[tuple[str, str | None]] = [(sprite.name, None) for sprite in PLAIN]
    pairs += [(sprite.name, colour) for sprite in COLOURED for colour in COLOURS]
    pairs.append(("sign", None))
    if len(pairs) != len(PHRASES):
        raise ValueError("PHRASES is no longer plain sprites, coloured sprites, sign")
    matrix = torch.zeros(len(PHRASES), len(nouns) + len(colours))
    for row, (noun, colour) in enumerate(pairs):
        matrix[row, nouns.index(noun)] = 1
        matrix[row, len(nouns) + colours.index(colour)] = 1
    return matrix


def _reset(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d | nn.LayerNorm):
        module.reset_parameters()
