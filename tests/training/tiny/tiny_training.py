"""A training of a few seconds for tests. As a program it trains and then kills itself: `… FOLDER STEPS DEATH`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TimmWrapperConfig

from tests.training.tiny.squares import Squares, tiny_mixture
from training.config import Config
from training.losses import LossLog
from training.tiny import build_processor, save_start
from training.train import train

SIDE = 32


def make_start(folder: Path) -> Path:
    """A model of some thousands of parameters, and its processor."""
    shape = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8, "output_stride": 16}
    more: dict[str, Any] = {"hidden_size": 16}
    tower = TimmWrapperConfig(architecture="resnet18", model_args=shape, do_pooling=False, **more)
    texts = [raw.turns[-1] for raw in Squares(20).read(range(20))]
    save_start(folder / "start", build_processor(texts, SIDE, vocabulary=300), tower, seed=0, width=32, layers=1)
    return folder / "start"


def tiny_config(folder: Path, start: Path, **changes: Any) -> Config:
    """A job of 10 steps of 2 × 4 samples, with a checkpoint every third step."""
    table: dict[str, Any] = {
        "mixture": "tiny.toml",
        "output": folder,
        "model": {"path": str(start)},
        "optimizer": {"learning_rate": 5e-3, "batch_size": 4, "accumulation": 2, "warmup_steps": 2},
        "steps": 10,
        "precision": "float32",
        "save_steps": 3,
    }
    return Config.model_validate({**table, **changes})


def main() -> None:
    """Train, and end the process by SIGKILL as soon as a step has been logged."""
    folder, start, death = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    append = LossLog.append

    def append_and_die(log: LossLog, line: Any) -> None:
        append(log, line)
        if line["step"] == death:
            os.kill(os.getpid(), signal.SIGKILL)

    LossLog.append = append_and_die  # type: ignore[method-assign,assignment]
    train(tiny_config(folder, start, lora={"rank": 2, "alpha": 4, "dropout": 0.3}), tiny_mixture())


if __name__ == "__main__":
    main()
