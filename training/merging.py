"""Adapters merged into the weights of a model that was trained whole in part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from transformers import PreTrainedModel

State = Mapping[str, torch.Tensor]


def merged(state: State, scales: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """The weights of the plain model: W + scale · B A for each adapted layer, under the name it had before.

    state: the whole model's, with `NAME.base_layer.weight`, `NAME.lora_A.default.weight` (rank × in) and
    `NAME.lora_B.default.weight` (out × rank). scales: alpha / rank of each adapted layer, by NAME.
    """
    plain = {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}
    for name, scale in scales.items():
        down, up = (state[f"{name}.lora_{side}.default.weight"].float() for side in "AB")
        weight = plain[f"{name}.weight"]
        plain[f"{name}.weight"] = (weight.float() + scale * (up @ down)).to(weight.dtype)
    return plain


def scales_of(model: nn.Module) -> dict[str, float]:
    """The scale of each adapted layer, by its name."""
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))
    return {name: float(layer.scaling["default"]) for name, layer in layers}


def save_merged(model: PreTrainedModel, state: State, folder: Path) -> None:
    """Save a model with the adapters of `state`, its whole state dict, merged; it loads as one that never had any."""
    plain = merged(state, scales_of(model))
    # the names of tied weights are those of the plain model too, as long as no tied module has an adapter
    model.save_pretrained(folder, state_dict=plain)
