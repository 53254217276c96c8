"""The JSON variant: a picture's things with boxes, attributes and relations, and its lines of text.

Its JSON Schema is docs/variant-json.schema.json; docs/how-to/variants.md says how it is made.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.boxes import min_overlap
from models.evidence.relations import relation_of
from models.variants.things import Thing, Things, bare
from models.verifier.attributes import KINDS, group_of
from strata.core import Box, Record, kept

MOST_RELATIONS = 200
OVERLAP = 0.25  # of the smaller box
RelationName = Literal["left of", "right of", "above", "below", "overlaps"]
_WORDS: dict[str, RelationName] = {"left": "left of", "right": "right of", "above": "above", "below": "below"}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PictureThing(_Model):
    """A thing. id: its number in `things`; name: the most trusted phrase; names: all phrases.

    box: (x1, y1, x2, y2) in pixels of the upright image. place: by thirds of the image. attributes: words of the
    names, by kind (colour, material, shape, pattern, size). text: the lines on it, in reading order. score: the
    probability of the entry that is trusted most, null if none has one. evidence: the entries of the record.
    """

    id: int
    name: str
    names: list[str]
    box: Box
    place: str
    attributes: dict[str, list[str]] = Field(default_factory=dict)
    text: list[str] = Field(default_factory=list)
    score: float | None = None
    evidence: list[str]


class PictureText(_Model):
    """A line of text that can be read. on: the id of the thing that carries it, null if none does."""

    text: str
    box: Box
    on: int | None = None
    evidence: list[str]


class PictureRelation(_Model):
    """How two things lie to each other, by their boxes: `subject` is `relation` `object`; both are ids.

    "overlaps": the boxes do; which of the things is in front, or holds the other, boxes do not tell.
    """

    subject: int
    relation: RelationName
    object: int


class Picture(_Model):
    """A picture. width, height: in pixels. caption, tags: as in the record, null and empty where it has none."""

    width: int
    height: int
    caption: str | None = None
    things: list[PictureThing] = Field(default_factory=list)
    relations: list[PictureRelation] = Field(default_factory=list)
    text: list[PictureText] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)

    def dumps(self) -> str:
        """As JSON in one line."""
        return json.dumps(self.model_dump(), ensure_ascii=False, separators=(", ", ": "))


def picture_of(record: Record) -> Picture:
    """What a record's kept entries say, as a Picture."""
    things = Things.of(record)
    width, height = things.size
    return Picture(
        width=width,
        height=height,
        caption=record.caption.text if record.caption and record.caption.kept else None,
        things=[_thing(thing, record) for thing in things.all],
        relations=_relations(things),
        text=[
            PictureText(
                text=line.text, box=_rounded(line.box), on=_carrier(f"text/{i}", things), evidence=[f"text/{i}"]
            )
            for i, line in enumerate(record.text or ())
            if line.kept and line.text.strip()
        ],
        tags=[tag.word for tag in kept(record.tags)],
    )


def _thing(thing: Thing, record: Record) -> PictureThing:
    scores = [entry.match if entry.match is not None else entry.score for entry in _entries(thing, record)]
    known = [score for score in scores if score is not None]
    return PictureThing(
        id=thing.number,
        name=thing.phrase,
        names=list(thing.note.phrases),
        box=_rounded(thing.box),
        place=thing.note.place,
        attributes=_attributes(thing),
        text=list(thing.note.texts),
        score=round(max(known), 4) if known else None,
        evidence=thing.sources,
    )


def _entries(thing: Thing, record: Record) -> list[Any]:
    places = (source.split("/") for source in thing.sources if not source.startswith("text/"))
    return [getattr(record, layer)[int(index)] for layer, index in places]


def _attributes(thing: Thing) -> dict[str, list[str]]:
    """The words of its names that are attributes, by kind; its size by its area, if no name tells it."""
    found: dict[str, list[str]] = {}
    for phrase in thing.note.phrases:
        for word in re.findall(r"[a-z]+(?:-[a-z]+)*", bare(phrase).lower()):
            group = group_of(word) if word != thing.noun else None
            if group is not None and word not in found.setdefault(group[0], []):
                found[group[0]].append(word)
    if thing.note.size and "size" not in found:
        found["size"] = [thing.note.size]
    return {kind: found[kind] for kind in KINDS if kind in found}


def _relations(things: Things) -> list[PictureRelation]:
    """The relations of all pairs whose boxes tell one; each pair once, with its left thing as the subject."""
    found: list[PictureRelation] = []
    for a in things.all:
        for b in things.all[a.number + 1 :]:
            relation = _relation(a.box, b.box, things.size)
            if relation is not None and len(found) < MOST_RELATIONS:
                found.append(PictureRelation(subject=a.number, relation=relation, object=b.number))
    return found


def _relation(a: Box, b: Box, size: tuple[int, int]) -> RelationName | None:
    apart = relation_of(a, b, size)
    if apart is not None:
        return _WORDS[apart]
    return "overlaps" if min_overlap(a, b) >= OVERLAP else None


def _carrier(source: str, things: Things) -> int | None:
    return next((thing.number for thing in things.all if source in thing.sources), None)


def _rounded(box: Box) -> Box:
    x1, y1, x2, y2 = (round(side, 1) for side in box)
    return x1, y1, x2, y2
