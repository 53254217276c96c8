"""The ablation's table and plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from training.ablation.scoring import FIGURES, Tally, figures, intervals


@dataclass(frozen=True)
class Row:
    """An arm's scores: for each seed the tallies of the same scenes. images: the number it was trained on."""

    name: str
    images: int
    seeds: Mapping[int, Sequence[Tally]]

    @property
    def tallies(self) -> list[Tally]:
        """Per scene the sum of all seeds' tallies: the bootstrap resamples scenes, not answers."""
        return [sum(seeds, Tally()) for seeds in zip(*self.seeds.values(), strict=True)]

    def cell(self, figure: str) -> str:
        """The text of a table cell: a figure with its interval, and the value of each seed if there are several."""
        value, (low, high) = self.value(figure), self.interval(figure)
        if value != value:
            return "nothing counted"
        several = [figures(tallies)[figure] for tallies in self.seeds.values()]
        each = f"; seeds {', '.join(f'{one:.2f}' for one in several)}" if len(several) > 1 else ""
        return f"{value:.3f} ({low:.2f} to {high:.2f}{each})"

    def value(self, figure: str) -> float:
        """A figure over all scenes and seeds."""
        return figures(self.tallies)[figure] / self._answers(figure)

    def interval(self, figure: str) -> tuple[float, float]:
        """The 95 % interval of a figure, by the bootstrap over scenes."""
        low, high = intervals(self.tallies)[figure]
        return low / self._answers(figure), high / self._answers(figure)

    def _answers(self, figure: str) -> int:
        return 1 if FIGURES[figure][1] else len(self.seeds)  # counts per scene are sums over the seeds


def table(rows: Sequence[Row]) -> str:
    """Format the rows as a Markdown table."""
    head = ["trained on", "images", *FIGURES]
    lines = [head, ["---"] * len(head)]
    lines += [[row.name, str(row.images), *(row.cell(figure) for figure in FIGURES)] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG with one panel per figure and one bar per row, with its interval."""
    figure, panels = pyplot.subplots(1, len(FIGURES), figsize=(15, 3.6), sharey=True, layout="constrained")
    names = [f"{row.name} ({row.images})" for row in rows]
    for axes, name in zip(panels, FIGURES, strict=True):
        values = [0.0 if row.value(name) != row.value(name) else row.value(name) for row in rows]
        bounds = [row.interval(name) if row.value(name) == row.value(name) else (0.0, 0.0) for row in rows]
        # the interval as lengths of the error bars
        below = [max(0.0, value - low) for value, (low, _) in zip(values, bounds, strict=True)]
        above = [max(0.0, high - value) for value, (_, high) in zip(values, bounds, strict=True)]
        axes.barh(names, values, xerr=(below, above), color="0.7", ecolor="black", capsize=3)
        axes.set_title(name)
        axes.set_xlim(0, None if not FIGURES[name][1] else 1)
        axes.invert_yaxis() if axes is panels[0] else None
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def document(rows: Sequence[Row], labels: Sequence[Row], facts: Mapping[str, int]) -> str:
    """The generated text of the page: the method, the table, and the same figures for the labels themselves."""
    return PAGE.format(table=table(rows), labels=table(labels), **facts)


PAGE = """# What the descriptions are worth to a model: a small ablation

`python -m training.ablation` generates this page up to the first second-level heading. It measures which text teaches a
model of 1.5 M parameters to name more of what is in an image, on the scenes of the demo world. It does not predict how
large models would behave.

The same model is trained from the same initial weights on texts that Strata's `demo` profile gives for the same
scenes: the alt text that came with them, the caption, or the description. A further arm uses the descriptions of half
of the scenes (the paper uses 213 of 427 thousand). Every arm is trained for {steps} steps of {batch_size} samples, so
half of the scenes are seen twice as often. Its own text is its only task, and it is run with {seeds} order(s) of the
data. Then each trained model answers "Describe the image." on {scenes} held-out scenes whose content is known.

{table}

In brackets: 95 % intervals by the bootstrap over scenes, then the value of each order. Objects recalled: the share of
the objects in the scene that the text names, without signs. Objects invented: the share of the objects named in the
text that are not in the scene. Text read: the share of the signs whose word is quoted. Relations right: the share of
the statements about positions ("at the top left of the picture", "is below the bee") that are true; the last column is
the number of true ones in a scene.

![The table as a bar chart](ablation.png)

The quality of the labels themselves, measured in the same way on the training scenes:

{labels}

The initial model (the row "the start") consists of FastVLM's class with a small ResNet, and a small Qwen2. The ResNet
was pre-trained for {tower_steps} steps of 16 new scenes to predict for each of 8×8 cells what it shows (class, colour,
box, sign word) and where the cell lies. It stays frozen, so all arms have the same vision features. Then the projector
was aligned with the word embeddings, and projector and language model were pre-trained for {pretrain_steps} steps of 8
scenes on short questions (what is in the image, one thing after another; whether a thing is in it; what a sign says;
`training/ablation/pretraining.py`). The paper's model, Qwen-VL, could also name what it sees before its stage began.
The answers contained no sentence about a picture, no position and no relation.
"""
