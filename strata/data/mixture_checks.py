"""What a mixture's sources hold against what is asked of them, without stopping at the first that lacks something."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from pydantic import BaseModel

from strata.data.mixture_files import MixtureFile, Places, SourceSettings, counts_of
from strata.data.mixtures import MixtureError


class SourceCheck(BaseModel):
    """One source. supply: samples that are there; count: those that are trained on; None where not known.

    share: of the mixture, 0 to 1. problem: what is missing, or None.
    """

    name: str
    task: str
    supply: int | None
    count: int | None
    share: float | None = None
    problem: str | None


def check_mixture(file: MixtureFile, places: Places, on_source: Callable[[str], object]) -> list[SourceCheck]:
    """Look at every source; on_source is told its name before."""
    checks = []
    for settings in file.sources:
        on_source(settings.name)
        checks.append(_check(settings, places))
    weights = [source.weight for source in file.sources]
    supplies = [check.supply or 0 for check in checks]
    if all(check.supply for check in checks):
        for check, count in zip(checks, counts_of(file.sources, supplies), strict=True):
            check.count = count
    _add_shares(checks, weights if weights[0] is not None else [check.count for check in checks])
    return checks


def _check(settings: SourceSettings, places: Places) -> SourceCheck:
    known = SourceCheck(
        name=settings.name, task=settings.task or settings.name, supply=None, count=settings.count, problem=None
    )
    try:
        source = places.open(settings)
        missing = source.missing()
    except (MixtureError, OSError) as error:
        known.problem = str(error).removeprefix(f"{settings.name}: ")
        return known
    known.supply = len(source)
    if missing:
        known.problem = missing[0] + (f" (the first of {len(missing):,})" if len(missing) > 1 else "")
    elif settings.count is not None and settings.count > len(source):
        known.problem = f"{settings.count:,} samples are asked for, there are {len(source):,}"
    return known


def _add_shares(checks: Sequence[SourceCheck], parts: Sequence[float | None]) -> None:
    """Shares of the whole, as far as it is known what each source gives to it."""
    whole = sum(part or 0 for part in parts)
    for check, part in zip(checks, parts, strict=True):
        check.share = part / whole if part is not None and whole else None


def task_shares(checks: Sequence[SourceCheck]) -> dict[str, float]:
    """The share of each task, as far as known."""
    shares: dict[str, float] = defaultdict(float)
    for check in checks:
        shares[check.task] += check.share or 0.0
    return dict(shares)
