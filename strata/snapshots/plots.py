"""The picture of a composition: what a selection did to each feature."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING

from strata.errors import InvalidInput
from strata.snapshots.composition import SHOWN, Composition, evenness_of, shares_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
COLUMNS = 4  # panels in a row
COLOURS = {"before": "0.65", "after": "tab:blue"}
LONGEST = 28  # characters of a label


def check_plot(path: Path) -> None:
    """Raise InvalidInput if a picture cannot be saved at a path: another suffix, no folder, no matplotlib."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidInput(f"{path}: a plot is saved as {', '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"{path}: its folder does not exist")
    if importlib.util.find_spec("matplotlib") is None:
        raise InvalidInput("plots need matplotlib: pip install 'strata[training]'")


def plot_composition(composition: Composition, title: str, path: Path) -> None:
    """Save a picture of the shares before and after, one panel a feature, as PNG, SVG or PDF by the path's suffix.

    A feature with more than SHOWN labels, such as clusters, is drawn as two curves of the shares, each sorted. Raises
    what `check_plot` does, and InvalidInput if the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(composition))
    features = list(composition)
    lines = [features[start : start + columns] for start in range(0, len(features), columns)]
    # sizes in inches: the height of a line of panels grows with the labels of its largest
    labels_of = [max(_height(len(composition[feature])) for feature in line) for line in lines]
    heights = [1.2 + 0.26 * labels for labels in labels_of]
    figure = Figure(figsize=(4.2 * columns, 0.7 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for panel in panels.flat[len(features) :]:
        panel.set_axis_off()
    for panel, (number, feature) in zip(panels.flat, enumerate(features), strict=False):
        _draw(panel, feature, composition[feature], labels_of[number // columns])
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.suptitle(title)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:  # ValueError: a format that is not known
        raise InvalidInput(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _height(labels: int) -> int:
    """The height of a panel, in labels."""
    return max(4, labels if labels <= SHOWN else SHOWN // 3)


def _draw(panel: Axes, feature: str, labels: dict[str, tuple[int, int]], height: int) -> None:
    """One panel. height: of its line of panels, in labels, so that all bars are equally thick."""
    if len(labels) <= SHOWN:
        _bars(panel, labels)
        panel.set_ylim(max(height, len(labels)) - 0.4, -0.6)
    else:
        _curves(panel, labels)
    before, after = evenness_of(labels)
    spread = f"spread as over {before:,.1f} equal labels before, {after:,.1f} after"
    panel.set_title(f"{feature}, {len(labels):,} labels\n{spread}", fontsize="small")


def _bars(panel: Axes, labels: dict[str, tuple[int, int]]) -> None:
    """Two bars for each label, the first label at the top."""
    rows = range(len(labels))
    for offset, (name, colour), shares in zip((-0.2, 0.2), COLOURS.items(), shares_of(labels), strict=True):
        panel.barh([row + offset for row in rows], [100 * share for share in shares], 0.4, label=name, color=colour)
    shown = [label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…" for label in labels]
    # a name may have a dollar, which would begin a formula
    panel.set_yticks(rows, [label.replace("$", r"\$") for label in shown])
    panel.set_xlabel("% of rows")


def _curves(panel: Axes, labels: dict[str, tuple[int, int]]) -> None:
    """The share of each label, the largest first; labels without a row end the curve."""
    for (name, colour), shares in zip(COLOURS.items(), shares_of(labels), strict=True):
        there = [100 * share for share in sorted(shares, reverse=True) if share > 0]
        panel.plot(range(1, len(there) + 1), there, label=name, color=colour, drawstyle="steps-mid")
    panel.set_yscale("log")
    panel.set_xlim(0, math.ceil(1.02 * len(labels)))
    panel.set_xlabel("labels, the largest first")
    panel.set_ylabel("% of rows")
