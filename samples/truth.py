"""The things of the demo world that a text names, and whether they are true; used by all quality figures."""

from __future__ import annotations

import functools
import re

from samples.sprites import COLOURED, COLOURS, KNOWN, UNSEEN

_NAMES = sorted({sprite.name for sprite in (*KNOWN, *UNSEEN)}, key=len, reverse=True)


@functools.cache
def _pattern() -> re.Pattern[str]:
    colours, names = "|".join(COLOURS), "|".join(map(re.escape, _NAMES))
    # longer names come first, so that "top hat" is not read as "hat"
    return re.compile(rf"\b(?:({colours}) )?({names})(?:s|es)?\b", re.IGNORECASE)


def things_named(text: str) -> set[tuple[str, str | None]]:
    """The (name, colour) pairs that a text names; the colour is None if the text gives none.

    The colour of a thing with a single drawing ("a yellow banana") is ignored, since the truth has no colour for it.
    """
    coloured = {sprite.name for sprite in COLOURED}
    found: set[tuple[str, str | None]] = set()
    for colour, name in _pattern().findall(text):
        name = name.lower()
        found.add((name, colour.lower() or None if name in coloured else None))
    return found


def is_true(named: tuple[str, str | None], present: set[tuple[str, str | None]]) -> bool:
    """Whether a named thing is present; without a colour it matches every colour."""
    name, colour = named
    return named in present or (colour is None and any(other == name for other, _ in present))


def is_recalled(thing: tuple[str, str | None], named: set[tuple[str, str | None]]) -> bool:
    """Whether a present thing is named, with its colour or without any."""
    return thing in named or (thing[0], None) in named
