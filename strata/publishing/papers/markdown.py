"""Markdown of texts that may contain anything: no text of a store becomes markup of the page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&!])")
_NUMBER = re.compile(r"[\d,.]+( ?%)?")


def inline(text: object) -> str:
    """A text as it stands, in one line: its markup characters are escaped, and what is not printable is left out."""
    line = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", "".join(one for one in line if one.isprintable()))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table. Cells are whole numbers, or texts as they stand; numbers and shares are at the right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else inline(cell) for cell in row] for row in rows]
    right = [all(_NUMBER.fullmatch(row[place]) for row in cells) for place in range(len(heads))]
    lines = [heads, ["---:" if number else "---" for number in right]]
    return [f"| {' | '.join(line)} |" for line in (*lines, *cells)]


def fenced(text: str, language: str = "") -> list[str]:
    """The lines of a block of code, whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = "".join(one for one in text if one.isprintable() or one in "\n\t")
    return [fence + language, *shown.rstrip("\n").split("\n"), fence]


def folded(title: str, lines: Iterable[str]) -> list[str]:
    """Lines that are shown after a click on their title."""
    return ["<details>", f"<summary>{html.escape(' '.join(title.split()))}</summary>", "", *lines, "", "</details>"]
