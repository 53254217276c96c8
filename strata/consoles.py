"""A console for rich on which no text is an instruction: they come from users, files and servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment


class PlainConsole(Console):
    """Shows every text as it is, also a plain string in a table or a tree.

    rich reads markup (`[bold]`, `[link=…]`; a lone `[/b]` is an error) and names of emoji in a string, and hands the
    control characters of any text to the terminal. Here a character that cannot be printed, as one that changes the
    direction of a text, is left out, or is a space if it has a width.
    """

    def __init__(self, **options: Any) -> None:
        """options: as of rich's Console."""
        super().__init__(**options, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The pieces of what is shown; those with `control` are rich's own commands to the terminal."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.replace("\n", "").isprintable():
                yield segment
            else:
                # in the columns that it has by rich's measure, for which tables have made room: mostly none
                seen = (one if one.isprintable() or one == "\n" else " " * cell_len(one) for one in segment.text)
                yield segment._replace(text="".join(seen))
