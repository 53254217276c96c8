"""An estimate of the GPU memory that a training needs, from its configuration, without the model's weights.

Parameters, gradients and AdamW's two moments are counted exactly, on a model without memory (PyTorch's meta device) in
which the same parts are frozen and have adapters as in the training. Sharded by FSDP2, each GPU holds 1/N of each
parameter's first dimension, rounded up; DeepSpeed's stages are counted as in ZeRO (Rajbhandari et al., arXiv
1910.02054, section 3): in bf16 2 bytes a parameter, 2 a gradient, and 12 for the float32 copy and the moments.

Activations are counted as in Korthikanti et al., arXiv 2205.05198, section 4: what the backward pass needs, per token.
Their sum for a GPT layer, s b h (34 + 5 a s / h) bytes, is taken apart here so that it fits other layers: a linear
layer whose weights are trained keeps its input; its output is kept by what follows (attention, activation function,
product with a gate); a normalisation keeps its input. The term 5 a s / h, the attention's probabilities, only occurs
with attn_implementation = "eager". With gradient checkpointing each layer keeps its input alone, and one layer is
there as a whole (section 5 there, full recomputation). Parts before the first trained weight keep nothing.

Not counted: CUDA's context (0.5 to 1 GiB), fragmentation, convolutional towers, what other programs use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from peft import get_peft_model
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.modeling_layers import GradientCheckpointingLayer

from training.config import Config, ConfigError
from training.inputs.collation import TEXT_SHARE
from training.parts import adapter_of, add_adapters, freeze, weight_type

Sharding = Literal["ddp", "fsdp2", "zero2", "zero3"]
SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)
GIB = 2**30
TEXT_TOKENS = 2048  # of a conversation, if the configuration does not limit them
STEP_BYTES = 4  # AdamW keeps the number of its steps for each tensor, in float32


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU. working: copies of weights in bf16, gathered layers, and buffers of gradients."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """The sum of all."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.working


@dataclass(frozen=True)
class Tokens:
    """The largest numbers of tokens in a sample: of the language model, and patches of images in the vision tower."""

    text: int
    patches: int


def model_without_memory(config: Config) -> nn.Module:
    """The model of a training on the meta device, with its frozen parts and adapters. Raises ConfigError."""
    table = config.model
    try:
        found = AutoConfig.from_pretrained(table.path, revision=table.revision)
        with torch.device("meta"):
            model: nn.Module = AutoModelForImageTextToText.from_config(found, dtype=weight_type(config))
    except (OSError, ValueError, ImportError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ConfigError(f"model.path: {table.path} cannot be loaded: {line}") from None
    return with_parts(model, config)


def with_parts(model: Any, config: Config) -> nn.Module:
    """Freeze a model's parts, and put adapters into it, as the trainer does. Raises ConfigError."""
    freeze(model, config.model.freeze)
    if config.lora is None:
        return model  # type: ignore[no-any-return]
    if config.lora.full:
        add_adapters(model, config.lora)
        return model  # type: ignore[no-any-return]
    return get_peft_model(model, adapter_of(model, config.lora))


def estimate_memory(model: nn.Module, config: Config, processes: int = 1, sharding: Sharding = "ddp") -> Estimate:
    """Estimate the memory of one GPU. model: that of `model_without_memory`; processes: the number of GPUs."""
    values = list(model.parameters())
    trained = [value for value in values if value.requires_grad]
    activations = activation_bytes(model, config)
    if sharding in ("zero2", "zero3"):
        held = _zero(values, trained, config, processes, sharding)
        gathered = _largest_layer(model) if sharding == "zero3" else 0
        return Estimate(*held, activations, gathered + _head_bytes(model, config))
    shards = processes if sharding == "fsdp2" else 1
    gradients = sum(_shard_bytes(value, shards, sharding) for value in trained)
    parameters = sum(_shard_bytes(value, shards, sharding) for value in values)
    optimizer = 2 * gradients + STEP_BYTES * len(trained)
    if sharding == "fsdp2":
        working = _largest_layer(model)
    else:
        # DDP sums gradients in buckets beside them
        working = _casts(model, config) + (gradients if processes > 1 else 0)
    return Estimate(parameters, gradients, optimizer, activations, working + _head_bytes(model, config))


def _shard_bytes(value: nn.Parameter, shards: int, sharding: Sharding) -> int:
    """Bytes of the first GPU's part of a parameter. For FSDP2, accelerate converts what is trained to float32."""
    rows = -(-value.shape[0] // shards) if value.dim() else 1
    size = 4 if sharding == "fsdp2" and value.requires_grad else value.element_size()
    return rows * (value.numel() // value.shape[0] if value.dim() else 1) * size


def _zero(
    values: list[nn.Parameter], trained: list[nn.Parameter], config: Config, processes: int, sharding: Sharding
) -> tuple[int, int, int]:
    """Parameters, gradients, and the optimizer with its float32 copy, by DeepSpeed's stages 2 and 3."""
    size = 2 if config.precision == "bf16" else 4
    every, learnt = (sum(value.numel() for value in of) for of in (values, trained))
    parameters = size * every if sharding == "zero2" else -(-size * every // processes)
    return parameters, -(-size * learnt // processes), -(-12 * learnt // processes)


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, one) for name, one in model.named_modules() if isinstance(one, GradientCheckpointingLayer)]


def _largest_layer(model: nn.Module) -> int:
    """Two gathered layers in bf16 (the second is fetched ahead), or the largest of what lies outside of layers."""
    sizes = [sum(value.numel() for value in layer.parameters()) for _, layer in _layers(model)]
    within = {id(value) for _, layer in _layers(model) for value in layer.parameters()}
    rest = sum(value.numel() for value in model.parameters() if id(value) not in within)
    return 2 * (2 * max(sizes, default=0) + rest)


def _casts(model: nn.Module, config: Config) -> int:
    """Autocast's copies in bf16 of the weights in float32 of linear layers."""
    if config.precision != "bf16":
        return 0
    weights: list[torch.Tensor] = [one.weight for one in model.modules() if isinstance(one, nn.Linear)]
    return sum(2 * weight.numel() for weight in weights if weight.element_size() == 4)


def _head_bytes(model: Any, config: Config) -> int:
    """TRL's loss never holds all logits; its backward pass has a float32 gradient of the head and of its input."""
    head = model.get_output_embeddings()
    if head is None:
        return 0
    tokens = config.optimizer.batch_size * tokens_of(model, config).text
    weights = head.weight.numel() if head.weight.requires_grad else 0
    return int(4 * (weights + tokens * head.in_features))


def tokens_of(model: Any, config: Config) -> Tokens:
    """The largest numbers of tokens of a sample, from `longest`, `max_pixels` and the windows."""
    vision = getattr(model.config, "vision_config", None)
    text = config.longest or min(TEXT_TOKENS, getattr(model.config.get_text_config(), "max_position_embeddings", 2048))
    views = config.windows.across**2 + 1 if config.windows else 1
    # some families give height and width
    patch, side = (_first(getattr(vision, name, None)) for name in ("patch_size", "image_size"))
    merge = getattr(vision, "spatial_merge_size", None)
    if not patch or not (merge or side):
        return Tokens(text, 0)
    if merge is None:
        # every image is resized to one size
        return Tokens(text, views * ((side // patch) ** 2 + 1))
    tokens = int(text * (1 - TEXT_SHARE))
    if config.windows:
        tokens = min(tokens, views * (config.windows.side // (patch * merge)) ** 2)
    elif config.max_pixels:
        tokens = min(tokens, config.max_pixels // (patch * merge) ** 2)
    return Tokens(text, tokens * merge**2)


def _first(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size or 0)


def activation_bytes(model: Any, config: Config) -> int:
    """Bytes that the forward pass of one batch keeps for the backward pass."""
    layers = _layers(model)
    kept, of_layer = 0, dict.fromkeys((name for name, _ in layers), 0)
    # the bytes of each module go to the layer that it is in, or to the rest
    for name, size in _kept_bytes(model, config):
        parts = name.split(".")
        layer = next((path for end in range(len(parts), 0, -1) if (path := ".".join(parts[:end])) in of_layer), None)
        if layer is None:
            kept += size
        else:
            of_layer[layer] += size
    if not config.gradient_checkpointing:
        return kept + sum(of_layer.values())
    inputs = sum(_input_bytes(model, config, name, layer) for name, layer in layers if of_layer[name])
    return kept + inputs + max(of_layer.values(), default=0)


def _input_bytes(model: Any, config: Config, name: str, layer: nn.Module) -> int:
    """Bytes of a layer's input: as wide as its first normalisation."""
    widths = [one.weight.numel() for one in layer.modules() if _is_norm(one) and isinstance(one.weight, torch.Tensor)]
    width = widths[0] if widths else 0
    return int(_token_count(model, config, name) * width * next(layer.parameters()).element_size())


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Norm") and isinstance(getattr(module, "weight", None), nn.Parameter)


def _merge_of(model: Any) -> int:
    return getattr(getattr(model.config, "vision_config", None), "spatial_merge_size", None) or 1


def _token_count(model: Any, config: Config, name: str) -> int:
    """Tokens of a batch in a module."""
    tokens, merge = tokens_of(model, config), _merge_of(model)
    if "language_model" in name or "lm_head" in name:
        number = tokens.text
    else:
        number = tokens.patches // merge**2 if "merger" in name else tokens.patches
    return config.optimizer.batch_size * number


def _kept_bytes(model: Any, config: Config) -> Iterator[tuple[str, int]]:
    """The name of each module that keeps something, and how many bytes. Modules are declared in their order of use."""
    head, adapted = model.get_output_embeddings(), isinstance(model, nn.Module) and config.lora is not None
    flows = adapted and config.gradient_checkpointing  # the embeddings' output then gets a gradient
    modules, inputs = dict(model.named_modules()), set[tuple[str, int]]()
    for name, module in modules.items():
        flows = flows or any(value.requires_grad for value in module.parameters(recurse=False))
        if not flows:
            continue
        tokens, (path, _, leaf) = _token_count(model, config, name), name.rpartition(".")
        if isinstance(module, nn.Linear):
            elements = _linear_elements(modules, name, module, config, inputs, module is head)
            yield name, tokens * elements * _compute_size(module.weight, config)
        elif _is_norm(module):
            weight: Any = module.weight
            # of heads: as wide as the projection before
            before: Any = getattr(modules[path], leaf.replace("norm", "proj"), None) if path in modules else None
            width = before.out_features if leaf in ("q_norm", "k_norm") and before is not None else weight.numel()
            scaled = weight.requires_grad and not isinstance(module, nn.LayerNorm)
            yield name, tokens * width * (4 + (weight.element_size() if scaled else 0))
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            # patches do not overlap: the input has one kernel's area for each
            kernel = module.weight[0].numel() if module.weight.requires_grad else 0
            yield name, tokens * kernel * _compute_size(module.weight, config)
        elif config.model.attn_implementation == "eager" and type(module).__name__.endswith("Attention"):
            # probabilities in float32, and their copy in the type of the computation
            of_pair = 6 if config.precision == "bf16" else 4
            yield name, tokens * tokens // config.optimizer.batch_size * _heads(module) * of_pair


def _heads(attention: Any) -> int:
    found: Any = getattr(attention, "num_heads", None) or getattr(attention.config, "num_attention_heads", 1)
    return int(found)


def _compute_size(weight: torch.Tensor, config: Config) -> int:
    return 2 if config.precision == "bf16" else weight.element_size()


def _linear_elements(
    modules: dict[str, nn.Module],
    name: str,
    module: nn.Linear,
    config: Config,
    inputs: set[tuple[str, int]],
    is_head: bool,
) -> int:
    """Elements a token of a linear layer's input and output that are kept."""
    path, _, leaf = name.rpartition(".")
    if ".lora_" in name:
        return module.in_features
    # an adapter's own layers keep the input; the name is that of the layer around
    if leaf == "base_layer" and isinstance(modules.get(path), LoraLayer):
        path, _, leaf = path.rpartition(".")
    # autocast converts the input for each layer; else those beside each other share it
    shared = (path, module.in_features) in inputs and weight_type(config).itemsize == _compute_size(
        module.weight, config
    )
    inputs.add((path, module.in_features))
    after_attention = leaf in ("o_proj", "out_proj", "proj")
    of_input = module.in_features if (module.weight.requires_grad and not shared) or after_attention else 0
    # what goes to the sum of the residual is not kept; a gate's output is, before and after the activation function
    ends = after_attention or is_head or leaf in ("down_proj", "fc2", "linear_fc2", "linear_2")
    times = 0 if ends else 2 if leaf in ("gate_proj", "fc1", "linear_fc1") else 1
    return of_input + times * module.out_features


def launched_sharding() -> Sharding:
    """How `accelerate launch` spreads the training, by the variables that it sets."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return "zero3" if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3" else "zero2"
    return "fsdp2" if os.environ.get("ACCELERATE_USE_FSDP") == "true" else "ddp"


def line_of(estimate: Estimate) -> str:
    """An estimate as a line of text, in GiB; in MiB below one GiB."""
    unit, name = (GIB, "GiB") if estimate.total >= GIB else (GIB / 1024, "MiB")
    parts = ("parameters", "gradients", "optimizer", "activations", "working")
    figures = ", ".join(f"{part} {getattr(estimate, part) / unit:.1f}" for part in parts)
    return f"{estimate.total / unit:.1f} {name} ({figures})"


def estimate_lines(config: Config, processes: int) -> list[str]:
    """The estimates of a training on one GPU, and on several in each way of spreading it. Raises ConfigError."""
    model = model_without_memory(config)
    tokens = tokens_of(model, config)
    assumed = "" if config.longest else ", assumed because `longest` is not set"
    patches = (
        f"{tokens.patches} patches" if tokens.patches else "without the activations of its tower, which has no patches"
    )
    sample = f"batch {config.optimizer.batch_size}, {tokens.text} tokens a sample{assumed}, {patches}"
    lines = [f"estimated memory of each GPU; {sample}"]
    lines.append(f"one GPU: {line_of(estimate_memory(model, config))}")
    for sharding in SHARDINGS:
        lines.append(f"{processes} GPUs, {sharding}: {line_of(estimate_memory(model, config, processes, sharding))}")
    return lines


def start_lines(config: Config, processes: int, available: int) -> list[str]:
    """The estimate of the training that begins, and a warning if it exceeds the available bytes of a GPU."""
    found = estimate_memory(model_without_memory(config), config, processes, launched_sharding())
    lines = [f"estimated memory of each GPU: {line_of(found)} of {available / GIB:.1f} GiB"]
    if found.total > available:
        lines.append(
            "warning: this probably does not fit: see `strata train CONFIG --estimate`, and docs/how-to/train.md"
        )
    return lines
