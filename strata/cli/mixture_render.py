"""The tables of `strata mixture check`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from strata.cli.render import clean
from strata.data import SourceCheck, task_shares


def source_table(checks: Sequence[SourceCheck]) -> Table:
    """A table of sources, one a row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("source", "task"):
        table.add_column(name, no_wrap=True)
    for name in ("there", "trained on", "share"):
        table.add_column(name, justify="right")
    table.add_column("missing")
    for check in checks:
        # a number that is not known, because the source is missing, stays empty
        numbers = ("" if number is None else f"{number:,}" for number in (check.supply, check.count))
        share = "" if check.share is None else f"{check.share:.1%}"
        problem = Text(clean(check.problem or ""), "red")
        table.add_row(clean(check.name), clean(check.task), *numbers, share, problem)
    whole = sum(check.count or 0 for check in checks)
    table.add_row("all", "", f"{sum(check.supply or 0 for check in checks):,}", f"{whole:,}", "", style="bold")
    return table


def task_table(checks: Sequence[SourceCheck]) -> Table:
    """A table of tasks with their shares, the largest first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("share", justify="right")
    for task, share in sorted(task_shares(checks).items(), key=lambda pair: -pair[1]):
        table.add_row(clean(task), f"{share:.1%}")
    return table
