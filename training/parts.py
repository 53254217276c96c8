"""The parts of a model that are trained: which are frozen, at which rate each learns, where LoRA adapters lie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from training.config import Config, ConfigError, LoraTable

Group = dict[str, Any]
ADAPTED = (nn.Linear, nn.Embedding, nn.Conv2d, nn.Conv3d)  # the layers that PEFT has adapters for


def modules_named(model: nn.Module, name: str, setting: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules whose names end with `name`, with their names. Raises ConfigError if there is none."""
    found = [(path, module) for path, module in model.named_modules() if f".{path}".endswith(f".{name}")]
    if not found:
        raise ConfigError(f"{setting}: the model has no module {name!r}")
    return iter(found)


def weight_type(config: Config) -> torch.dtype:
    """The type of the base weights: bfloat16 with LoRA alone and precision bf16, otherwise float32."""
    only_adapters = config.lora is not None and not config.lora.full
    return torch.bfloat16 if only_adapters and config.precision == "bf16" else torch.float32


def name_present_layers(model: PreTrainedModel) -> None:
    """Remove from a model's layer classes that must not be split those that it does not have.

    FSDP2 shards by these classes, and accelerate refuses a name without a module: LLaVA-1.5 has the name of a layer of
    CLIP's text encoder.
    """
    present = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = {name for name in model._no_split_modules or () if name in present}


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Freeze the modules whose names end with one of `names`; return them. Raises ConfigError for an unknown name."""
    frozen = [module for name in names for _, module in modules_named(model, name, "model.freeze")]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def untrained_statistics(model: nn.Module) -> list[nn.Module]:
    """The batch normalisations whose weights are not trained: their running statistics shall not change either."""
    norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return [norm for norm in norms if not any(parameter.requires_grad for parameter in norm.parameters())]


def adapter_of(model: nn.Module, table: LoraTable) -> LoraConfig:
    """PEFT's configuration of a model's adapters, with the ranks and scales of single parts.

    Raises ConfigError if a name or pattern matches nothing, or something that cannot have an adapter.
    """
    check_ranks(adapted_layers(model, table), table.ranks)
    names = table.target_modules
    return LoraConfig(
        r=table.rank,
        lora_alpha=table.alpha,
        lora_dropout=table.dropout,
        target_modules=names if isinstance(names, str) else list(names),
        rank_pattern=dict(table.ranks),
        # the scale of a part's adapters, alpha / rank, is that of the others
        alpha_pattern={part: table.alpha * rank / table.rank for part, rank in table.ranks.items()},
        task_type="CAUSAL_LM",
    )


def adapted_layers(model: nn.Module, table: LoraTable) -> list[str]:
    """The names of the layers that get adapters, by the rule of PEFT: a whole name, or its end after a dot.

    Raises ConfigError if a name matches nothing or a module that is no layer, as PEFT does not for one of several.
    """
    names, setting = table.target_modules, "lora.target_modules"
    if names == "all-linear":
        return [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    # a text is a pattern of whole names, a list has the ends of names
    if isinstance(names, str):
        pattern = _pattern(names, setting)
        found = [(path, module) for path, module in model.named_modules() if pattern.fullmatch(path)]
        if not found:
            raise ConfigError(f"{setting}: the model has no module {names!r}")
    else:
        found = [pair for name in names for pair in modules_named(model, name, setting)]
    if not found:
        raise ConfigError(f"{setting}: it is empty")
    for path, module in found:
        if not isinstance(module, ADAPTED):
            raise ConfigError(f"{setting}: {path!r} is a {type(module).__name__}, and adapters need a linear layer")
    return [path for path, _ in found]


def _pattern(text: str, setting: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(f"{setting}: {text!r} is no regular expression: {error}") from None


def add_adapters(model: nn.Module, table: LoraTable) -> LoraModel:
    """Put adapters into the model in place, and train the modules of `table.full` whole beside them.

    The model keeps its class, so that checkpoints hold all its weights. `merge_and_unload` of the result gives the
    plain model in the end. Raises ConfigError if a name matches nothing, or a whole module has adapters in it.
    """
    tuner = LoraModel(model, {"default": adapter_of(model, table)}, "default")
    for name in table.full:
        for path, module in modules_named(model, name, "lora.full"):
            if any(isinstance(inner, LoraLayer) for inner in module.modules()):
                raise ConfigError(f"lora.full: {path} is trained whole, but lora.target_modules has adapters in it")
            module.requires_grad_(True)
    return tuner


def check_ranks(layers: Sequence[str], ranks: Mapping[str, int]) -> None:
    """Check that each pattern of `ranks` is that of a layer with an adapter. Raises ConfigError."""
    for text in ranks:
        # as PEFT matches: the pattern is the end of the name, after a dot or at its beginning
        pattern = _pattern(rf"(.*\.)?({text})", "lora.ranks")
        if not any(pattern.fullmatch(name) for name in layers):
            raise ConfigError(f"lora.ranks: no module with an adapter is named {text!r}")


def parameter_groups(
    model: nn.Module, decayed: Sequence[str], rate: float, rates: Mapping[str, float], decay: float
) -> list[Group]:
    """AdamW's parameter groups: a learning rate for each named part and one for the rest, each with and without decay.

    decayed: names of the parameters with weight decay. A parameter in several named parts belongs to the one with the
    longest name. A group has the name of its part ("" for the rest). Raises ConfigError for an unknown part.
    """
    parts = {name: [path for path, _ in modules_named(model, name, "optimizer.rates")] for name in rates}
    groups: dict[tuple[str, bool], Group] = {}
    with_decay = set(decayed)
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        # the longest module that the parameter lies in decides
        within = [
            (len(found), name) for name, paths in parts.items() for found in paths if path.startswith(f"{found}.")
        ]
        part, has_decay = max(within)[1] if within else "", path in with_decay
        default = {"params": [], "lr": rates.get(part, rate), "weight_decay": decay if has_decay else 0.0, "part": part}
        groups.setdefault((part, has_decay), default)["params"].append(parameter)
    unused = set(rates) - {part for part, _ in groups}
    if unused:
        raise ConfigError(f"optimizer.rates: nothing in {min(unused)!r} is trained")
    return list(groups.values())
