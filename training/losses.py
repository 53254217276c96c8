"""Losses per task: one line of JSON a step, and a plot of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

AVERAGED = 20  # steps of the plot's running mean


class LossLog:
    """`losses.jsonl` in a folder: step, loss, learning_rate, and under tasks each task's loss and tokens."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "losses.jsonl"

    def rewind(self, step: int) -> None:
        """Forget what was logged behind a step: a resumed run will log it again. Half a line goes too."""
        kept = [line for line in self.read() if line["step"] <= step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(self.path)

    def append(self, line: Mapping[str, Any]) -> None:
        """Log one step."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All steps that were logged whole."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def plot_losses(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG: the loss of every step faintly, and running means of it and of each task."""
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    steps, losses = [line["step"] for line in lines], [line["loss"] for line in lines]
    axes.plot(steps, losses, color="0.8", linewidth=0.8, label="each step")
    axes.plot(steps, running_means(losses), color="black", label=f"mean of {AVERAGED} steps")
    tasks = sorted({task for line in lines for task in line["tasks"]})
    for task in tasks if len(tasks) > 1 else ():
        points = [(line["step"], line["tasks"][task]["loss"]) for line in lines if task in line["tasks"]]
        axes.plot([step for step, _ in points], running_means([loss for _, loss in points]), label=task)
    axes.set(xlabel="step", ylabel="loss, nats a token", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def running_means(values: Sequence[float], width: int = AVERAGED) -> list[float]:
    """Of each value the mean of it and up to width - 1 before it."""
    return [sum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]
