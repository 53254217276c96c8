"""Where the figures of a training are sent: TensorBoard files, Weights & Biases, trackio."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback

from training.config import Config, ConfigError

Figures = dict[str, float]


def reporters_of(config: Config) -> tuple[str, ...]:
    """The reporters of a configuration: by default TensorBoard, if it is installed.

    Raises ConfigError if a reporter that the configuration names is not installed.
    """
    if config.report_to is None:
        return ("tensorboard",) if find_spec("tensorboard") else ()
    missing = next((name for name in config.report_to if find_spec(name) is None), None)
    if missing:
        raise ConfigError(f"report_to: the package {missing} is not installed: pip install {missing}")
    return config.report_to


def tensorboard(config: Config, step: int) -> TrainerCallback:
    """A reporter to `output/tensorboard`. What an earlier run wrote there after `step` is hidden."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(config.output / "tensorboard"), purge_step=step + 1)
    return TensorBoardCallback(tb_writer=writer)


def figures_of(line: Mapping[str, Any], prefix: str = "") -> Figures:
    """The figures of a line of the loss log: the loss, that of each task, and the learning rates."""
    figures: Figures = {f"{prefix}loss": line["loss"]}
    figures |= {f"{prefix}loss/{task}": value["loss"] for task, value in line["tasks"].items()}
    if line.get("learning_rate") is not None:
        figures["learning_rate"] = line["learning_rate"]
    figures |= {f"learning_rate/{part}": rate for part, rate in line.get("rates", {}).items()}
    return figures
