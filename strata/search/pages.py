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
from strata.search.extraction import STATUSES
from strata.search.filters import Condition, Order, Query, Scope

FEW = 10_000  # rows, up to which their ids are passed instead of a mask of all rows
Bools = np.typing.NDArray[np.bool_]

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
        """That a row comes later."""
        value = _VALUES[self.order]  # type: ignore[index]
        place = "(p.fingerprint, p.identity, p.number, r.id - p.first_id)"
        later = f"{place} > (?::varchar, ?::varchar, ?::integer, ?::bigint)"
        if self.order == "store":
            return Condition(later, list(self[2:]))
        return Condition(f"({value} > ? or ({value} = ? and {later}))", [self.value, self.value, *self[2:]])


class Found(NamedTuple):
    """A page: its rows, how many rows the whole search has, and the cursor of the next page; None on the last one."""

    hits: list[SearchHit]
    total: int
    next: str | None


class Search:
    """One search with a cursor of the database, which another thread may interrupt."""

    def __init__(self, cursor: Cursor, scope: Scope, query: Query) -> None:
        self.cursor, self.scope = cursor, scope
        # all that follows sees the index as it is now
        cursor.begin()
        ((count,),) = self.fetch("select coalesce(max(first_id + images), 0) from parts")
        self.count = int(count)
        condition = query.condition()
        among = self._among(query)
        self.filtered = bool(among) or condition.sql != "true"
        self.condition = Condition.all_of([scope.parts, condition, *among])

    def _among(self, query: Query) -> list[Condition]:
        """That a row has the words and labels, and is one of the snapshot's."""
        postings = query.postings()
        if not postings and self.scope.rows is None:
            return []
        mask = np.ones(self.count, bool) if self.scope.rows is None else self._chosen()
        # a mask of all rows takes a thousandth of the time of a join for words that millions of rows have
        for posting, wanted in postings:
            has = self._mask(posting.sql, posting.values)
            mask &= has if wanted else ~has
        return [self.masked("r.id", mask)]

    def masked(self, column: str, mask: Bools) -> Condition:
        """That the id of a row in a column is one of those that a mask of all rows has."""
        if mask.sum() > FEW:
            return Condition(f"get_bit(?::blob::bit, {column}::integer) = 1", [np.packbits(mask).tobytes()])
        # of few rows only the blocks are read in which they lie
        return Condition(f"{column} in (select unnest(?::uinteger[]))", [np.flatnonzero(mask).tolist()])

    def found(self) -> Bools:
        """A mask of all rows that the search has."""
        where = self.condition
        return self._mask(f"select r.id from images r join parts p on r.part = p.id where {where.sql}", where.values)

    def _mask(self, query: str, values: Sequence[Any]) -> Bools:
        """A mask of the rows whose ids a query gives in its only column."""
        (ids,) = self.cursor.execute(query, list(values)).fetchnumpy().values()
        mask = np.zeros(self.count, bool)
        mask[ids] = True
        return mask

    def _chosen(self) -> Bools:
        """The rows of the snapshot in the index; those of parts that it does not have are left out."""
        assert self.scope.rows is not None and self.scope.paths is not None
        known = dict(self.fetch("select p.path, p.first_id from parts p where p.broken is null"))
        firsts = np.array([known.get(path, -1) for path in self.scope.paths], np.int64)
        parts, rows = self.scope.rows
        there = firsts[parts] >= 0
        mask = np.zeros(self.count, bool)
        mask[(firsts[parts] + rows)[there]] = True
        return mask

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
        if not self.filtered:
            query = f"select coalesce(sum(p.images), 0) from parts p where {self.scope.parts.sql}"
            return int(self.fetch(query, self.scope.parts.values)[0][0])
        query = f"select count(*) from images r join parts p on r.part = p.id where {self.condition.sql}"
        return int(self.fetch(query, self.condition.values)[0][0])

    def page(self, order: Order, limit: int, cursor: str | None) -> Found:
        """At most limit rows from a cursor on. Raises BadSearchCursor."""
        after = [] if cursor is None else [Position.decode(cursor, order).after()]
        where, value = Condition.all_of([self.condition, *after]), _VALUES[order]
        # one row more shows whether another page follows
        found = self.fetch(
            f"select r.id, {value} from images r join parts p on r.part = p.id where {where.sql} "
            f"order by {value}, p.fingerprint, p.identity, p.number, r.id limit {int(limit) + 1}",
            where.values,
        )
        rows = self._rows([one for one, _ in found[:limit]])
        following = None
        if len(found) > limit:
            last = rows[-1]
            places = (last[name] for name in ("fingerprint", "identity", "number", "row"))
            following = Position(order, found[limit - 1][1], *places).encode()
        return Found([_hit(row) for row in rows], self.total(), following)

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
