"""Operations and bytes of calls of a model on the meta device.

Operations are counted by torch's FlopCounterMode: two for each product and sum in matrix products, convolutions and
attention; the rest (norms, activations) is a hundredth of that. Bytes of a call: each weight once, in two bytes, and
what the call keeps for later tokens. Activations are not counted: a fused kernel need not write them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

BYTES = 2  # of a number in bfloat16


def flops_of(call: Callable[[], Any]) -> float:
    """The operations of a call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return float(counter.get_total_flops())


def bytes_of(*modules: Any) -> float:
    """The bytes of all weights of modules; a weight that two of them share counts once."""
    weights = {id(one): one.numel() for module in modules for one in module.parameters()}
    return float(sum(weights.values()) * BYTES)


def token_flops(*modules: Any) -> float:
    """The operations of one token in the linear layers of modules: two for each weight. Attention comes on top."""
    linear = {id(one): one for module in modules for one in module.modules() if isinstance(one, torch.nn.Linear)}
    return float(sum(2 * one.weight.numel() for one in linear.values()))


def patches_flops(visual: Any, height: int, width: int) -> float:
    """The operations of Qwen3-VL's image encoder for height × width patches, of which four become one token.

    Its own code reads the image's size from a tensor, which the meta device cannot.
    """
    patches, blocks = height * width, visual.blocks
    tokens = patches // 4
    linear = token_flops(blocks) * patches + token_flops(visual.merger, visual.deepstack_merger_list) * tokens
    attention = 4.0 * len(blocks) * visual.config.hidden_size * patches**2
    return float(linear + attention + 2.0 * visual.patch_embed.proj.weight.numel() * patches)


def attention_flops(config: Any, tokens: int, context: float) -> float:
    """Operations of attention alone, of `tokens` new tokens to `context` earlier ones, in all layers of a decoder."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return float(4 * config.num_hidden_layers * heads * width * tokens * context)


def cache_bytes(config: Any, tokens: float) -> float:
    """Bytes of the keys and values of that many tokens, in all layers of a decoder."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return float(2 * config.num_hidden_layers * heads * width * tokens * BYTES)
