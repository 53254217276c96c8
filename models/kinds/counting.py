"""A description of counts and places by a fixed grammar: what the kept entries of a record say, and nothing else.

Each sentence follows from boxes. A number is told only if no further candidate of the same phrase was in doubt; else
"at least two", or "several". "On" is told only of what lies within the box of a table and stands on tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.boxes import area, inside
from models.kinds.coco import KINDS_BY_ID, kind_of
from models.kinds.nouns import NUMBERS, is_plural, several, with_article
from models.notes import place_of, quotation
from models.sentences import upper
from strata.core import NOTHING_FOUND, Box, Record, Region, kept

MOST = 0.5  # share of the picture's area that a thing takes up if it takes up "most of the picture"
ON = 0.9  # share of a thing's box within the table's box
IN_DOUBT = ("low_score", "low_match")
TABLE = "dining table"
_ON_TABLES = frozenset(kind.word for kind in KINDS_BY_ID.values() if kind.on_tables)


@dataclass(frozen=True)
class _Group:
    """The kept regions of one phrase, and whether others of the same phrase were in doubt."""

    phrase: str
    boxes: tuple[Box, ...]
    doubtful: bool

    @property
    def kind(self) -> str:
        """The word of its kind, "" if the phrase names none of COCO's."""
        kind = kind_of(self.phrase)
        return kind.word if kind else ""

    @property
    def many(self) -> bool:
        return len(self.boxes) > 1 or is_plural(self.phrase)

    @property
    def counted(self) -> str:
        """The phrase with as much of a number as is known."""
        number = len(self.boxes)
        if number == 1:
            return self.phrase
        if number < len(NUMBERS) and not self.doubtful:
            return several(NUMBERS[number], self.phrase)
        return several("at least two" if number == 2 else "several", self.phrase)


def counts_and_places(record: Record, limit: int) -> str:
    """The description of a record's kept regions, text and tags; NOTHING_FOUND if there are none.

    limit: of groups, and of lines of text.
    """
    groups = _groups(record)[:limit]
    sentences = [*_on_tables(groups), *(_placed(group, record) for group in groups if not _stands(group, groups))]
    read = [quotation([line.text]) for line in kept(record.text)[:limit] if line.text.strip()]
    if read:
        sentences.append(f"The picture has the text {_listed(read)}.")
    sentences += [f"As a whole, the picture looks like {with_article(tag.word)}." for tag in kept(record.tags)[:1]]
    return " ".join(sentences) or NOTHING_FOUND


def _groups(record: Record) -> list[_Group]:
    """The kept regions by phrase, the largest thing first."""
    regions: list[Region] = sorted(kept(record.regions), key=lambda region: -area(region.box))
    doubtful = {region.phrase.lower() for region in record.regions or () if region.reason in IN_DOUBT}
    boxes: dict[str, list[Box]] = {}
    for region in regions:
        boxes.setdefault(region.phrase, []).append(region.box)
    return [_Group(phrase, tuple(own), phrase.lower() in doubtful) for phrase, own in boxes.items()]


def _table_of(group: _Group, groups: Sequence[_Group]) -> _Group | None:
    """The only table, if all things of the group lie within its box."""
    tables = [other for other in groups if other.kind == TABLE]
    if group.kind not in _ON_TABLES or len(tables) != 1 or len(tables[0].boxes) != 1:
        return None
    (board,) = tables[0].boxes
    return tables[0] if all(inside(box, board) >= ON and area(box) < area(board) / 2 for box in group.boxes) else None


def _stands(group: _Group, groups: Sequence[_Group]) -> bool:
    """Whether a sentence about a table names the group: it stands on it, or is the table."""
    return _table_of(group, groups) is not None or any(_table_of(other, groups) is group for other in groups)


def _on_tables(groups: Sequence[_Group]) -> Iterator[str]:
    for table in groups:
        carried = [group for group in groups if _table_of(group, groups) is table]
        if carried:
            things, many = _listed([group.counted for group in carried]), len(carried) > 1 or carried[0].many
            yield f"{upper(things)} {'are' if many else 'is'} on {table.counted}."


def _placed(group: _Group, record: Record) -> str:
    """One sentence with the group's number, and its place if its boxes have one."""
    width, height = record.width or 1, record.height or 1
    subject, verb = upper(group.counted), "are" if group.many else "is"
    if len(group.boxes) == 1 and area(group.boxes[0]) >= MOST * width * height:
        return f"{subject} {'take' if group.many else 'takes'} up most of the picture."
    places = [place_of(box, width, height) for box in group.boxes]
    if len(set(places)) == 1:
        return f"{subject} {verb} at the {places[0]} of the picture."
    if len(places) == 2 and not group.doubtful and not is_plural(group.phrase):
        return f"{subject} are in the picture, one at the {places[0]} and one at the {places[1]}."
    return f"{subject} {verb} in the picture."


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
