"""Filters: an expression over the features of a row, such as `objects >= 2 and text`, read by Python's own parser."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from strata.errors import InvalidInput
from strata.snapshots.features import FEATURES, Kind

MAX_LENGTH, SHOWN = 10_000, 80  # characters
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


class FilterError(InvalidInput):
    """An expression that is not a filter; the message is one line with the reason."""

    def __init__(self, text: str, reason: str) -> None:
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        super().__init__(f"the filter {shown!r} cannot be read: {reason}")
        self.reason = reason


class _Refused(ValueError):
    pass


@dataclass(frozen=True)
class _Value:
    """A part of an expression: the kind of its values, and the Arrow expression."""

    kind: Kind
    expression: Any


class Filter:
    """An expression: features (by name), numbers, texts, True, False; < <= == != >= >, `in`, + - * /, and, or, not.

    names: the features it asks for. Raises FilterError.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        try:
            if len(text) > MAX_LENGTH:
                raise _Refused(f"it is longer than {MAX_LENGTH} characters")
            self._expression = self._read(ast.parse(text.strip(), mode="eval").body, "flag").expression
        except _Refused as error:
            raise FilterError(text, str(error)) from None
        except (RecursionError, MemoryError):
            raise FilterError(text, "it is nested too deeply") from None
        except (SyntaxError, ValueError, OverflowError) as error:
            raise FilterError(text, getattr(error, "msg", str(error))) from None

    def rows(self, table: pa.Table) -> pa.Array:
        """The indices of the rows of a table of features that pass, in order. Raises FilterError."""
        indexed = table.append_column("", pa.array(range(table.num_rows), pa.int64()))
        try:
            return indexed.filter(self._expression).column("").combine_chunks()
        except (pa.ArrowException, NotImplementedError) as error:
            raise FilterError(self.text, str(error).partition("\n")[0]) from None

    def _read(self, node: ast.expr, kind: Kind | None = None) -> _Value:
        """A node's value. Raises _Refused for a forbidden operation, or a value of another kind than wanted."""
        value = self._value(node)
        if kind not in (None, value.kind):
            what = {"number": "a number", "flag": "yes or no", "name": "a text"}
            raise _Refused(f"{ast.unparse(node)!r} is {what[value.kind]}, and {what[kind]} must stand there")
        return value

    def _value(self, node: ast.expr) -> _Value:
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
        raise _Refused(f"{ast.unparse(node)!r} is not allowed in a filter")

    def _feature(self, name: str) -> _Value:
        if name not in FEATURES:
            raise _Refused(f"there is no feature {name!r}; there are: {', '.join(FEATURES)}")
        self.names.add(name)
        return _Value(FEATURES[name].kind, pc.field(name))

    def _compare(self, sides: list[ast.expr], operations: list[ast.cmpop]) -> _Value:
        """A comparison, or a chain of them: all must hold."""
        whole = None
        for left, operation, right in zip(sides, operations, sides[1:], strict=False):
            if isinstance(operation, ast.In | ast.NotIn):
                piece = self._among(left, right)
                piece = piece if isinstance(operation, ast.In) else ~piece
            elif type(operation) in _COMPARE:
                first = self._read(left)
                piece = _COMPARE[type(operation)](first.expression, self._read(right, first.kind).expression)
            else:
                raise _Refused("`is` is not allowed in a filter")
            whole = piece if whole is None else whole & piece
        return _Value("flag", whole)

    def _among(self, left: ast.expr, right: ast.expr) -> Any:
        value = self._read(left)
        entries = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else []
        constants = [entry.value for entry in entries if isinstance(entry, ast.Constant)]
        if not constants or len(constants) < len(entries) or any(_kind(one) != value.kind for one in constants):
            raise _Refused(f"after `in` a list of constants must stand, not {ast.unparse(right)!r}")
        return value.expression.isin(constants)


def _kind(constant: object) -> Kind:
    return "flag" if isinstance(constant, bool) else "name" if isinstance(constant, str) else "number"
