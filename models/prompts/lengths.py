"""The lengths of texts: what a composer is told, and how many facts one that takes no instructions gets.

`short` is some 20 words, as a caption of COCO or an alt text; `medium` some 50; `long` some 120, as the captions of
DOCCI (arXiv 2404.19753) have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Length:
    """A length. instruction: the last rule of the prompt, "" for none.

    things: how many of the largest things are told, None for all; sentences: how many hold the things, None for as many
    as the prompt's wording allows; relations: how many relations of two things at most, None for the usual number.
    budget: times the tokens of a description.
    """

    instruction: str = ""
    things: int | None = None
    sentences: int | None = None
    relations: int | None = None
    budget: int = 1


LENGTHS: Mapping[str, Length] = MappingProxyType(
    {
        "": Length(),
        "short": Length(
            "Whatever else is said about the length: write one sentence of at most 25 words, on the main things.",
            things=3,
            sentences=1,
            relations=0,
        ),
        "medium": Length(
            "Whatever else is said about the length: write two or three sentences, some 50 words, on the main things, "
            "how they look and where they are.",
            things=6,
            relations=1,
        ),
        "long": Length(
            "Whatever else is said about the length: write six to ten sentences, some 120 words. Tell all that is "
            "supported: each thing with its size, look and place, how things lie to each other, and all text that can "
            "be read.",
            relations=20,
            budget=2,
        ),
    }
)
