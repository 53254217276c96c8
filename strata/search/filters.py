"""What is searched for: which rows, by what, and in which order; and the conditions in SQL that follow.

The texts of the conditions are written here. What callers give is in their values, which are passed as parameters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from strata.core import Status
from strata.search.extraction import LABELS, STATUSES, WORD
from strata.search.labels import label_of
from strata.search.words import number_of, words_of

Order = Literal["store", "best", "worst", "longest", "shortest"]


@dataclass(frozen=True)
class Condition:
    """A condition in SQL, and its values for the question marks in it."""

    sql: str
    values: list[Any] = field(default_factory=list)

    @classmethod
    def all_of(cls, conditions: Sequence[Condition]) -> Condition:
        """That all of them hold."""
        return cls(
            " and ".join(one.sql for one in conditions) or "true", [value for one in conditions for value in one.values]
        )


@dataclass(frozen=True)
class Scope:
    """Which rows are searched. parts: a condition on the table `parts p`; paths: of the parts, if it names them.

    rows: of a snapshot, the selected rows as two arrays: the index of the part in `paths`, and the row in it.
    """

    parts: Condition
    paths: Sequence[str] | None = None
    rows: tuple[np.typing.NDArray[np.int64], np.typing.NDArray[np.int64]] | None = None

    @classmethod
    def everything(cls) -> Scope:
        """The newest parts of the whole store."""
        return cls(Condition("p.latest"))

    @classmethod
    def of_shards(cls, shards: Collection[tuple[str, str]]) -> Scope:
        """The newest parts of some shards, each with its fingerprint and identity."""
        columns = [[fingerprint for fingerprint, _ in shards], [identity for _, identity in shards]]
        which = "(p.fingerprint, p.identity) in (select unnest(?::varchar[]), unnest(?::varchar[]))"
        return cls(Condition(f"p.latest and {which}", columns))

    @classmethod
    def of_job(cls, fingerprint: str, identities: Sequence[str], written: dict[str, list[int]] | None = None) -> Scope:
        """The newest parts of a job's shards. written: the only chunks that count, see `JobEnd`."""
        conditions = [Condition("p.latest and p.fingerprint = ?", [fingerprint])]
        conditions.append(Condition("p.identity in (select unnest(?::varchar[]))", [list(identities)]))
        if written is not None:
            pairs = [(identity, number) for identity, numbers in written.items() for number in numbers]
            columns = [[identity for identity, _ in pairs], [number for _, number in pairs]]
            conditions.append(
                Condition("(p.identity, p.number) in (select unnest(?::varchar[]), unnest(?::integer[]))", columns)
            )
        return cls(Condition.all_of(conditions))

    @classmethod
    def of_snapshot(
        cls, paths: Sequence[str], parts: np.typing.NDArray[np.int64], rows: np.typing.NDArray[np.int64]
    ) -> Scope:
        """Rows of parts, which may be those of earlier attempts."""
        return cls(Condition("p.path in (select unnest(?::varchar[]))", [list(paths)]), paths, (parts, rows))


class Term(NamedTuple):
    """A word or label of a search. kind: an index in LABELS, or WORD. wanted: whether rows must have it or must not."""

    kind: int
    text: str
    wanted: bool

    @property
    def number(self) -> int:
        """What stands for it in the index."""
        return number_of(self.text)


@dataclass(frozen=True)
class Query:
    """What rows must have.

    text: words that must all be in the row's texts; with a minus sign in front: that must not be. key: a part of the
    row's key. status: one of them. The labels (thing, tag, dropped, cut, failure) must all be there, in the form of
    `label_of`. Numbers are bounds, both included; a row without a score is in no range of scores.
    """

    text: str = ""
    key: str = ""
    status: tuple[Status, ...] = ()
    has_text: bool | None = None
    least_score: float | None = None
    most_score: float | None = None
    least_words: int | None = None
    most_words: int | None = None
    thing: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    failure: tuple[str, ...] = ()

    def condition(self) -> Condition:
        """The condition on the figures of the table `images r`."""
        found = []
        if self.status:
            numbers = [STATUSES.index(one) for one in self.status]
            found.append(Condition("r.status in (select unnest(?::utinyint[]))", [numbers]))
        if self.has_text is not None:
            found.append(Condition("r.has_text = ?", [self.has_text]))
        if self.key:
            # a file's name may have an accent as a mark of its own: macOS writes them so
            forms = sorted({unicodedata.normalize(form, self.key) for form in ("NFC", "NFD")} | {self.key})
            found.append(Condition(f"({' or '.join(['contains(r.key, ?)'] * len(forms))})", forms))
        for column, least, most in (
            ("score::double", self.least_score, self.most_score),
            ("words", self.least_words, self.most_words),
        ):
            found += [Condition(f"r.{column} >= ?", [least])] if least is not None else []
            found += [Condition(f"r.{column} <= ?", [most])] if most is not None else []
        return Condition.all_of(found)

    def terms(self) -> list[Term]:
        """The words and labels, each once."""
        found = []
        for token in self.text.split():
            wanted = len(token) == 1 or not token.startswith("-")
            found += [Term(WORD, word, wanted) for word in words_of(token)]
        for kind, name in enumerate(LABELS):
            found += [Term(kind, label_of(name, label), True) for label in getattr(self, name)]
        return list(dict.fromkeys(found))
