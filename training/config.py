"""The configuration of a training job: a validated TOML file. Every mistake is reported as one line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from strata.errors import InvalidInput

Positive = Annotated[int, Field(ge=1)]


class ConfigError(InvalidInput):
    """A configuration cannot be used. The message is one line that names the file."""


class Table(BaseModel):
    """The base of all tables: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelTable(Table):
    """The model to start from.

    path: a folder or a name on the hub that AutoModelForImageTextToText and AutoProcessor load; if it begins with a
    dot, it is relative to the configuration's folder. freeze: the modules that are not trained, by the end of their
    names.
    """

    path: str
    revision: str | None = None
    freeze: tuple[str, ...] = ()


class LoraTable(Table):
    """LoRA (Hu et al., arXiv 2106.09685) instead of full training.

    target_modules: names of linear layers, or one regular expression, or "all-linear".
    """

    rank: Positive = 16
    alpha: Positive = 32
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"


class OptimizerTable(Table):
    """AdamW and its schedule. batch_size: samples of one process in one forward pass."""

    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    largest_gradient: float = Field(default=1.0, gt=0, description="the norm to which gradients are clipped")
    batch_size: Positive
    accumulation: Positive = 1


class Config(Table):
    """A training job. Exactly one of steps and epochs gives its length.

    mixture: the mixture's file. output: folder of checkpoints, losses and the trained model. data: folder of the
    mixture's files (default: the mixture's own). These three are relative to the configuration's folder unless they
    are absolute. store: URI of the store with the mixture's snapshots (default: that of the settings). longest: the
    number of tokens after which a conversation is cut.
    """

    mixture: Path
    output: Path
    data: Path | None = None
    store: str | None = None
    model: ModelTable
    optimizer: OptimizerTable
    lora: LoraTable | None = None
    steps: Positive | None = None
    epochs: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)
    precision: Literal["bf16", "float32"] = "bf16"
    longest: Positive | None = None
    gradient_checkpointing: bool = False
    readers: int = Field(default=0, ge=0, description="DataLoader workers; 0: the training process reads itself")
    save_steps: Positive = 100
    keep: Positive = Field(default=2, ge=2, description="checkpoints: the last may be half-written when a run dies")

    @model_validator(mode="after")
    def _one_length(self) -> Config:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs is needed")
        return self


def load_config(path: Path) -> Config:
    """Load a configuration from a file. Raises ConfigError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        # check keys and values
        config = Config.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_line(error)}") from None
    # make paths absolute
    folder = path.resolve().parent
    paths = {name: getattr(config, name) for name in ("mixture", "output", "data")}
    absolute = {name: (folder / path).resolve() for name, path in paths.items() if path is not None}
    model = config.model.model_copy(update={"path": _from(folder, config.model.path)})
    store = None if config.store is None else _from(folder, config.store)
    return config.model_copy(update={**absolute, "model": model, "store": store})


def _from(folder: Path, name: str) -> str:
    """Resolve a name against the folder if it begins with a dot; else return it unchanged."""
    return str((folder / name).resolve()) if name.startswith(".") else name


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(name) for name in first["loc"])
    line = first["msg"].removeprefix("Value error, ")
    return f"{field}: {line}" if field else line
