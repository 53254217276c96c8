"""Two descriptions of the same images side by side, for a terminal: what is gone is red, what is new green."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from strata.cli.rendering.records import clean
from strata.counts import counted
from strata.snapshots import Compared, Pair

_GONE, _NEW = "red strike", "green"
_WORDS = re.compile(r"\s+|[^\s]+")


def texts_side_by_side(names: tuple[str, str], found: Compared) -> Group:
    """How many texts have changed, how the matcher's scores have, and some of the texts. names: of the two sides."""
    lines: list[RenderableType] = [Text("\n".join(_summary(names, found)))]
    if found.pairs:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=True)
        for name in names:
            table.add_column(clean(name), ratio=1, overflow="fold")
        for pair in found.pairs:
            for cells in _rows(pair):
                table.add_row(*cells)
        lines += ["", table]
    more = found.changed - len(found.pairs)
    if found.pairs and more:
        lines.append(Text(f"and {more:,} more; --texts {found.changed} shows all of them", "dim"))
    return Group(*lines)


def _summary(names: tuple[str, str], found: Compared) -> Iterator[str]:
    alone = (f"{number:,} in {clean(name)} alone" for name, number in _alone(names, found) if number)
    told = ", ".join(alone)
    if not found.images:
        yield f"texts: no image is in both{': ' if told else ''}{told}"
        return
    yield f"texts: {counted(found.images, 'image')} in both, {found.changed:,} with another text"
    yield (
        f"match: {found.match_before:.3f} → {found.match_after:.3f} on average, "
        f"{found.higher:,} higher, {found.lower:,} lower, {found.images - found.higher - found.lower:,} equal"
    )
    if found.matchers:
        yield f"note: {different_matchers(found.matchers)}"
    if told:
        yield f"rows without the other one: {told}"


def different_matchers(models: Sequence[str]) -> str:
    """That the probabilities of several matchers say little beside each other."""
    return f"rows were matched by several models, whose probabilities are not on one scale: {', '.join(models)}"


def _alone(names: tuple[str, str], found: Compared) -> Iterator[tuple[str, int]]:
    yield from zip(names, (found.only_before, found.only_after), strict=True)


def _rows(pair: Pair) -> Iterator[tuple[Text, Text]]:
    change = pair.after.match - pair.before.match
    yield (
        Text(f"{clean(pair.key)}, match {pair.before.match:.2f}", "bold cyan"),
        Text(f"match {pair.after.match:.2f} ({change:+.2f})", "bold cyan"),
    )
    yield changed_words(clean(pair.before.text), clean(pair.after.text))
    yield Text(""), Text("")


def changed_words(before: str, after: str) -> tuple[Text, Text]:
    """Two texts with their different words styled; a text that is empty is told."""
    left, right = _WORDS.findall(before), _WORDS.findall(after)
    texts = Text(), Text()
    for kind, start, end, begin, stop in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        same = kind == "equal"
        texts[0].append("".join(left[start:end]), None if same else _GONE)
        texts[1].append("".join(right[begin:stop]), None if same else _NEW)
    return (texts[0] if before else Text("(no text)", "dim")), (texts[1] if after else Text("(no text)", "dim"))
