"""Rules by features: which rows a selection leaves out, under the name of the first rule that says so.

A rule is a name and a filter of what is left out: `blurred`, `sharpness < 20`. A row of which the value is not known
is left out too: a rule that protects people must not let pass what was not looked at. Nothing is removed from parts,
so the same rows are there again without the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from strata.core import RULE_NAME
from strata.errors import InvalidInput
from strata.snapshots.features import Kind
from strata.snapshots.filters import Filter, FilterError

Ints = np.typing.NDArray[np.int64]
SLICE = 10_000  # rows that are Python's objects at a time
BENCHMARK = "benchmark"  # the name under which rows are counted whose pictures are those of a benchmark


class RuleError(InvalidInput):
    """A rule that cannot be used. The message gives the reason in one line."""


@dataclass(frozen=True)
class LeftOut:
    """A row that a rule leaves out: part and row as in a snapshot, its key, the rule, and the values that it reads."""

    part: int
    row: int
    key: str
    rule: str
    values: Mapping[str, Any]


def rules_of(texts: Iterable[str]) -> dict[str, str]:
    """Parse NAME=FILTER (the option `--leave-out`). Raises RuleError and FilterError."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, expression = text.partition("=")
        name = name.strip()
        # `a == 1` without a name would be read as the name `a` and the filter `= 1`
        if not equals or expression.startswith("=") or not RULE_NAME.fullmatch(name):
            raise RuleError(f"--leave-out {text!r}: expected NAME=FILTER, such as 'blurred=sharpness < 20'")
        if name in found:
            raise RuleError(f"--leave-out: there are two rules {name!r}")
        found[name] = expression.strip()
    return checked_rules(found)


def checked_rules(rules: Mapping[str, str]) -> dict[str, str]:
    """The rules, if all of them can be used. Raises RuleError."""
    for name, expression in rules.items():
        if not RULE_NAME.fullmatch(name) or name == BENCHMARK:
            raise RuleError(f"{name[:60]!r} cannot be the name of a rule: a-z, 0-9 and _, and not {BENCHMARK!r}")
        try:
            Filter(expression)
        except FilterError as error:
            # columns of a user's own file are known only with it
            if "there is no feature" not in error.reason:
                raise RuleError(f"the rule {name!r}: {error}") from None
    return dict(rules)


def names_of(rules: Iterable[tuple[str, str]], own: Mapping[str, Kind]) -> set[str]:
    """The features that rules read. Raises FilterError."""
    return {name for _, expression in rules for name in Filter(expression, own).names}


def ruled(
    table: pa.Table, left: Ints, rules: Iterable[tuple[str, str]], own: Mapping[str, Kind]
) -> tuple[Ints, dict[str, Ints]]:
    """The indices of the rows that no rule leaves out, in order, and by rule those that it is the first to leave out.

    left: of the rows that are asked about, in order. Raises FilterError.
    """
    out: dict[str, Ints] = {}
    for name, expression in rules:
        # in lines of their own, because a filter may end with a comment
        passing = Filter(f"not (\n{expression}\n)", own).rows(table, left).to_numpy()
        out[name] = np.setdiff1d(left, passing, assume_unique=True)
        left = passing
    return left, out


def left_out(table: pa.Table, rules: Iterable[tuple[str, str]]) -> Iterator[LeftOut]:
    """The rows of a table of features that rules leave out, by rule, each with the values that its rule reads."""
    filters = dict(rules)
    _, out = ruled(table, np.arange(table.num_rows), filters.items(), {})
    for name, rows in out.items():
        columns = sorted(Filter(filters[name]).names)
        wanted = table.select(list(dict.fromkeys(["part", "row", "key", *columns])))
        for start in range(0, len(rows), SLICE):
            for row in wanted.take(pa.array(rows[start : start + SLICE])).to_pylist():
                yield LeftOut(row["part"], row["row"], row["key"], name, {column: row[column] for column in columns})
