"""A search: its pages of rows, in an order that stays when rows are added."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from strata.core import SearchHit, Status, part_name
from strata.errors import InvalidInput
from strata.search.database import Cursor
from strata.search.extraction import LABELS, STATUSES, WORD
from strata.search.filters import Condition, Order, Query, Scope, Term
from strata.search.postings import Bools, Ints, counts, unpacked

FEW = 10_000  # rows, up to which their ids are passed instead of a mask of all rows
ALIKE = 0.85  # least similarity, by Jaro and Winkler, of a label that is named for an unknown one
_TOLD = ("thing", "tag", "reason", "reason", "failure", "word")  # the kinds of terms, in hints

# the value by which each order sorts, ascending; rows with equal ones follow in the order of the store
_VALUES: dict[Order, str] = {
    "store": "0::double",
    "best": "coalesce(-r.score::double, 2)",
    "worst": "coalesce(r.score::double, 2)",
    "longest": "-r.words::double",
    "shortest": "r.words::double",
}


class BadSearchCursor(InvalidInput, ValueError):
    """The cursor is not one that a page of this search has returned."""

    def __init__(self) -> None:
        super().__init__("the cursor is not one that a page of this search has returned")


class Position(NamedTuple):
    """The last row of a page: its value in the order, and its place in the store, which stays when rows are added."""

    order: str
    value: float
    fingerprint: str
    identity: str
    number: int
    row: int

    def encode(self) -> str:
        """The cursor as an opaque text."""
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, order: Order) -> Position:
        """The position of a text. Raises BadSearchCursor."""
        try:
            values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, RecursionError) as error:
            raise BadSearchCursor from error
        # callers may send any text: accept only what `encode` gives
        kinds = (str, float, str, str, int, int)
        if not isinstance(values, list) or len(values) != len(kinds):
            raise BadSearchCursor
        if any(isinstance(one, bool) or not isinstance(one, kind) for one, kind in zip(values, kinds, strict=True)):
            raise BadSearchCursor
        found = cls(*values)
        small = 0 <= found.number < 2**31 and 0 <= found.row < 2**31 and abs(found.value) < 2**31
        if found.order != order or not small or not math.isfinite(found.value):
            raise BadSearchCursor
        return found

    def after(self) -> Condition:
        """That a row comes later, in an order by a value."""
        value = _VALUES[self.order]  # type: ignore[index]
        place = "(p.fingerprint, p.identity, p.number, r.id - p.first_id)"
        later = f"{place} > (?::varchar, ?::varchar, ?::integer, ?::bigint)"
        return Condition(f"({value} > ? or ({value} = ? and {later}))", [self.value, self.value, *self[2:]])


class Found(NamedTuple):
    """A page: its rows, how many rows the whole search has, and the cursor of the next page; None on the last one."""

    hits: list[SearchHit]
    total: int
    next: str | None


class Search:
    """One search with a cursor of the database, which another thread may interrupt.

    Its rows are found as a mask, a byte for each row of the index: words and labels give theirs at once, and a count or
    a page in the order of the store needs no look at the rows themselves.
    """

    def __init__(self, cursor: Cursor, scope: Scope, query: Query) -> None:
        self.cursor, self.scope = cursor, scope
        # all that follows sees the index as it is now
        cursor.begin()
        ((self.count,),) = self.fetch("select rows from meta")
        self.mask = self._covered() if scope.rows is None else self._chosen()
        self._unknown: list[Term] = []
        self._narrow(query)

    def _covered(self) -> Bools:
        """A mask of the rows of the scope's parts."""
        firsts, images = self._columns(
            f"select p.first_id, p.images from parts p where {self.scope.parts.sql}", self.scope.parts.values
        )
        steps = np.zeros(self.count + 1, np.int8)
        # parts do not overlap, and one may begin where another ends
        np.add.at(steps, firsts, 1)
        np.subtract.at(steps, firsts + images, 1)
        return np.cumsum(steps[:-1], dtype=np.int8).view(bool)

    def _chosen(self) -> Bools:
        """A mask of the rows of the snapshot; those of parts that the index does not have are left out."""
        assert self.scope.rows is not None and self.scope.paths is not None
        known = dict(self.fetch("select p.path, p.first_id from parts p where p.broken is null"))
        firsts = np.array([known.get(path, -1) for path in self.scope.paths], np.int64)
        parts, rows = self.scope.rows
        there = firsts[parts] >= 0
        mask = np.zeros(self.count, bool)
        mask[(firsts[parts] + rows)[there]] = True
        return mask

    def _narrow(self, query: Query) -> None:
        """Leave only the rows that have what is asked for."""
        for term in query.terms():
            has = self._having(term)
            self.mask &= has if term.wanted else ~has
            if term.wanted and not has.any():
                self._unknown.append(term)
        condition = query.condition()
        if condition.sql != "true":
            (ids,) = self._columns(f"select r.id from images r where {condition.sql}", condition.values)
            has = np.zeros(self.count, bool)
            has[ids] = True
            self.mask &= has

    def _having(self, term: Term) -> Bools:
        """A mask of the rows that have a word or a label, also of removed ones."""
        where = "words where" if term.kind == WORD else f"labels where kind = {term.kind} and"
        (ids,) = self._columns(f"select row from {where} term = ?", [term.number])
        mask = np.zeros(self.count, bool)
        mask[ids] = True
        bitmaps = "select first, bits from bitmaps where kind = ? and term = ?"
        unpacked(mask, self.fetch(bitmaps, [term.kind, term.number]))
        return mask

    def hints(self) -> list[str]:
        """The words and labels that no row of the index has, each with the most similar label, if one is similar.

        None as long as the index has no rows: that says nothing of the words.
        """
        return [self._hint(term) for term in self._unknown] if self.count else []

    def _hint(self, term: Term) -> str:
        # a word may be meant for that of any label
        kinds = [term.kind] if term.kind != WORD else [LABELS.index("thing"), LABELS.index("tag")]
        near = self.fetch(
            "select name, jaro_winkler_similarity(name, ?) as likeness from names where "
            f"kind in (select unnest(?::utinyint[])) and likeness >= {ALIKE} order by likeness desc, name limit 1",
            [term.text, kinds],
        )
        return f"no row has the {_TOLD[term.kind]} {term.text[:100]!r}" + (
            f"; did you mean {near[0][0]!r}?" if near else ""
        )

    def _columns(self, query: str, values: Sequence[Any]) -> list[Ints]:
        """The columns of a query as arrays."""
        found = self.cursor.execute(query, list(values)).fetchnumpy()
        return [np.asarray(column, np.int64) for column in found.values()]

    def among(self, column: str) -> Condition:
        """That the id of a row in a column is one of those of this search."""
        number = self.total()
        if number == self.count:
            return Condition("true")
        if number > FEW:
            return Condition(f"get_bit(?::blob::bit, {column}::integer) = 1", [np.packbits(self.mask).tobytes()])
        # of few rows only the blocks are read in which they lie
        return Condition(f"{column} in (select unnest(?::uinteger[]))", [np.flatnonzero(self.mask).tolist()])

    def fetch(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.cursor.execute(query, list(values)).fetchall()

    def broken(self) -> list[str]:
        """The parts of the scope that cannot be read, each with the reason, in the order of the store."""
        where, values = self.scope.parts.sql, self.scope.parts.values
        query = f"select p.broken from parts p where {where} and p.broken is not null order by p.path"
        return [reason for (reason,) in self.fetch(query, values)]

    def indexed(self) -> int:
        """How many parts of the scope the index has."""
        query = f"select count(*) from parts p where {self.scope.parts.sql}"
        return int(self.fetch(query, self.scope.parts.values)[0][0])

    def total(self) -> int:
        """How many rows the search has."""
        return int(np.count_nonzero(self.mask))

    def page(self, order: Order, limit: int, cursor: str | None) -> Found:
        """At most limit rows from a cursor on. Raises BadSearchCursor."""
        after = None if cursor is None else Position.decode(cursor, order)
        # one row more shows whether another page follows
        found = (self._stored if order == "store" else self._valued)(order, limit + 1, after)
        rows = self._rows([one for one, _ in found[:limit]])
        following = None
        if len(found) > limit:
            last = rows[-1]
            places = (last[name] for name in ("fingerprint", "identity", "number", "row"))
            following = Position(order, found[limit - 1][1], *places).encode()
        return Found([_hit(row) for row in rows], self.total(), following)

    def _stored(self, order: Order, most: int, after: Position | None) -> list[tuple[int, float]]:
        """The ids of the first rows in the order of the store, each with its value in the order."""
        place = "(p.fingerprint, p.identity, p.number)"
        of_last = "(?::varchar, ?::varchar, ?::integer)"
        later = Condition("true") if after is None else Condition(f"{place} >= {of_last}", list(after[2:5]))
        same = Condition("false") if after is None else Condition(f"{place} = {of_last}", list(after[2:5]))
        where = Condition.all_of([self.scope.parts, later])
        firsts, images, begun = self._columns(
            f"select p.first_id, p.images, ({same.sql})::integer from parts p where {where.sql} "
            f"order by {place}, p.first_id",
            [*same.values, *where.values],
        )
        # of the part of the last row only the rows after it
        if after is not None:
            passed = np.minimum(images, after.row + 1) * begun
            firsts, images = firsts + passed, images - passed
        # the first parts that have enough rows of the search, without those that have none
        numbers = counts(self.mask, firsts, images)
        few = np.flatnonzero(numbers)
        few = few[: np.searchsorted(np.cumsum(numbers[few]), most) + 1]
        ids: list[int] = []
        for first, number in zip(firsts[few].tolist(), images[few].tolist(), strict=True):
            ids += (first + np.flatnonzero(self.mask[first : first + number])).tolist()
        return [(one, 0.0) for one in ids[:most]]

    def _valued(self, order: Order, most: int, after: Position | None) -> list[tuple[int, float]]:
        """The ids of the first rows in an order by a value, each with its value."""
        where = Condition.all_of([self.among("r.id"), *([] if after is None else [after.after()])])
        value = _VALUES[order]
        found = self.fetch(
            f"select r.id, {value} from images r join parts p on r.part = p.id where {where.sql} "
            f"order by {value}, p.fingerprint, p.identity, p.number, r.id limit {most}",
            where.values,
        )
        return [(one, float(number)) for one, number in found]

    def _rows(self, ids: list[int]) -> list[dict[str, Any]]:
        """The rows with these ids, in this order."""
        self.cursor.execute(
            "select r.id, p.fingerprint, p.identity, p.number, p.attempt, r.id - p.first_id as row, r.* exclude (id) "
            "from images r join parts p on r.part = p.id where r.id in (select unnest(?::uinteger[]))",
            [ids],
        )
        names = [column[0] for column in self.cursor.description or ()]
        rows = {row[0]: dict(zip(names, row, strict=True)) for row in self.cursor.fetchall()}
        return [rows[one] for one in ids]


def _hit(row: dict[str, Any]) -> SearchHit:
    name = part_name(row["number"], row["attempt"])
    place = f"{row['fingerprint']}/{row['identity']}/{name}/{row['row']}"
    fields = ("key", "title", "words", "score", "has_text", "width", "height")
    return SearchHit(id=place, status=Status(STATUSES[row["status"]]), **{field: row[field] for field in fields})
