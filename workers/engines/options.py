"""How a run is asked for: its engine, and what Ray may take."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from strata.errors import InvalidInput
from workers.engines.groups import GroupMaker

Engine = Literal["local", "ray"]
REAL_GROUPS = "workers.engines.groups:real_group"


class Pool(NamedTuple):
    """How many actors of a group Ray may start, and what one takes. most: None: as many as there is room for.

    cpus, gpus: of one actor; None: as the engine finds right.
    """

    least: int = 1
    most: int | None = None
    cpus: float | None = None
    gpus: float | None = None


class Options(NamedTuple):
    """How a job is run.

    in_turn: `local` has the models of one group in memory at a time. notes: the file of death notes of `local`.
    address: of the Ray cluster; None: that of RAY_ADDRESS, or a Ray on this machine alone. pools: by group.
    groups: what makes the groups, as MODULE:FUNCTION, with keyword arguments.
    """

    engine: Engine = "local"
    in_turn: bool = False
    notes: Path | None = None
    address: str | None = None
    pools: Mapping[str, Pool] = {}
    groups: tuple[str, Mapping[str, Any]] = (REAL_GROUPS, {})


def group_maker(groups: tuple[str, Mapping[str, Any]]) -> GroupMaker:
    """The function that a MODULE:FUNCTION names, with keyword arguments."""
    module, _, name = groups[0].partition(":")
    make = getattr(importlib.import_module(module), name)
    return lambda *given: make(*given, **groups[1])


def pools_of(actors: Sequence[str], cpus: Sequence[str], gpus: Sequence[str]) -> dict[str, Pool]:
    """The pools of GROUP=LEAST[:MOST] and GROUP=NUMBER texts. Raises InvalidInput."""
    pools: dict[str, Pool] = {}
    for option, texts in (("--actors", actors), ("--cpus", cpus), ("--gpus", gpus)):
        for text in texts:
            group, _, value = text.partition("=")
            if group not in ("vision", "llm"):
                raise InvalidInput(f"{option} {text!r}: expected vision=NUMBER or llm=NUMBER")
            pool = pools.get(group, Pool())
            try:
                pools[group] = _with(pool, option, value)
            except ValueError as error:
                raise InvalidInput(f"{option} {text!r}: {error}") from error
    return pools


def _with(pool: Pool, option: str, value: str) -> Pool:
    if option == "--actors":
        least, colon, most = value.partition(":")
        found = pool._replace(least=int(least), most=int(most) if colon else int(least))
        if not 1 <= found.least <= (found.most or 0):
            raise ValueError("expected LEAST:MOST, both at least 1")
        return found
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError("expected a number that is not negative")
    return pool._replace(cpus=number) if option == "--cpus" else pool._replace(gpus=number)
