"""Checks of a mixture before a training: what each source has, what is missing, and the shares of sources and tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from pydantic import BaseModel

from strata.addresses import without_secrets
from strata.data.mixture_files import Locations, MixtureFile, SourceSettings, counts_of
from strata.data.mixtures import MixtureError
from strata.data.sources.samples import SampleSource, TableSource
from strata.errors import plain_line

MOST_BAD = 0.01  # share of a source's entries that may be unusable


class SourceCheck(BaseModel):
    """The result of checking one source.

    supply: the number of its samples; count: the number in the mixture; share: that of the mixture, 0 to 1; repeats:
    how often each sample is in the mixture on average, if that is more than once; each None if not known. problem: the
    reason why the source cannot be used, or None. note: what else should be known of it, or None. broken: the number of
    samples that cannot be used; incomplete: of those with an image whose end is missing; None if the images
    were not decoded. unfit: of those that a training leaves out, among the samples that were tried for it, or None.
    """

    name: str
    task: str
    supply: int | None
    count: int | None
    share: float | None = None
    repeats: float | None = None
    problem: str | None
    note: str | None = None
    broken: int | None = None
    incomplete: int | None = None
    unfit: int | None = None


def check_mixture(file: MixtureFile, locations: Locations, on_source: Callable[[str], object]) -> list[SourceCheck]:
    """Check every source, also after a problem. on_source: called with each source's name before it is checked."""
    checks = []
    for settings in file.sources:
        on_source(settings.name)
        checks.append(_check(settings, locations))
    # counts by weights need the supplies of all sources
    weights = [source.weight for source in file.sources]
    supplies = [check.supply or 0 for check in checks]
    if all(supplies):
        for check, count in zip(checks, counts_of(file.sources, supplies), strict=True):
            check.count = count
    for check in checks:
        if check.supply and check.count and check.count > check.supply:
            check.repeats = check.count / check.supply
    _add_shares(checks, weights if weights[0] is not None else [check.count for check in checks])
    return checks


def _check(settings: SourceSettings, locations: Locations) -> SourceCheck:
    known = SourceCheck(
        name=settings.name, task=settings.task or settings.name, supply=None, count=settings.count, problem=None
    )
    origin = [f"the data is from {settings.origin}"] if settings.origin else []
    try:
        # opening reads the list of samples; `missing` looks for the files with the images
        source = locations.open(settings)
        missing = source.missing()
    except (MixtureError, OSError) as error:
        known.problem = _told([plain_line(error).removeprefix(f"{settings.name}: "), *origin])
        return known
    known.supply = len(source)
    problems, notes = [], []
    if missing.lines:
        many = f" (the first of {len(missing.lines):,})" if len(missing.lines) > 1 else ""
        problems.append(missing.lines[0] + many)
    if missing.not_asked:
        notes.append(f"images on web servers that were not looked for: {missing.not_asked:,}; --decode reads all")
    # single entries that are no samples are left out by the reader; many are a fault of the file
    bad, first = source.problems()
    if bad:
        many_bad = bad > MOST_BAD * len(source)
        line = f"{bad:,} of {len(source):,} entries cannot be used; the first: {first}"
        (problems if many_bad else notes).append(line)
    notes += left_out_lines(source)
    known.problem, known.note = _told([*problems, *origin] if problems else []), _told(notes)
    return known


def left_out_lines(source: SampleSource) -> list[str]:
    """A line for each reason why samples of a source's files are not among its samples."""
    left_out = source.table.left_out if isinstance(source, TableSource) else {}
    return [f"{count:,} left out: {reason}" for reason, count in left_out.items()]


def _told(lines: Sequence[str]) -> str | None:
    return without_secrets("; ".join(lines)) or None


def _add_shares(checks: Sequence[SourceCheck], parts: Sequence[float | None]) -> None:
    """Set the share of each source whose part of the mixture (a weight or a count) is known."""
    whole = sum(part or 0 for part in parts)
    for check, part in zip(checks, parts, strict=True):
        check.share = part / whole if part is not None and whole else None


def task_shares(checks: Sequence[SourceCheck]) -> dict[str, float]:
    """The share of each task: the sum of its sources' known shares."""
    shares: dict[str, float] = defaultdict(float)
    for check in checks:
        shares[check.task] += check.share or 0.0
    return dict(shares)
