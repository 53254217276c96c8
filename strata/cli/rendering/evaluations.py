"""Evaluations and their comparisons as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from strata.cli.rendering.records import clean
from strata.core import LAYERS
from strata.counts import counted
from strata.evaluation.comparison import Change, Comparison
from strata.evaluation.evaluation import BASELINES, Evaluation, Figure, Measured
from strata.evaluation.figures import FIGURES

_SOURCES = {
    "truth": "with truth",
    "record": "from the records",
    "models": "by models",
    "references": "with references",
}


def evaluation_tables(found: Evaluation) -> RenderableType:
    """All figures of an evaluation: the description beside its baselines, then the layers, then the variants."""
    truth = ", ".join(f"{origin} of {counted(count, 'image')}" for origin, count in found.truth.items())
    head = f"{found.kind} {found.source}: {counted(found.images, 'image')}"
    head += f", profile {found.profile}" if found.profile else ""
    parts: list[RenderableType] = [Text(clean(head), "bold")]
    parts.append(Text(f"truth: {clean(truth) or 'none'}; intervals of {found.confidence:.0%}", "dim"))
    variants = [name for name in found.texts if name.startswith("variant ")]
    compared = [name for name in found.texts if name in (*BASELINES, "description", "composed")]
    layers = [name for name in found.texts if name in LAYERS and name not in compared]
    compared.sort(key=lambda name: (name not in ("description", "composed"), name == "composed", name))
    for title, names in (("texts", compared), ("layers", layers), ("variants", variants)):
        if names:
            parts.append(_table(found, title, names))
    if found.spent:
        cost = f", {found.spent['money']:.4g} in the currency of its prices" if found.spent.get("money") else ""
        parts.append(Text(f"the judge cost {found.spent['tokens']:,.0f} tokens{cost}"))
    if found.reasons:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in found.reasons.items())
        parts.append(Text(f"cut by the verifier: {clean(reasons)}"))
    return Group(*parts)


def _table(found: Evaluation, title: str, names: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for name in names:
        table.add_column(clean(name.removeprefix("variant ")), justify="right", no_wrap=True)
    used = [name for name in FIGURES if any(_told(found.texts[text], name) for text in names)]
    source = ""
    for name in used:
        if FIGURES[name].source != source:
            source = FIGURES[name].source
            table.add_row(Text(_SOURCES[source], "dim"))
        cells = [found.texts[text].figures.get(name) for text in names]
        table.add_row(name, *(_cell(name, cell) for cell in cells))
    table.add_row("vocabulary", *(f"{found.texts[text].vocabulary:,}" for text in names))
    return table


def _told(measured: Measured, name: str) -> bool:
    """Whether a text has this figure."""
    return name in measured.figures and measured.figures[name].value is not None


def number(name: str, value: float | None) -> str:
    """A figure's value: in percent if it is a share; "–" if there is none."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if FIGURES[name].share else f"{value:.1f}"


def _cell(name: str, figure: Figure | None) -> Text:
    if figure is None or figure.value is None:
        return Text("–", "dim")
    text = Text(number(name, figure.value))
    text.append(f" {number(name, figure.low)}–{number(name, figure.high)}", "dim")
    return text


def comparison_table(found: Comparison) -> RenderableType:
    """The figures that changed beyond noise, and how many did not."""
    head = f"against {clean(found.base)}: {counted(found.images, 'common image')}, "
    dropped, improved = found.dropped, [one for one in found.changes if one.improved]
    head += f"{counted(len(found.changes), 'figure')} compared: {len(dropped)} dropped, {len(improved)} improved"
    parts: list[RenderableType] = [Text(head, "bold")]
    if dropped or improved:
        parts.append(_changes([*dropped, *improved]))
    if found.missing:
        parts.append(Text(f"missing now: {clean(', '.join(found.missing))}", "red"))
    if found.unsure:
        parts.append(Text(f"not compared, for too few images: {clean(', '.join(found.unsure))}", "dim"))
    return Group(*parts)


def _changes(changes: Iterable[Change]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("text", "figure"):
        table.add_column(name, no_wrap=True)
    for name in ("before", "now", "difference", "images"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in changes:
        values = [number(one.figure, value) for value in (one.base, one.new, one.new - one.base)]
        between = f"{number(one.figure, one.low)} to {number(one.figure, one.high)}"
        style = "red" if one.dropped else "green"
        difference = Text(f"{values[2]} ({between})", style)
        table.add_row(clean(one.text), one.figure, values[0], values[1], difference, f"{one.images:,}")
    return table
