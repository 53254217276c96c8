"""Mixtures as text for a terminal: their sources, tasks, and samples that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from strata.cli.rendering.records import clean
from strata.data import Fault, SourceCheck, task_shares


def source_table(checks: Sequence[SourceCheck]) -> Table:
    """A table of sources, one a row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("source", "task"):
        table.add_column(name, no_wrap=True)
    for name in ("there", "trained on", "share"):
        table.add_column(name, justify="right")
    table.add_column("remarks")
    for check in checks:
        # a number that is not known, because the source is missing, stays empty
        numbers = ("" if number is None else f"{number:,}" for number in (check.supply, check.count))
        share = "" if check.share is None else f"{check.share:.1%}"
        table.add_row(clean(check.name), clean(check.task), *numbers, share, _remarks(check))
    whole = sum(check.count or 0 for check in checks)
    table.add_row("all", "", f"{sum(check.supply or 0 for check in checks):,}", f"{whole:,}", "", style="bold")
    return table


def _times(repeats: float) -> str:
    return f"{repeats:.2f}" if repeats < 10 else f"{repeats:,.0f}"


def _remarks(check: SourceCheck) -> Text:
    """What is wrong with a source, then what else should be known of it."""
    repeats = None if check.repeats is None else f"each sample {_times(check.repeats)} times"
    said = ((check.problem, "red"), (repeats, "yellow"), (check.note, "yellow"))
    return Text("; ").join(Text(clean(line), style) for line, style in said if line)


def fault_table(faults: Sequence[Fault], reported: bool) -> Table:
    """A table of the first samples that cannot be used, or whose image is incomplete. reported: all are in a file."""
    caption = None if reported else "the first of each source; --report FILE writes all"
    table = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
    for name in ("source", "sample", "what is wrong"):
        table.add_column(name, no_wrap=name == "source")
    for fault in faults:
        reason = clean(fault.reason) + (" (it is used nevertheless)" if fault.used else "")
        table.add_row(clean(fault.source), clean(fault.key), Text(reason, "yellow" if fault.used else "red"))
    return table


def task_table(checks: Sequence[SourceCheck]) -> Table:
    """A table of tasks with their shares, the largest first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("share", justify="right")
    for task, share in sorted(task_shares(checks).items(), key=lambda pair: -pair[1]):
        table.add_row(clean(task), f"{share:.1%}")
    return table
