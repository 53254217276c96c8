"""The ablation's table and plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from training.scoring import FIGURES, Tally, figures, intervals


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
            return "none told"
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


PAGE = """# What the descriptions are worth to a model: an ablation in small

`python -m training.ablate` made this page, up to the first heading below. It measures the demo world and a model of
1.5 M parameters: which text teaches such a model to say more of what is there. It says nothing on how large models
would fare.

The same model from the same start trains on what Strata's `demo` profile made of the same scenes: the alt text that
came with them, the plain caption, or the description; and on descriptions of half the scenes (the paper's 213 of 427).
Every arm takes {steps} steps of {batch_size} samples (so half the scenes are seen twice as often), with its own text
as the only task, in {seeds} order(s) of the data. Then each answers "Describe the image." on {scenes} held-out scenes
whose truth is known.

{table}

In brackets: 95 % intervals by the bootstrap over scenes, then each order by itself. Recalled: of the objects that are
there, signs apart. Invented: of the objects that a text names, those that are not there. Text read: signs whose word is
quoted. Relations right: of the statements on where a thing is ("at the top left of the picture", "is below the bee"),
those that are true; the last column counts the true ones a scene.

![the same as bars](ablation.png)

How good the labels themselves are, counted on the training scenes in the same way:

{labels}

The start: FastVLM's class with a small ResNet, and a small Qwen2. The ResNet was pre-trained for {tower_steps} steps
of 16 fresh scenes on what each of 8×8 cells shows (class, colour, box, sign word) and where the cell lies, and stays
frozen: all arms see equally well. The projector was then aligned with the words, and projector and language model were
pre-trained for {pretrain_steps} steps of 8 scenes on short questions (what there is, thing by thing; whether a thing is
there; what a sign says; `training/pretraining.py`): the paper's model, Qwen-VL, could also name what it sees before its
stage began. No sentence on a picture, no place and no relation was among the answers.
"""
