"""What a stage is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from strata.core import Check


@dataclass(frozen=True)
class Questions:
    """The items of a stage with their names, and the judge of its results, which come in the same order."""

    items: list[Any]
    names: list[str]
    judge: Callable[[list[Any]], list[Check]]
