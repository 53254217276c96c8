"""How a number of things is told: "1 file", "2,000 files"."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """A number with the name of what is counted. one: a single thing; many: several, if it is not ONE with an "s"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
