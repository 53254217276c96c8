"""The things of the demo world that a text names, and whether they are true; used by all quality figures.

Texts are read by `strata.evaluation.mentions`, as `strata evaluate` reads them; here is only the world's vocabulary.
"""

from __future__ import annotations

import functools

from samples.sprites import COLOURED, KNOWN, UNSEEN
from strata.evaluation.mentions import Vocabulary, read
from strata.evaluation.shard_truth import SIGN

_COLOURED = frozenset(sprite.name for sprite in COLOURED)


@functools.cache
def vocabulary() -> Vocabulary:
    """The names of all drawings that scenes may have, and of signs."""
    names = {sprite.name: () for sprite in (*KNOWN, *UNSEEN)}
    return Vocabulary.of({**names, SIGN: ()})


def things_named(text: str) -> set[tuple[str, str | None]]:
    """The (name, colour) pairs that a text names; the colour is None if the text gives none. Signs are none of them.

    The colour of a thing with a single drawing ("a yellow banana") is ignored, since the truth has no colour for it.
    """
    mentions = [one for one in read(text, vocabulary()).mentions if one.name != SIGN]
    return {(one.name, one.colour if one.name in _COLOURED else None) for one in mentions}


def is_true(named: tuple[str, str | None], present: set[tuple[str, str | None]]) -> bool:
    """Whether a named thing is present; without a colour it matches every colour."""
    name, colour = named
    return named in present or (colour is None and any(other == name for other, _ in present))


def is_recalled(thing: tuple[str, str | None], named: set[tuple[str, str | None]]) -> bool:
    """Whether a present thing is named, with its colour or without any."""
    return thing in named or (thing[0], None) in named
