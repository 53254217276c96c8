"""Filters: expressions over the features of a row, such as `objects >= 2 and text`.

Python's own parser makes the syntax tree; only the nodes that are listed here are accepted, and none is executed.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.errors import InvalidInput
from strata.snapshots.features import FEATURES, Kind

Ints = np.typing.NDArray[np.int64]
_LONE_EQUALS = re.compile(r"(?<![<>=!])=(?!=)")
MAX_LENGTH, SHOWN, SHOWN_THERE = 10_000, 80, 20  # characters: of a filter, and of what an error shows
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


_CALLS = {"lower": "lower(TEXT)", "len": "len(TEXT)", "matches": "matches(TEXT, 'REGEX')"}


class FilterError(InvalidInput):
    """An expression that is not a valid filter. The message gives the reason in one line."""

    def __init__(self, text: str, reason: str) -> None:
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        super().__init__(f"the filter {shown!r} cannot be read: {reason}")
        self.reason = reason


class _Refused(ValueError):
    """A part of an expression that is not allowed; the message gives the reason."""


@dataclass(frozen=True)
class _Value:
    """A part of an expression: its kind, and the pyarrow expression that computes it."""

    kind: Kind
    expression: Any


class Expression:
    """An expression of feature names, numbers, texts, True, False; < <= == != >= >, `in`, + - * /, and, or, not.

    `'dog' in description` asks for a part of a text, `lower(TEXT)` and `len(TEXT)` are its lower case and its
    characters, and `matches(TEXT, 'REGEX')` asks whether a regular expression (RE2) is found in it.

    names: the features that it uses; columns: these, and columns of the user's own file. own: all such columns, with
    their kinds. kind: of its value. Raises FilterError.
    """

    def __init__(self, text: str, own: Mapping[str, Kind] | None = None, kind: Kind = "number") -> None:
        self.text, self._own = text, own or {}
        self.names: set[str] = set()
        self.columns: set[str] = set()
        # translate the syntax tree; every error becomes a FilterError of one line
        try:
            if len(text) > MAX_LENGTH:
                raise _Refused(f"it is longer than {MAX_LENGTH} characters")
            if not text.strip():
                raise _Refused("it is empty")
            self._expression = self._read(ast.parse(text.strip(), mode="eval").body, kind).expression
        except _Refused as error:
            raise FilterError(text, str(error)) from None
        except (RecursionError, MemoryError):
            raise FilterError(text, "it is nested too deeply") from None
        except (SyntaxError, ValueError, OverflowError) as error:
            hint = "; two values are compared with ==" if _LONE_EQUALS.search(text) else ""
            fault = f"{error.msg}{_place(error, text)}" if isinstance(error, SyntaxError) else str(error)
            raise FilterError(text, f"{fault}{hint}") from None

    def values(self, table: pa.Table) -> np.typing.NDArray[np.float64]:
        """The number of each row of a table of features, NaN where it is not known. Raises FilterError."""
        # few commands need it, and its import looks for pandas
        from pyarrow.dataset import dataset

        try:
            found = dataset(table).to_table(columns={"value": self._expression}).column("value")
        except (pa.ArrowException, NotImplementedError) as error:
            raise FilterError(self.text, str(error).partition("\n")[0]) from None
        numbers: np.typing.NDArray[np.float64] = found.cast(pa.float64()).to_numpy()
        return numbers

    def _read(self, node: ast.expr, kind: Kind | None = None) -> _Value:
        """Translate a node. Raises _Refused if it is not allowed, or if it is not of the kind (if given)."""
        value = self._value(node)
        if kind not in (None, value.kind):
            what = {"number": "a number", "flag": "yes or no", "name": "a text"}
            raise _Refused(f"{ast.unparse(node)!r} is {what[value.kind]}, but {what[kind]} is expected there")
        return value

    def _value(self, node: ast.expr) -> _Value:
        """Translate a node of any allowed type. Raises _Refused."""
        match node:
            case ast.Name(name):
                return self._feature(name)
            case ast.Constant(bool() | int() | float() | str() as constant):
                return _Value(_kind(constant), pc.scalar(constant))
            case ast.UnaryOp(ast.Not(), operand):
                return _Value("flag", ~self._read(operand, "flag").expression)
            case ast.UnaryOp(ast.USub(), operand):
                return _Value("number", pc.negate(self._read(operand, "number").expression))
            case ast.BinOp(left, operation, right) if type(operation) in _ARITHMETIC:
                # in float64: integers would overflow, and their division would be truncated
                sides = [self._read(side, "number").expression.cast(pa.float64()) for side in (left, right)]
                return _Value("number", _ARITHMETIC[type(operation)](*sides))
            case ast.BoolOp(operation, values):
                join = operator.and_ if isinstance(operation, ast.And) else operator.or_
                pieces = [self._read(value, "flag").expression for value in values]
                for piece in pieces[1:]:
                    pieces[0] = join(pieces[0], piece)
                return _Value("flag", pieces[0])
            case ast.Compare(left, operations, rights):
                return self._compare([left, *rights], operations)
            case ast.Call(ast.Name(name), arguments, []) if name in ("lower", "len", "matches"):
                return self._call(name, arguments)
        raise _Refused(f"{ast.unparse(node)!r} is not allowed in a filter")

    def _feature(self, name: str) -> _Value:
        if name not in self._own and name not in FEATURES:
            raise _Refused(f"there is no feature {name!r}; there are: {', '.join([*FEATURES, *self._own])}")
        self.columns.add(name)
        if name in self._own:
            return _Value(self._own[name], pc.field(name))
        self.names.add(name)
        return _Value(FEATURES[name].kind, pc.field(name))

    def _call(self, name: str, arguments: list[ast.expr]) -> _Value:
        """Translate lower(TEXT), len(TEXT) or matches(TEXT, 'REGEX')."""
        match name, arguments:
            case "lower", [text]:
                return _Value("name", pc.utf8_lower(self._read(text, "name").expression))
            case "len", [text]:
                return _Value("number", pc.utf8_length(self._read(text, "name").expression))
            case "matches", [text, ast.Constant(str() as pattern)]:
                return _Value("flag", pc.match_substring_regex(self._read(text, "name").expression, pattern))
        raise _Refused(f"{name} is used as {_CALLS[name]}")

    def _compare(self, sides: list[ast.expr], operations: list[ast.cmpop]) -> _Value:
        """Translate a comparison, or a chain such as 1 < objects < 4, all of whose comparisons must hold."""
        whole = None
        for left, operation, right in zip(sides, operations, sides[1:], strict=False):
            if isinstance(operation, ast.In | ast.NotIn):
                piece = self._among(left, right)
                piece = piece if isinstance(operation, ast.In) else ~piece
            # both sides must be of the same kind
            elif type(operation) in _COMPARE:
                first = self._read(left)
                piece = _COMPARE[type(operation)](first.expression, self._read(right, first.kind).expression)
            else:
                raise _Refused("`is` is not allowed in a filter")
            whole = piece if whole is None else whole & piece
        return _Value("flag", whole)

    def _among(self, left: ast.expr, right: ast.expr) -> Any:
        """Translate `left in right`: right is a tuple, list or set of constants of left's kind, or a text feature."""
        if isinstance(left, ast.Constant) and isinstance(right, ast.Name | ast.Call):
            if not isinstance(left.value, str):
                raise _Refused(f"a text is expected before `in`, not {ast.unparse(left)!r}")
            return pc.match_substring(self._read(right, "name").expression, left.value)
        value = self._read(left)
        entries = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else []
        constants = [entry.value for entry in entries if isinstance(entry, ast.Constant)]
        if not constants or len(constants) < len(entries) or any(_kind(one) != value.kind for one in constants):
            raise _Refused(f"a list of constants is expected after `in`, not {ast.unparse(right)!r}")
        return value.expression.isin(constants)


def _place(error: SyntaxError, text: str) -> str:
    """Where a filter cannot be read, counted in characters from 1, and what is there."""
    if error.offset is None:
        return ""
    lines = text.strip().splitlines(keepends=True)[: error.lineno or 1]
    blanks, line = len(text) - len(text.lstrip()), lines[-1] if lines else ""
    at = blanks + sum(map(len, lines[:-1])) + (error.offset or len(line) + 1) - 1
    there, before = " ".join(text[at:].split()), " ".join(text[:at].split())
    if not there:
        return f" at its end, after {before[-SHOWN_THERE:]!r}"
    return f" at character {at + 1}, {there[:SHOWN_THERE]!r}"


def _kind(constant: object) -> Kind:
    return "flag" if isinstance(constant, bool) else "name" if isinstance(constant, str) else "number"


class Filter(Expression):
    """An expression that is yes or no. Raises FilterError."""

    def __init__(self, text: str, own: Mapping[str, Kind] | None = None) -> None:
        super().__init__(text, own, "flag")

    def rows(self, table: pa.Table, among: Ints | None = None) -> pa.Array:
        """The indices of the rows of a table of features that pass, in order. among: of which rows; None: of all.

        Raises FilterError.
        """
        # its own columns alone, since others may be long texts of millions of rows; and the index of each row, under a
        # name that no feature can have
        indices = pa.array(np.arange(table.num_rows) if among is None else among)
        columns = {name: table.column(name) for name in self.columns}
        columns = columns if among is None else {name: one.take(indices) for name, one in columns.items()}
        numbered = pa.table({**columns, "": indices})
        try:
            return numbered.filter(self._expression).column("").combine_chunks()
        except (pa.ArrowException, NotImplementedError) as error:
            raise FilterError(self.text, str(error).partition("\n")[0]) from None
