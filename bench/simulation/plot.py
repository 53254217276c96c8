"""The picture of what more GPUs give: the share of the ideal rate, by the number of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.simulation.scale import Row


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write an SVG with a line for each rate of a GPU."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for rate in dict.fromkeys(row.rate for row in rows):
        mine = [row for row in rows if row.rate == rate]
        counts, shares = [row.gpus for row in mine], [row.share for row in mine]
        (line,) = axes.plot(counts, shares, marker="o", label=f"{rate:g} images/s on a GPU")
        first = next((row for row in mine if row.first != "stages"), None)
        if first:
            where = (first.gpus, first.share)
            axes.annotate(first.first, where, (4, 6), textcoords="offset points", color=line.get_color())
    axes.set(xscale="log", xlabel="GPUs, eight a machine", ylabel="images/s over the stages' alone", ylim=(0, 1.05))
    ticks = sorted({row.gpus for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path, metadata={"Date": None})
