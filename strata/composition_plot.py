"""The composition of a snapshot as a picture; matplotlib is loaded when it is asked for."""

from __future__ import annotations

from pathlib import Path

from strata.composition import Composition, shares_of
from strata.exits import USAGE, StrataExit

FORMATS = (".png", ".svg", ".pdf")


def plot_composition(composition: Composition, title: str, path: Path) -> None:
    """Save the shares before and after, a panel an axis, as PNG, SVG or PDF by the path's suffix.

    Raises StrataExit for another suffix or where matplotlib lacks, and OSError.
    """
    if path.suffix.lower() not in FORMATS:
        raise StrataExit(f"{path}: a plot is saved as {', '.join(FORMATS)}", USAGE)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise StrataExit("plots need matplotlib: pip install 'strata[training]'", USAGE) from None
    most = max(len(labels) for labels in composition.values())
    figure = Figure(figsize=(4 * len(composition), 1.2 + 0.3 * most), layout="constrained")
    panels = figure.subplots(1, len(composition), squeeze=False)[0]
    for panel, (feature, labels) in zip(panels, composition.items(), strict=True):
        places = range(len(labels))
        for offset, name, shares in zip((-0.2, 0.2), ("before", "after"), shares_of(labels), strict=True):
            panel.barh([place + offset for place in places], [100 * share for share in shares], 0.4, label=name)
        panel.set_yticks(places, list(labels))
        panel.invert_yaxis()
        panel.set_title(feature)
        panel.set_xlabel("% of rows")
    panels[0].legend()
    figure.suptitle(title)
    figure.savefig(path)
