"""Previews and estimates of submissions as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from rich.table import Table
from rich.text import Text

from strata.cli.rendering.records import clean
from strata.core import BatchPreview, Estimate, Figure, GroupEstimate
from strata.counts import counted

Form = Callable[[float], str]

PROPOSED = 200  # images of a sample


def number(value: float) -> str:
    """A number with three digits that count: an estimate has no more."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = round(value, 2 - _power(value))
    return f"{rounded:,.{max(0, 2 - _power(rounded))}f}"


def _power(value: float) -> int:
    """The power of ten of a number's first digit."""
    return math.floor(math.log10(abs(value)))


def span(seconds: float) -> str:
    """A time in the unit that gives it a few digits."""
    for unit, least, name in ((86_400, 3, "days"), (3600, 2, "h"), (60, 2, "min")):
        if seconds >= unit * least:
            return f"{number(seconds / unit)} {name}"
    return f"{number(seconds)} s"


def size(value: float) -> str:
    """A number of bytes."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= unit:
            return f"{number(value / unit)} {name}"
    return f"{value:.0f} bytes"


def preview_lines(found: BatchPreview, where: str | None = None) -> Text:
    """What a submission would compute, by what is known without describing an image. where: a filter of its rows."""
    about = "" if found.looked_at == found.shards else "about "
    looked = "" if not about else f" ({found.looked_at:,} looked at)"
    lines = [f"{counted(found.shards, 'shard')}{looked}"]
    if found.images is None:
        lines.append("images: not known")
    elif found.reused is None:
        lines.append(f"{about}{counted(found.images, 'image')}; how many have results, which are copied, is not known")
    else:
        failed = f", {about}{found.failed:,} of which failed" if found.failed else ""
        lines.append(f"{about}{counted(found.images, 'image')}, {about}{found.reused:,} with results{failed}")
    lines += [f"cannot be read: {clean(one.reason)}" for one in found.unread]
    if found.images == 0:
        lines.append(_why_none(found, where))
    elif found.images is not None and found.images == found.reused:
        lines.append("nothing is left to compute")
    else:
        lines += _price_lines(found)
    return Text("\n".join(lines))


def _why_none(found: BatchPreview, where: str | None) -> str:
    """Why a submission has no image."""
    if found.unread:
        return "no shard could be read"
    return "no row passes the filter" if where else "there is nothing to compute"


def _price_lines(found: BatchPreview) -> Iterator[str]:
    """Time and money of what is left to compute, and how they are found out by trying."""
    left = None if found.images is None or found.reused is None else found.images - found.reused
    some, most = ("", PROPOSED) if left is None or left > PROPOSED else (" all", left)
    if found.like is None:
        yield "time and money: not known before a job of this profile with 32 images or more has ended;"
        yield f"`-n {most}` tries{some or f' {most}'} images"
    else:
        yield f"time: {'not known' if found.seconds is None else f'about {span(found.seconds)}'}"
        if found.money is not None:
            yield f"money: about {number(found.money)}"
        of = "all" if some else str(most)
        yield f"as job {found.like} took for as many; `-n {most}` tries {of} of these images"


def estimate_parts(found: Estimate) -> Iterator[Text | Table]:
    """An estimate: of what, the figures with their intervals, and what limits them."""
    yield Text("\n".join(_head(found)))
    if found.images is not None and found.to_compute:
        yield _table(found)
    yield Text("\n".join(f"note: {clean(one)}" for one in found.notes))


def _head(found: Estimate) -> Iterator[str]:
    if found.images is None or found.to_compute is None:
        yield "the shards are not indexed yet, so that nothing is known"
        return
    unread = f", {found.unread:,} of which cannot be read" if found.unread else ""
    yield f"{counted(found.images, 'image')} in {counted(found.shards or 0, 'shard')}{unread}"
    if not found.to_compute:
        yield "to be described: 0"
        return
    others = f", the others have results of profile {clean(found.profile)}" if found.to_compute < found.images else ""
    yield f"to be described: {found.to_compute:,}{others}"
    described = f"{found.described:,} of {found.sampled:,}" if found.described < found.sampled else f"{found.sampled:,}"
    yield f"by {described} random images (seed {found.seed}) of job {found.job}; intervals of 95 %"


def _table(found: Estimate) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("all images")
    for name in ("estimate", "from", "to"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    workers = ", ".join(f"{one.workers} {name}" for name, one in found.groups.items())
    for name, figure, form, note in (
        ("time", found.seconds, span, f"with ready workers: {workers}"),
        ("GPU hours", found.gpu_hours, number, ""),
        ("CPU worker hours", found.cpu_hours, number, ""),
        ("tokens read", found.prompt_tokens, number, ""),
        ("tokens written", found.completion_tokens, number, ""),
        ("money", found.money, number, ""),
        ("store", found.store_bytes, size, ""),
    ):
        _add(table, name, figure, form, note)
    for name, group in found.groups.items():
        _add(table, f"{name}: images/s of one worker", group.images_per_second, number, _group_note(group))
    for name, figure in (("succeeded", found.succeeded), ("filtered", found.filtered), ("failed", found.failed)):
        _add(table, name, figure, number)
    for one in found.reasons:
        _add(table, f"  {one.status}: {clean(one.stage)}: {clean(one.error_type)}", one.images, number)
    return table


def _group_note(group: GroupEstimate) -> str:
    loading = "" if group.loading_seconds is None else f"; its models load in {span(group.loading_seconds)}"
    return f"{group.device or ''}{loading}"


def _add(table: Table, name: str, figure: Figure | None, form: Form, note: str = "") -> None:
    """A row, if the figure is known."""
    if figure is not None:
        ends = ("" if end is None else form(end) for end in (figure.low, figure.high))
        table.add_row(Text(name), form(figure.value), *ends, Text(clean(note), "dim"))
