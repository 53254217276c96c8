"""Expand the braces of a pattern: `{00000..00331}` is a range, `{a,b}` a list, several braces give their product.

What a pattern stands for is counted before a name is made: 4 kB of text can stand for 10^1860 names.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from strata.shards.roots import MAX_URI, SourceError, short

MAX_SHARDS = 100_000  # names that the patterns of one request stand for
MAX_NAMES = 16 * 2**20  # characters of all these names together
_DIGITS = 15  # of a number in a range
_PIECE = re.compile(r"([^{}]+)|\{([^{}]*)\}|.", re.DOTALL)
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")


class TooManyShards(SourceError):
    """A request names more shards than one job may have, or does so at too great a length."""


class _Numbers(NamedTuple):
    """The numbers of a range, both ends included; width: digits to which they are padded with zeros, or 0."""

    first: int
    last: int
    width: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    @property
    def longest(self) -> int:
        return max(self.width, len(str(self.last)))

    def texts(self) -> Iterator[str]:
        return (f"{number:0{self.width}d}" for number in range(self.first, self.last + 1))


class _Texts(NamedTuple):
    """The texts of a list in braces, or one literal text."""

    given: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.given)

    @property
    def longest(self) -> int:
        return max(map(len, self.given))

    def texts(self) -> Iterator[str]:
        return iter(self.given)


class Expansion:
    """Expands the patterns of one request, and counts what they stand for."""

    def __init__(self) -> None:
        self.names = 0
        self.characters = 0

    def names_of(self, pattern: str, named: str = "") -> Iterator[str]:
        """Yield the names of a pattern, in order; zero padding is kept.

        named: what messages call the pattern, if they must not quote it. Raises SourceError for braces that are neither
        a range nor a list (a typo would otherwise become the name of a missing file), and TooManyShards, before the
        first name, if the patterns so far have more than MAX_SHARDS names or more than MAX_NAMES characters.
        """
        place = named or short(pattern)
        pieces = list(_pieces(pattern, place))
        self._count(pieces, place)
        for parts in itertools.product(*(piece.texts() for piece in pieces)):
            yield "".join(parts)

    def _count(self, pieces: list[_Numbers | _Texts], place: str) -> None:
        count = math.prod(piece.size for piece in pieces)
        self.names += count
        if self.names > MAX_SHARDS:
            raise TooManyShards(f"{place}: more than {MAX_SHARDS:,} shards in one request")
        # one long text in braces may become a part of every name
        self.characters += count * sum(piece.longest for piece in pieces)
        if self.characters > MAX_NAMES:
            raise TooManyShards(f"{place}: the names of the shards have more than {MAX_NAMES:,} characters")


def expand(pattern: str) -> list[str]:
    """The names of one pattern, each once. Raises as `Expansion.names_of` does."""
    return list(dict.fromkeys(Expansion().names_of(pattern)))


def _pieces(pattern: str, place: str) -> Iterator[_Numbers | _Texts]:
    """Split a pattern into pieces with alternative texts; its names are the product of the pieces."""
    if not pattern.strip():
        raise SourceError("the name of a shard is empty")
    if len(pattern) > MAX_URI:
        raise SourceError(f"{place}: longer than {MAX_URI:,} characters")
    for match in _PIECE.finditer(pattern):
        literal, brace = match.groups()
        if literal:
            yield _Texts((literal,))
        elif brace:
            yield _alternatives(brace, place)
        else:
            raise SourceError(f"{place}: braces that are empty, nested or not closed")


def _alternatives(brace: str, place: str) -> _Numbers | _Texts:
    match = _RANGE.fullmatch(brace)
    if match:
        return _numbers(match[1], match[2], place)
    # not a range: a list of at least two texts
    parts = brace.split(",")
    if len(parts) < 2 or not all(parts) or ".." in brace:
        hint = "write a range as {00000..00331}, a list as {a,b}"
        raise SourceError(f"{place}: a brace is neither a range nor a list; {hint}")
    return _Texts(tuple(parts))


def _numbers(low: str, high: str, place: str) -> _Numbers:
    if max(len(low), len(high)) > _DIGITS:
        raise SourceError(f"{place}: a number of a range has more than {_DIGITS} digits")
    if int(high) < int(low):
        raise SourceError(f"{place}: a range runs backwards")
    # a leading zero in either bound sets the width of all numbers
    padded = (len(low) > 1 and low[0] == "0") or (len(high) > 1 and high[0] == "0")
    return _Numbers(int(low), int(high), max(len(low), len(high)) if padded else 0)
