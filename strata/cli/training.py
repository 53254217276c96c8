"""`strata train`: the reference training job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strata.core.components import load


def train(config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The training's TOML file.")]) -> None:
    """Train a model on a mixture. A training that was killed continues from its last checkpoint."""
    load("training.config", "training").load_config(config)  # before torch is imported, which takes seconds
    load("training.train", "training").run(config)
