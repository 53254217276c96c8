"""Log the losses of each task, one line of JSON per step, and plot them."""

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
    """The file `losses.jsonl`. A line has step, loss, learning_rate, and tasks: the loss and tokens of each task.

    With learning rates of single parts it has `rates` too. `validation.jsonl` is such a file without rates.
    """

    def __init__(self, folder: Path, name: str = "losses.jsonl") -> None:
        self.path = folder / name

    def rewind(self, step: int) -> None:
        """Remove the lines after a step, which a resumed run will log again, and an incomplete last line."""
        kept = [line for line in self.read() if line["step"] <= step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # replace the file atomically
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self.path)

    def append(self, line: Mapping[str, Any]) -> None:
        """Append the line of one step."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """The lines of all steps, without an incomplete last line."""
        if not self.path.exists():
            return []
        return [
            json.loads(line)
            for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            if line.endswith("\n")
        ]


def plot_losses(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG with the loss of every step in grey, and running means of it and of each task."""
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    steps, losses = [line["step"] for line in lines], [line["loss"] for line in lines]
    axes.plot(steps, losses, color="0.8", linewidth=0.8, label="each step")
    axes.plot(steps, running_means(losses), color="black", label=f"mean of {AVERAGED} steps")
    tasks = sorted({task for line in lines for task in line["tasks"]})
    for task in tasks if len(tasks) > 1 else ():
        # a task may be missing in some steps
        points = [(line["step"], line["tasks"][task]["loss"]) for line in lines if task in line["tasks"]]
        axes.plot([step for step, _ in points], running_means([loss for _, loss in points]), label=task)
    axes.set(xlabel="step", ylabel="loss, nats a token", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def running_means(values: Sequence[float], width: int = AVERAGED) -> list[float]:
    """The running means: each is over a value and up to width - 1 values before it."""
    return [sum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]
