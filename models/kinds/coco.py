"""COCO's kinds, with the ImageNet classes that support each: `coco.toml`, and `imagenet.json`, made from it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parent
TABLE = FOLDER / "coco.toml"
CLASSES = FOLDER / "imagenet.json"  # the classes of each kind's synsets, by the kind's word


@dataclass(frozen=True)
class Kind:
    """One kind. id: COCO's category id; word: COCO's; phrase: the word with its article.

    synsets: the WordNet synsets that mean it or look like it, by their ids. classes: the numbers of ImageNet's classes
    (0 to 999) that are among them or below them; none if ImageNet has no such class. on_tables: whether a thing of this
    kind within the box of a table stands on it.
    """

    id: int
    word: str
    phrase: str
    synsets: Mapping[str, str] = field(default_factory=dict, hash=False)
    classes: tuple[int, ...] = ()
    on_tables: bool = False


def _kinds() -> dict[int, Kind]:
    """The kinds of the table, by their ids."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))["kind"]
    classes = json.loads(CLASSES.read_text(encoding="utf-8"))["classes"]
    kinds = {}
    for row in table:
        word = row["word"]
        phrase = row.get("phrase", f"{'an' if word[0] in 'aeiou' else 'a'} {word}")
        synsets = {**row.get("synsets", {}), **row.get("also", {})}
        numbers, on_tables = tuple(classes.get(word, ())), row.get("on_tables", False)
        kinds[row["id"]] = Kind(row["id"], word, phrase, MappingProxyType(synsets), numbers, on_tables)
    return kinds


KINDS_BY_ID: Mapping[int, Kind] = MappingProxyType(_kinds())
KINDS_BY_PHRASE: Mapping[str, Kind] = MappingProxyType({kind.phrase: kind for kind in KINDS_BY_ID.values()})
_BY_LAST_WORDS = {kind.word: kind for kind in KINDS_BY_ID.values()}


def kind_of(phrase: str) -> Kind | None:
    """The kind that a noun phrase names by its last words: "a red traffic light", "dining table"; None if none."""
    words = phrase.lower().split()
    # the longest word first: a hot dog is no dog
    endings = (" ".join(words[start:]) for start in range(len(words)))
    return next((_BY_LAST_WORDS[ending] for ending in endings if ending in _BY_LAST_WORDS), None)
