"""Records, jobs and progress as text for a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from strata.core import (
    LAYERS,
    LEFT_OUT,
    Budget,
    Description,
    Evidence,
    FailureNote,
    FailureRow,
    Form,
    JobStatus,
    JobUsage,
    JobView,
    LayerSpec,
    Record,
    SearchHit,
    Status,
    Variant,
    Verification,
    Waiting,
    kept,
)
from strata.counts import counted

LINE_INTERVAL = 5.0  # seconds between two lines of progress if stderr is not a terminal
SHOWN_GROUPS = ("vision", "llm")
_ORIGINS = {
    "composed": "",
    "composed_again": "the description is the composer's second text",
    "layers": "the description is a plain composition of the layers",
}
STATUS_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow"}


def clean(text: str) -> str:
    """The text without control characters: a text in an image must not be able to control the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def layers_tree(record: Record, title: str | None = None) -> Tree:
    """A tree of a record's computed layers, and of the seconds and tokens of each stage."""
    size = f"  {record.width}×{record.height}" if record.width and record.height else ""
    profile = f"  profile {clean(record.profile)}" if record.profile else ""
    tree = Tree(Text.assemble((clean(title or record.key), "bold"), (size, "dim"), (profile, "dim")))
    # the outcome, then the layers that were computed, then what each stage took
    if record.failure:
        tree.add(_ending(record.status, record.failure))
    for warning in record.warnings:
        tree.add(_named("warning", Text(clean(warning.detail), "yellow")))
    for layer in LAYERS.values():
        value = getattr(record, layer.name)
        if value is not None:
            _BRANCHES[layer.form](tree, layer, value)
    if record.verification:
        _add_cuts(tree, record.verification)
    for variant in record.variants or ():
        _add_variant(tree, variant)
    if record.seconds:
        stages = " · ".join(f"{stage} {seconds:.2f}" for stage, seconds in record.seconds.items())
        tree.add(_named("seconds", Text(f"{stages} · sum {sum(record.seconds.values()):.2f}", "dim")))
    if record.usage:
        stages = " · ".join(f"{stage} {u.prompt_tokens}+{u.completion_tokens}" for stage, u in record.usage.items())
        tree.add(_named("tokens", Text(stages, "dim")))
    return tree


def _ending(status: Status, note: FailureNote) -> Text:
    """The reason why the record has no layers: the failure, or the rule that rejected the image."""
    if status is Status.FILTERED:
        return Text(f"filtered by the rule {note.error_type}: {clean(note.detail)}", "yellow")
    return Text(f"failed in {note.stage}: {note.error_type}: {clean(note.detail)}", "red")


def _named(name: str, *more: Text) -> Text:
    return Text.assemble((name, "bold"), *(part for text in more for part in ("  ", text)))


# one function for each form of a layer


def _add_text(tree: Tree, layer: LayerSpec, text: str) -> None:
    tree.add(_named(layer.title, Text(clean(text))))


def _add_entry(tree: Tree, layer: LayerSpec, entry: Evidence) -> None:
    branch = tree.add(_named(layer.title, Text(_scores(entry), "cyan")))
    branch.add(_entry(entry, Text(clean(layer.display_text(entry)))))


def _add_entries(tree: Tree, layer: LayerSpec, entries: Sequence[Evidence]) -> None:
    count = len(kept(entries))
    counts = "none" if not entries else f"{count} kept"
    counts += f", {len(entries) - count} dropped" if len(entries) > count else ""
    branch = tree.add(_named(layer.title, Text(counts, "dim")))
    # kept entries first; the number is the index in the layer, which sentences refer to
    for index, entry in sorted(enumerate(entries), key=lambda pair: not pair[1].kept):
        words = Text.assemble((f"{index} ", "dim"), clean(layer.display_text(entry)))
        words.append(f"  {_box(entry)}" if layer.boxed else "", "dim")
        words.append("  ").append(_scores(entry), "cyan")
        branch.add(_entry(entry, words))


def _add_sentences(tree: Tree, layer: LayerSpec, description: Description) -> None:
    branch = tree.add(_named(layer.title))
    for sentence in description.sentences:
        evidence = f"  ← {', '.join(sentence.evidence) or 'no evidence'}"
        branch.add(Text.assemble(clean(sentence.text), (clean(evidence), "dim")))


def _add_cuts(tree: Tree, found: Verification) -> None:
    """What the verifier has cut of the composed text, with the reason of each cut."""
    cut = [sentence for sentence in found.sentences if sentence.reason]
    if not cut:
        return
    branch = tree.add(_named("cut", Text(_ORIGINS[found.origin], "dim")))
    for sentence in cut:
        whole = "cut" if sentence.kept is None else "cut back"
        reason = (sentence.reason or "").replace("_", " ")
        branch.add(Text(f"{whole}: {clean(sentence.text)} ({reason})", "bright_black"))


def _add_variant(tree: Tree, variant: Variant) -> None:
    """Another text of the same evidence; questions with their answers, one pair a line."""
    name = variant.name if variant.language == "en" else f"{variant.name}, {variant.language}"
    if not variant.turns:
        tree.add(_named(name, Text(clean(variant.text))))
        return
    branch = tree.add(_named(name, Text("")))
    for turn in variant.turns:
        branch.add(Text.assemble(clean(turn.question), (f" → {clean(turn.answer)}", "bold")))


_BRANCHES: dict[Form, Callable[[Tree, LayerSpec, Any], None]] = {
    "text": _add_text,
    "entry": _add_entry,
    "entries": _add_entries,
    "sentences": _add_sentences,
}


def _entry(entry: Evidence, words: Text) -> Text:
    """The words of a kept entry unchanged, those of a dropped one in grey with the reason."""
    if entry.kept:
        return words
    return Text(f"{words.plain}  dropped: {entry.reason or 'no reason given'}", "bright_black")


def _scores(entry: Evidence) -> str:
    shown = (("match", entry.match), ("score", entry.score))
    return " ".join(f"{name} {value:.2f}" for name, value in shown if value is not None)


def _box(entry: Any) -> str:
    return f"[{', '.join(f'{side:.0f}' for side in entry.box)}]"


def hit_table(hits: Iterable[SearchHit]) -> Table:
    """A table of rows that a search has found, one a line; the text has the room that the other columns leave."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("key", overflow="fold", max_width=24)
    table.add_column("status", no_wrap=True)
    for name in ("match", "words"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    for hit in hits:
        score = "" if hit.score is None else f"{hit.score:.2f}"
        text = Text(clean(hit.title or ""))
        table.add_row(Text(clean(hit.key)), hit.status.value, score, str(hit.words), text)
    return table


def job_table(jobs: Sequence[JobView], width: int | None = None) -> Table:
    """A table of jobs, one a row, with as many columns as have room in the width; None: with all of them."""
    found = {name: [cell(job) for job in jobs] for name, cell in _JOB_COLUMNS.items()}
    table, used = Table(box=None, pad_edge=False, header_style="bold"), 0
    # the most important columns come first; ids are never cut, so that they can be copied
    for name, cells in found.items():
        used += max(cell_len(text.plain) for text in (Text(name), *cells)) + 2
        if table.columns and width is not None and used > width + 2:
            break
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for number in range(len(jobs)):
        table.add_row(*(cells[number] for cells in list(found.values())[: len(table.columns)]))
    return table


def _status_cell(job: JobView) -> Text:
    text = Text(job.status, STATUS_STYLES.get(job.status, ""))
    if job.waiting:
        text.append(f", waits for {clean(job.waiting.stage)}", "yellow")
    return text


def _reused(job: JobView) -> str:
    return "/".join(str(job.groups[name].reused) for name in SHOWN_GROUPS if name in job.groups)


_JOB_COLUMNS: dict[str, Callable[[JobView], Text]] = {
    "job": lambda job: Text(job.id),
    "status": _status_cell,
    "images": lambda job: Text(f"{done_images(job)}/{job.request_counts.total}"),
    "failed": lambda job: Text(str(job.request_counts.failed)),
    "profile": lambda job: Text(clean(job.profile)),
    "ETA": lambda job: Text(duration(job.eta_seconds)),
    "created": lambda job: Text(moment(job.created_at)),
    "images/s": lambda job: Text("" if job.images_per_second is None else f"{job.images_per_second:.1f}"),
    "filtered": lambda job: Text(str(job.request_counts.filtered)),
    "kind": lambda job: Text(job.kind),
    "reused vision/llm": lambda job: Text(_reused(job)),
}
_NUMBERS = ("images", "failed", "ETA", "images/s", "filtered", "reused vision/llm")


def moment(time: datetime) -> str:
    """A time as RFC 3339 in UTC, to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def duration(seconds: float | None) -> str:
    """Seconds as h:mm:ss; the empty string for None."""
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


def done_images(job: JobView) -> int:
    """Images that have a result. Those that a cancelled or failed job has given up have none."""
    counts = job.request_counts
    return counts.succeeded + counts.filtered + counts.failed


def job_line(job: JobView) -> str:
    """A job in one line: status, finished images, rate, ETA, failed shards, the error."""
    parts = [f"{job.status}: {done_images(job)}/{job.request_counts.total} images"]
    if job.waiting:
        parts.append(waiting_words(job.waiting))
    if job.images_per_second is not None:
        parts.append(f"{job.images_per_second:.1f} images/s")
    if job.eta_seconds is not None:
        parts.append(f"ETA {duration(job.eta_seconds)}")
    if job.request_counts.filtered:
        parts.append(f"{job.request_counts.filtered} filtered")
    if job.request_counts.failed:
        parts.append(f"{job.request_counts.failed} failed")
    if job.shards.failed:
        parts.append(f"{job.shards.failed} of {job.shards.total} shards failed")
    if job.shards.left_out:
        parts.append(f"{counted(sum(job.shards.left_out.values()), 'file')} left out")
    # what has failed is the job, not its images: they have no result
    failed_as_whole = job.status is JobStatus.FAILED and job.request_counts.cancelled
    if failed_as_whole:
        parts.append("the job failed as a whole")
    if job.error:
        parts.append(clean(job.error))
    return ", ".join(parts)


def waiting_words(waiting: Waiting) -> str:
    """What a job waits for: the stage, since when, the attempts, the reason."""
    since = f"since {moment(waiting.since)}, {counted(waiting.attempts, 'attempt')}"
    return f"waits for {clean(waiting.stage)} ({since}): {clean(waiting.reason)}"


def job_details(job: JobView) -> Text:
    """A job in a few lines: its counts, its groups and its shards."""
    counts = job.request_counts
    given_up = "without result" if job.status is JobStatus.FAILED else "cancelled"
    lines = [
        f"job {job.id} ({job.kind}, profile {clean(job.profile)}): {job_line(job)}",
        f"images: total {counts.total}, queued {counts.queued}, processing {counts.processing}, "
        f"succeeded {counts.succeeded}, filtered {counts.filtered}, failed {counts.failed}, "
        f"{given_up} {counts.cancelled}",
        f"shards: total {job.shards.total}, indexed {job.shards.indexed}, failed {job.shards.failed}",
    ]
    if job.chosen is not None:
        where = f" where {job.chosen.where}" if job.chosen.where else ""
        lines.append(clean(f"images of: {', '.join(job.chosen.sources)}{where}"))
    if job.shards.left_out:
        known = ((number, LEFT_OUT.get(reason, (reason, reason))) for reason, number in job.shards.left_out.items())
        told = (counted(number, *words) for number, words in known)
        lines.append(f"left out: {', '.join(told)}")
    if job.sample:
        drawn = "" if job.sample.drawn else ", not drawn yet"
        lines.append(f"a random sample: at most {counted(job.sample.images, 'image')}, seed {job.sample.seed}{drawn}")
    for name, group in job.groups.items():
        lines.append(f"{name}: images {group.images}, chunks {group.chunks}, images reused {group.reused}")
    lines += [usage_line(job)] if job.usage else []
    lines += [clean(f"{name}: {value}") for name, value in job.metadata.items()]
    return Text("\n".join(lines))


def usage_line(job: JobView) -> str:
    """A job's usage of chat servers, and its budget."""
    usage, budget = job.usage or JobUsage(), job.budget or Budget()
    parts = [
        f"{counted(usage.prompt_tokens, 'token')} read, {usage.completion_tokens:,} written",
        counted(usage.requests, "request"),
        f"{usage.reserved_tokens:,} reserved",
    ]
    if budget.tokens is not None:
        parts.append(f"budget {counted(budget.tokens, 'token')}")
    if usage.money is not None:
        parts.append(f"money {usage.money:.6g}" + (f" of {budget.money:.6g}" if budget.money is not None else ""))
    return f"usage: {', '.join(parts)}"


def failure_line(row: FailureRow) -> str:
    """A failed or filtered image, or a failed shard, in one line."""
    note = row.failure
    where = row.shard if row.key is None else f"{row.shard} {row.key}"
    return clean(f"{where}: {note.stage}: {note.error_type}: {note.detail}")


def follow(views: Iterable[JobView], console: Console, clock: Callable[[], float] = time.monotonic) -> JobView | None:
    """Show progress until `views` end: bars on a terminal, else a line every LINE_INTERVAL. Returns the last."""
    if console.is_terminal:
        return _follow_bars(views, console)
    # print a line only if it differs from the last one, so that the log of a long wait stays short
    last, printed_at, printed = None, float("-inf"), ""
    for last in views:
        if (clock() - printed_at >= LINE_INTERVAL or last.status.final) and job_line(last) != printed:
            printed_at, printed = clock(), job_line(last)
            console.print(Text(printed), soft_wrap=True)
    return last


def _follow_bars(views: Iterable[JobView], console: Console) -> JobView | None:
    last = None
    columns = (
        TextColumn("{task.description:>7}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        bars = {name: progress.add_task(name, total=None, note="") for name in (*SHOWN_GROUPS, "images")}
        for last in views:
            # 0 while no shard is indexed: the bar then shows no percentage
            total = last.request_counts.total or None
            for name in SHOWN_GROUPS:
                group = last.groups.get(name)
                note = f"{group.reused} reused" if group and group.reused else ""
                progress.update(bars[name], total=total, completed=group.images if group else 0, note=note)
            # the bar itself shows the count, so the note is the rest of the line
            note = job_line(last).partition(" images")[2].removeprefix(", ")
            note = f"{last.status}{', ' if note else ''}{note}"
            progress.update(bars["images"], total=total, completed=done_images(last), note=note)
    return last
