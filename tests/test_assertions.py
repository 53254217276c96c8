"""Assertions of the tests that cannot fail: of a constant or a tuple, alone or as one arm of `and`, `or` and `if`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT


def arms(test: ast.expr) -> Iterator[ast.expr]:
    """The expressions of which one decides an assertion: `a == b if c else d` has the arms `a == b` and `d`."""
    if isinstance(test, ast.IfExp):
        parts = [test.body, test.orelse]
    elif isinstance(test, ast.BoolOp):
        parts = test.values
    else:
        yield test
        return
    for part in parts:
        yield from arms(part)


def cannot_fail(test: ast.expr) -> bool:
    """Whether an arm is true whatever the code does."""
    written_out = isinstance(test, (ast.Tuple, ast.List, ast.Set)) and bool(test.elts)
    return (
        written_out
        or isinstance(test, (ast.Dict, ast.JoinedStr))
        or (isinstance(test, ast.Constant) and bool(test.value))
    )


def empty_assertions(text: str) -> list[int]:
    """The lines of the assertions that cannot fail."""
    asserts = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assert)]
    return [node.lineno for node in asserts if any(cannot_fail(arm) for arm in arms(node.test))]


@pytest.mark.parametrize(
    "text",
    ["assert a == (4, 0) if b else (3, 1)", "assert a or 'b'", "assert (a, 'b')", "assert a and (b if c else [1])"],
)
def test_it_is_found(text: str) -> None:
    assert empty_assertions(text) == [1]


@pytest.mark.parametrize("text", ["assert a == ((4, 0) if b else (3, 1))", "assert a or not b", "assert a in ('b',)"])
def test_what_can_fail_passes(text: str) -> None:
    assert empty_assertions(text) == []


def test_every_assertion_can_fail() -> None:
    files = [path for folder in ("tests", "bench") for path in Path(CHECKOUT, folder).rglob("*.py")]
    found = {str(path): lines for path in files if (lines := empty_assertions(path.read_text(encoding="utf-8")))}
    assert len(files) > 100 and found == {}
