"""The ablation's tables and plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from training.ablation.scoring import FIGURES, KINDS, Estimate, Figure, Tally, estimate


@dataclass(frozen=True)
class Row:
    """An arm's scores: for each seed the tallies of the same scenes. images: the number it was trained on."""

    name: str
    images: int
    seeds: Sequence[Sequence[Tally]]

    def estimate(self, figure: Figure) -> Estimate:
        """A figure over all scenes and seeds, with its interval."""
        return estimate(self.seeds, figure)

    def cell(self, figure: Figure) -> str:
        """The text of a table cell: a figure with its interval, and the value of each seed if there are several."""
        value, low, high = self.estimate(figure)
        if value != value:
            return "nothing counted"
        several = [estimate([tallies], figure).value for tallies in self.seeds]
        each = f"; {', '.join(f'{one:.2f}' for one in several)}" if len(several) > 1 else ""
        return f"{value:.2f} ({low:.2f} to {high:.2f}{each})"


def table(rows: Sequence[Row], figures: Mapping[str, Figure]) -> str:
    """Format figures of the rows as a Markdown table."""
    head = ["trained on", "images", *figures]
    lines = [head, ["---"] * len(head)]
    lines += [[row.name, str(row.images), *(row.cell(figure) for figure in figures.values())] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG with one panel per figure and one bar per row, with its interval."""
    figure, panels = pyplot.subplots(2, 3, figsize=(13, 6.5), sharey=True, layout="constrained")
    names = [f"{row.name} ({row.images})" for row in rows]
    for axes, (name, of) in zip(panels.flat, FIGURES.items(), strict=True):
        # nothing counted is drawn as no bar
        found = [row.estimate(of) for row in rows]
        found = [one if one.value == one.value else Estimate(0.0, 0.0, 0.0) for one in found]
        # the interval as lengths of the error bars
        below = [max(0.0, one.value - one.low) for one in found]
        above = [max(0.0, one.high - one.value) for one in found]
        axes.barh(names, [one.value for one in found], xerr=(below, above), color="0.7", ecolor="black", capsize=3)
        axes.set_title(name)
        axes.set_xlim(0, 1 if of.whole else None)
        axes.grid(axis="x", alpha=0.3)
    panels[0, 0].invert_yaxis()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def document(rows: Sequence[Row], labels: Sequence[Row], facts: Mapping[str, int]) -> str:
    """The generated text of the page: the method, the tables, and the same figures for the labels themselves."""
    tables = {
        "table": table(rows, FIGURES),
        "kinds": table(rows, KINDS),
        "labels": table(labels, FIGURES),
        "label_kinds": table(labels, KINDS),
    }
    return PAGE.format(**tables, **facts)


PAGE = """# What the descriptions are worth to a model: a small ablation

`python -m training.ablation` generates this page up to the first second-level heading. It measures which text teaches a
model of 1.5 M parameters to say more of what is in an image, and what false statements the model makes then, on the
scenes of the demo world. It does not predict how large models would behave.

The same model is trained from the same initial weights on texts that Strata's `demo` profile gives for the same
scenes: the alt text that came with them, the caption, or the description. Two further arms use the descriptions of half
of the scenes (the paper uses 213 of 427 thousand), one chosen at random and one balanced as `strata snapshot create
--select balanced` does it. The last arm uses the descriptions without their statements on positions ("A bee is at the
top left of the picture." becomes "A bee."). Every arm is trained for {steps} steps of {batch_size} samples, so half of
the scenes are seen twice as often. Its own text is its only task, and it is trained {seeds} times, with other orders of
the data. Then each trained model answers "Describe the image." on {scenes} held-out scenes whose content is known.

{table}

In brackets: the 95 % interval, then the value of each training. The intervals cover the choice of the scenes and the
chance in a training: scenes and trainings are both resampled (the pigeonhole bootstrap; `training/ablation/scoring.py`
names the sources). The initial weights are the same in all trainings, so the chance in the pre-training is not covered;
and with so few trainings an interval is itself uncertain.

Objects recalled: the share of the objects in the scene that the text names, without signs. Objects invented: the share
of the objects named in the text that are not in the scene. Text read: the share of the signs whose word is quoted.
Positions right: the share of the statements about positions ("at the top left of the picture", "is below the bee") that
are true. True statements: objects named that are there, words quoted that are on a sign, and true positions. False
statements: objects named that are not there, words quoted that are on no sign, and false positions. A position of a
thing that is not there is false too, so an invented object with a position counts as two. What a text repeats counts
once, and "the sign is above the sign" not at all.

![The table as a bar chart](ablation.png)

The kinds of false statements. The last column is the share of right ones among the positions of things that are there.
A random guess among the nine places of the descriptions is right in 0.11 of the cases, and the commonest place (the
centre) in 0.17; a random guess among the four relations of the captions is right in 0.50.

{kinds}

The quality of the labels themselves, measured in the same way on the training scenes:

{labels}

{label_kinds}

The initial model (the row "the start") consists of FastVLM's class with a small ResNet, and a small Qwen2. The ResNet
was pre-trained for {tower_steps} steps of 16 new scenes to predict for each of 8×8 cells what it shows (class, colour,
box, sign word) and where the cell lies. It stays frozen, so all arms have the same vision features. Then the projector
was aligned with the word embeddings, and projector and language model were pre-trained for {pretrain_steps} steps of 8
scenes on short questions (what is in the image, one thing after another; whether a thing is in it; what a sign says;
`training/ablation/pretraining.py`). The paper's model, Qwen-VL, could also name what it sees before its stage began.
The answers contained no sentence about a picture, no position and no relation. But they contained the words of signs:
a model that reads a sign after the training on descriptions has learnt from them to say it, not to read it.
"""
