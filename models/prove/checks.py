"""Making checks: a share of things that were right, with those that were not, against a bound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from strata.core import Check

TOLD = 4  # faults that a check names
LONGEST = 160  # characters of a text in a check


def at_least(stage: str, name: str, value: float, least: float, faults: Iterable[str] = ()) -> Check:
    """A check that passes if the value reaches the bound. A value that is no number fails."""
    return _check(stage, name, value, value >= least, faults, least=least)


def at_most(stage: str, name: str, value: float, most: float, faults: Iterable[str] = ()) -> Check:
    """A check that passes if the value does not exceed the bound. A value that is no number fails."""
    return _check(stage, name, value, value <= most, faults, most=most)


def share_at_least(stage: str, name: str, faults: Sequence[str | None], least: float) -> Check:
    """A check of the share of things that are right. faults: for each thing what is wrong with it, None if nothing is.

    Raises ValueError if there are none: a check of nothing would always pass.
    """
    return at_least(stage, name, _right(faults, f"{stage} {name}"), least, filter(None, faults))


def share_at_most(stage: str, name: str, faults: Sequence[str | None], most: float) -> Check:
    """A check of the share of things that are wrong; of no things, 0."""
    wrong = [fault for fault in faults if fault is not None]
    return at_most(stage, name, len(wrong) / max(1, len(faults)), most, wrong)


def failed(stage: str, name: str, reason: str) -> Check:
    """A check that could not be measured."""
    return Check(stage=stage, name=name, passed=False, detail=shortened(reason, 300))


def passed(stage: str, name: str) -> Check:
    """A check that has passed without a number."""
    return Check(stage=stage, name=name, passed=True)


def shortened(text: str, longest: int = LONGEST) -> str:
    """A text in one line without control characters, cut to a length."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _right(faults: Sequence[str | None], about: str) -> float:
    if not faults:
        raise ValueError(f"{about}: the pictures have nothing to ask about")
    return sum(fault is None for fault in faults) / len(faults)


def _check(
    stage: str,
    name: str,
    value: float,
    has_passed: bool,
    faults: Iterable[str],
    least: float | None = None,
    most: float | None = None,
) -> Check:
    found = list(faults)
    told = [shortened(fault) for fault in found[:TOLD]] + ([f"{len(found) - TOLD} more"] if len(found) > TOLD else [])
    number = None if math.isnan(value) else round(value, 4)
    return Check(
        stage=stage, name=name, passed=has_passed, value=number, least=least, most=most, detail="; ".join(told)
    )
