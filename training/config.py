"""The configuration of a training job: a validated TOML file. Every mistake is reported as one line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from strata.errors import InvalidInput, fault_line

Positive = Annotated[int, Field(ge=1)]
ScoreName = Literal["exact_match", "vqa_accuracy", "anls", "relaxed_accuracy", "cider"]


class ConfigError(InvalidInput):
    """A configuration cannot be used. The message is one line that names the file."""


class Table(BaseModel):
    """The base of all tables: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelTable(Table):
    """The model to start from.

    path: a folder or a name on the hub that AutoModelForImageTextToText and AutoProcessor load; if it begins with a
    dot, it is relative to the configuration's folder. freeze: the modules that are not trained, by the end of their
    names. attn_implementation: that of transformers ("sdpa", "flash_attention_2", "eager", …; default: its choice).
    chat_template: a Jinja file instead of the model's own template, relative to the configuration's folder.
    """

    path: str
    revision: str | None = None
    freeze: tuple[str, ...] = ()
    attn_implementation: str | None = None
    chat_template: Path | None = None


class LoraTable(Table):
    """LoRA (Hu et al., arXiv 2106.09685) instead of full training.

    target_modules: names of linear layers, or one regular expression, or "all-linear". ranks: other ranks for some of
    them, by regular expressions that match the end of a module's name; alpha / rank stays that of the others. full:
    modules that are trained whole beside the adapters, by the end of their names. With `full` the adapters are merged
    into the weights in the end, and the whole model is saved.
    """

    rank: Positive = 16
    alpha: Positive = 32
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    ranks: dict[str, Positive] = Field(default_factory=dict)
    full: tuple[str, ...] = ()


class OptimizerTable(Table):
    """AdamW and its schedule. batch_size: samples of one process in one forward pass.

    rates: learning rates of single parts of the model, by the end of a module's name; the others learn at
    learning_rate. The schedule scales all of them.
    """

    learning_rate: float = Field(gt=0)
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    largest_gradient: float = Field(default=1.0, gt=0, description="the norm to which gradients are clipped")
    batch_size: Positive
    accumulation: Positive = 1


class WindowsTable(Table):
    """Monkey's sliding windows: each image as across × across windows of side × side pixels, and the whole."""

    side: Positive = 448
    across: Annotated[int, Field(ge=2)] = 2


class QuestionsTable(Table):
    """Held-out questions whose answers are scored.

    file: JSON Lines with `image`, `question` and `answers` (a list, or one `answer`); images: the folder of the images
    (default: the file's own). Both are relative to the configuration's folder. instruction: the user's turn, with
    "{question}" where the question is inserted. scores: any of the field's scores (training/evaluation/scores.py).
    """

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    file: Path
    images: Path | None = None
    scores: tuple[ScoreName, ...] = Field(default=("exact_match",), min_length=1)
    instruction: str = "{question}"
    new_tokens: Positive = Field(default=64, description="the longest answer")
    batch_size: Positive = 8


class EvaluationTable(Table):
    """What is measured beside the training.

    The loss on held-out samples, every `every` steps: of `mixture`, another mixture's file, or of `split`, a share of
    the training's own samples that is then not trained on. questions: answered by `python -m training.evaluation`.
    """

    every: Positive = 100
    mixture: Path | None = None
    split: float | None = Field(default=None, gt=0, le=0.5)
    questions: tuple[QuestionsTable, ...] = ()

    @model_validator(mode="after")
    def _one_validation(self) -> EvaluationTable:
        if self.mixture is not None and self.split is not None:
            raise ValueError("mixture or split, not both")
        names = [table.name for table in self.questions]
        if len(set(names)) < len(names):
            raise ValueError("two tables of questions have one name")
        return self


class Config(Table):
    """A training job. Exactly one of steps and epochs gives its length.

    mixture: the mixture's file. output: folder of checkpoints, losses and the trained model. data: folder of the
    mixture's files (default: the mixture's own). These three are relative to the configuration's folder unless they
    are absolute. store: URI of the store with the mixture's snapshots (default: that of the settings). longest: the
    number of tokens after which a conversation is cut. report_to: where figures are sent; by default to TensorBoard
    files in the output, if it is installed; [] sends them nowhere. length_group: this many batches are sorted by
    length together, so that little is padded; 1 sorts nothing. on_error: "skip" trains on another sample of the same
    source in the place of one that cannot be read, up to the share skip_limit of the samples; "stop" ends the run.
    max_pixels, min_pixels: of an image, width × height; by default at most so many that its tokens fit `longest`.
    """

    mixture: Path
    output: Path
    data: Path | None = None
    store: str | None = None
    model: ModelTable
    optimizer: OptimizerTable
    lora: LoraTable | None = None
    windows: WindowsTable | None = None
    evaluation: EvaluationTable = EvaluationTable()
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] | None = None
    length_group: Positive = 1
    steps: Positive | None = None
    epochs: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)
    precision: Literal["bf16", "float32"] = "bf16"
    longest: Positive | None = None
    max_pixels: Positive | None = None
    min_pixels: Positive | None = None
    on_error: Literal["skip", "stop"] = "skip"
    skip_limit: float = Field(default=0.01, ge=0, le=1)
    gradient_checkpointing: bool = False
    readers: int = Field(default=0, ge=0, description="DataLoader workers; 0: the training process reads itself")
    save_steps: Positive = 100
    keep: Positive = Field(default=2, ge=2, description="checkpoints: the last may be half-written when a run dies")

    @model_validator(mode="after")
    def _one_length(self) -> Config:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs is needed")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels is larger than max_pixels")
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
    model = config.model.model_copy(
        update={"path": _from(folder, config.model.path), "chat_template": _in(folder, config.model.chat_template)}
    )
    store = None if config.store is None else _from(folder, config.store)
    evaluation = _evaluation_in(folder, config.evaluation)
    return config.model_copy(update={**absolute, "model": model, "store": store, "evaluation": evaluation})


def _evaluation_in(folder: Path, table: EvaluationTable) -> EvaluationTable:
    questions = tuple(
        one.model_copy(update={"file": _in(folder, one.file), "images": _in(folder, one.images)})
        for one in table.questions
    )
    return table.model_copy(update={"mixture": _in(folder, table.mixture), "questions": questions})


def _in(folder: Path, path: Path | None) -> Path | None:
    return None if path is None else (folder / path).resolve()


def _from(folder: Path, name: str) -> str:
    """Resolve a name against the folder if it begins with a dot; else return it unchanged."""
    return str((folder / name).resolve()) if name.startswith(".") else name


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(name) for name in first["loc"])
    line = fault_line(first)
    return f"{field}: {line}" if field else line
