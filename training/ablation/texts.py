"""The texts that the ablation trains on: a layer of Strata's rows as it is, or a description that is made shorter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from strata.core import LAYERS
from strata.data.sources.samples import ImageFiles, TableSource
from strata.data.sources.snapshots import sample_row, snapshot_rows
from strata.data.sources.tables import SampleRow, kept_table
from strata.snapshots import Snapshot
from strata.store import Store
from training.ablation.scoring import PLACE

_PLACED = re.compile(rf"(?: is)? at the {PLACE}\b(?: of the picture)?", re.I)
# a sentence that says nothing but how two things lie to each other; marks in quotations do not end it
_INSIDE = r"(?:[^.\"]|\"[^\"]*\")*"
_RELATED = re.compile(rf"(?:(?<=\. )|^)The {_INSIDE}? is (?:to the (?:left|right) of|above|below) {_INSIDE}\.(?: |$)")


def without_positions(description: str) -> str:
    """A description whose clauses name their things and quote their texts, but do not say where they are."""
    return _PLACED.sub("", _RELATED.sub("", description)).strip()


class Text(NamedTuple):
    """The layer that a text is made from, and how it is made."""

    layer: str
    make: Callable[[str], str] = str


TEXTS: Mapping[str, Text] = {
    "alt_text": Text("alt_text"),
    "caption": Text("caption"),
    "description": Text("description"),
    "description without positions": Text("description", without_positions),
}


def text_source(store: Store, snapshot: Snapshot, text: str, cache: Path) -> TableSource:
    """The samples of a snapshot's rows, with the text of this name as the answer. Raises OSError."""
    layer, make = LAYERS[TEXTS[text].layer], TEXTS[text].make

    def rows() -> Iterator[SampleRow]:
        for identity, row in snapshot_rows(store, snapshot, ["key", "image", layer.name]):
            told = layer.text_of(row)
            if told is not None:
                yield sample_row(row, identity, make(told))

    name = f"ablation/{snapshot.id}/{text}"
    return TableSource(name, kept_table(cache, name, rows), ImageFiles(store))
