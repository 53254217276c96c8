"""HTML and SVG as text. Everything that comes from outside goes through `text`, which escapes it."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

LONGEST = 4000  # characters of one text on a page
_WIDTH, _ROW, _LABEL = 520, 22, 190  # pixels of a bar chart, of one of its rows, and of the room for names
_TALL = 150  # pixels of a histogram


class Markup(str):
    """Markup that is safe: what is no Markup is escaped when it is put into an element."""


def text(value: object) -> Markup:
    """Any value as text: escaped, without control characters, and cut to LONGEST characters.

    Marks that turn the direction of writing are left out: they could make a page show something else than it holds.
    """
    if isinstance(value, Markup):
        return value
    found = str(value)
    shown = found if len(found) <= LONGEST else f"{found[:LONGEST]}…"
    shown = "".join(
        one if one == "\n" or unicodedata.category(one)[0] != "C" or one == "\u200d" else " " for one in shown
    )
    return Markup(html.escape(shown, quote=True))


def tag(name: str, /, *content: object, **attributes: object) -> Markup:
    """An element. attributes: `class_` for `class`, other underscores become hyphens; None and False leave one out."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text("" if value is True else value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inner = "".join(map(text, content))
    return Markup(f"<{name}{told}>") if name in _EMPTY else Markup(f"<{name}{told}>{inner}</{name}>")


_EMPTY = frozenset({"img", "meta", "br"})  # those of HTML; elements of SVG have an end


def joined(parts: Iterable[object], between: str = "") -> Markup:
    """Parts side by side."""
    return Markup(text(between).join(map(text, parts)))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], label: str) -> Markup:
    """A table whose first column names the rows; it scrolls sideways where it is too wide."""
    heads = joined(tag("th", cell, scope="col") for cell in head)
    body = joined(tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows)
    inner = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body))
    return tag("div", inner, class_="scroll", role="region", aria_label=label, tabindex="0")


def bars(counts: Mapping[str, float], label: str, most: int = 12) -> Markup:
    """Horizontal bars with their names and numbers, the first `most` of them."""
    shown = list(counts.items())[:most]
    largest = max((value for _, value in shown), default=0) or 1
    rows = []
    for place, (name, value) in enumerate(shown):
        top, wide = place * _ROW, (_WIDTH - _LABEL - 70) * value / largest
        rows += [
            tag("text", _short(name), x=_LABEL - 8, y=top + 15, text_anchor="end"),
            tag("rect", x=_LABEL, y=top + 3, width=f"{max(1.0, wide):.1f}", height=_ROW - 7, class_="bar"),
            tag("text", f"{value:,.0f}", x=f"{_LABEL + wide + 6:.1f}", y=top + 15, class_="number"),
        ]
    more = len(counts) - len(shown)
    note = tag("p", f"and {more:,} more", class_="faint") if more else ""
    return joined([_svg(rows, _WIDTH, _ROW * len(shown) + 4, label), note])


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"


def histogram(values: Sequence[float], label: str, whole: bool = True) -> Markup:
    """Vertical bars: how often each value occurs, in at most twenty steps. whole: values are whole numbers; else
    they lie in 0..1.
    """
    low, high = (min(values, default=0), max(values, default=0)) if whole else (0.0, 1.0)
    step = max(1, -(-(int(high) - int(low) + 1) // 20)) if whole else 1 / 20
    count = (int(high) - int(low)) // int(step) + 1 if whole else 20
    heights = [0] * count
    for value in values:
        heights[min(count - 1, int((value - (int(low) if whole else low)) // step))] += 1
    largest, wide = max(heights, default=0) or 1, (_WIDTH - 20) / count
    parts = [
        tag(
            "rect",
            tag("title", f"{number:,}"),
            x=f"{10 + place * wide:.1f}",
            y=f"{_TALL * (1 - number / largest) + 10:.1f}",
            width=f"{max(1.0, wide - 2):.1f}",
            height=f"{_TALL * number / largest:.1f}",
            class_="bar",
        )
        for place, number in enumerate(heights)
    ]
    parts.append(tag("line", x1=10, x2=_WIDTH - 10, y1=_TALL + 10, y2=_TALL + 10, class_="axis"))
    ends = [(f"{low:,.3g}", 10, "start"), (f"{high:,.3g}", _WIDTH - 10, "end")]
    parts += [tag("text", words, x=x, y=_TALL + 28, text_anchor=anchor) for words, x, anchor in ends]
    return _svg(parts, _WIDTH, _TALL + 36, label)


def _svg(parts: Iterable[object], width: float, height: float, label: str) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label, class_="plot")
