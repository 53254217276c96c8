"""Snapshots as text for a terminal: a list, one in detail, the difference of two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from strata.cli.rendering.records import clean, moment
from strata.counts import counted
from strata.snapshots import (
    EDGES,
    FEATURES,
    SHORT_ID,
    Axis,
    Better,
    Change,
    Difference,
    Manifest,
    Overlap,
    Quota,
    Selection,
    Snapshot,
    commonest_of,
    evenness_of,
    moved_away,
    shares_of,
)
from strata.snapshots.features import CLUSTER
from strata.store import Provenance

BAR_WIDTH = 24  # characters
SHOWN_VALUE = 60  # characters of a setting's value


def snapshot_table(snapshots: Iterable[Snapshot]) -> Table:
    """A table of snapshots, one a row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "id", "created"):
        table.add_column(name, no_wrap=True)
    for name in ("parts", "succeeded", "selected"):
        table.add_column(name, justify="right")
    table.add_column("selection")
    for snapshot in snapshots:
        counts, created = snapshot.manifest.counts, moment(snapshot.manifest.created_at)
        numbers = (f"{counts.parts:,}", f"{counts.succeeded:,}", f"{counts.selected:,}")
        selection = selection_line(snapshot.manifest.selection)
        table.add_row(snapshot.name, snapshot.id[:SHORT_ID], created, *numbers, Text(clean(selection)))
    return table


def feature_table() -> Table:
    """A table of all features, with the default labels of those that have some."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("feature", "kind", "meaning", "labels"):
        table.add_column(name)
    for name, feature in FEATURES.items():
        labels = Axis.parse(name).labels if name in EDGES else ()
        table.add_row(name, feature.kind, feature.meaning, Text(", ".join(labels)))
    return table


def selection_line(selection: Selection) -> str:
    """A selection in one line."""
    amount = "all" if selection.share is None else f"{selection.share:.4g} of all"
    parts = [f"{selection.method}, {amount if selection.count is None else format(selection.count, ',')}"]
    parts += [f"seed {selection.seed}"]
    parts += [f"by {', '.join(map(_axis_name, selection.axes))}"] if selection.axes else []
    for axis in selection.axes:
        parts += [f"{axis.feature}={label} {share:.4g}" for label, share in axis.targets.items()]
        parts += [f"{axis.feature}={label} at most {axis.shares.get(label, 0):.4g}" for label in axis.held]
    parts += [f"by {selection.quality or selection.score}"] if selection.quality or selection.score else []
    parts += [f"of {' and '.join(selection.concepts)}"] if selection.method == "concepts" else []
    parts += [f"at most {_amount(quota)} of {quota.source}" for quota in selection.quotas]
    same = f"{selection.same}{f' {selection.alike}' if selection.alike else ''}" if selection.same else ""
    same += "" if selection.bits == Selection().bits else f", {selection.bits} bits"
    parts += [f"each image once{f' ({same})' if same else ''}"] if selection.unique else []
    parts += [f"the {selection.keep} stays"] if selection.keep != "first" else []
    parts += [f"without {name}: {rule}" for name, rule in selection.leave_out]
    parts += [f"of each image the better by {', then '.join(selection.better)}"] if selection.better else []
    kinds = " or ".join(kind.removesuffix("s") for kind in selection.concepts)
    parts += [f"cap {selection.cap:,} per {kinds}"] if selection.cap else []
    parts += [f"--{option} {digest[:SHORT_ID]}" for option, digest in selection.files]
    parts += [f"where {selection.where}"] if selection.where else []
    if selection.split:
        parts += [f"the part {selection.split.part} of {selection.split.of[:SHORT_ID]}"]
    return ", ".join(parts)


def _axis_name(axis: Axis) -> str:
    """The feature of an axis, of clusters with how many there are."""
    return f"{axis.feature} ({len(axis.names):,})" if axis.feature == CLUSTER and axis.names else axis.feature


def _amount(quota: Quota) -> str:
    return f"{quota.rows:,}" if quota.rows is not None else f"{100 * (quota.share or 0):.4g} %"


def snapshot_details(snapshot: Snapshot) -> Group:
    """A snapshot: its head, its composition before and after, its provenance."""
    manifest = snapshot.manifest
    return Group(
        Text("\n".join(_head_lines(snapshot.name, manifest))),
        *_composition(manifest),
        *_moved_away(manifest),
        *(line for provenance in manifest.provenance for line in _provenance_lines(provenance)),
    )


def _head_lines(name: str, manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    yield f"snapshot {name}"
    yield f"id {manifest.id}"
    sources = f", from {clean(', '.join(manifest.sources))}" if manifest.sources else ""
    yield f"created {moment(manifest.created_at)}{sources}"
    yield f"selection: {clean(selection_line(manifest.selection))}"
    ended = f"{counts.succeeded:,} succeeded, {counts.filtered:,} filtered, {counts.failed:,} failed"
    ended += f", in {counted(counts.parts, 'part')}"
    yield f"rows: {counts.selected:,} selected of {counts.passed:,} that pass; {ended}"
    if counts.left_out:
        yield f"left out: {', '.join(f'{name} {number:,}' for name, number in counts.left_out.items())}"
    if counts.better is not None:
        yield _better_line(counts.better, manifest.provenance)


def _better_line(better: Better, provenance: Sequence[Provenance]) -> str:
    """How many images were described several times, and from which profile each has its row."""
    profiles = {one.fingerprint: one.profile for one in provenance}
    taken = (
        f"{number:,} of {clean(profiles.get(fingerprint) or 'a profile that is not in the store')} "
        f"({fingerprint[:SHORT_ID]})"
        for fingerprint, number in better.taken.items()
    )
    ties = (
        f"; of {counted(better.ties, 'image')} the best rows were equal, and the first one stays" if better.ties else ""
    )
    return f"described several times: {counted(better.images, 'image')}, kept {', '.join(taken)}{ties}"


def _composition(manifest: Manifest) -> Iterator[RenderableType]:
    for feature, whole in manifest.composition.items():
        labels = commonest_of(whole)
        spread = "spread as over {:,.1f} equal labels before, {:,.1f} after".format(*evenness_of(whole))
        caption = f"{spread}, of {len(whole):,}" if len(whole) > len(labels) else None
        table = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
        table.add_column(feature, min_width=12)
        for name in ("before", "", "%", "after", "", "%"):
            table.add_column(name, justify="right")
        # bars of one feature share a scale, so that before and after can be compared
        before, after = shares_of(labels)
        largest = max(*before, *after)
        for (label, counts), *shares in zip(labels.items(), before, after, strict=True):
            cells: list[RenderableType] = []
            for count, share, colour in zip(counts, shares, ("bright_black", "cyan"), strict=True):
                bar = Bar(largest, 0, share, width=BAR_WIDTH, color=colour)
                cells += [f"{count:,}", bar, f"{100 * share:.1f}"]
            table.add_row(Text(clean(label)), *cells)
        yield from ("", table)


def _moved_away(manifest: Manifest) -> Iterator[RenderableType]:
    """What a balanced selection has made less even, if anything."""
    if lines := moved_away(manifest.composition, manifest.selection.axes):
        yield ""
        yield Text("farther from the target than before the selection:", "bold")
        yield Text("\n".join(f"  {clean(line)}" for line in lines))


def _provenance_lines(provenance: Provenance) -> Iterator[RenderableType]:
    named = f"profile {provenance.profile}" if provenance.profile else "a profile that is not in the store"
    version = f", schema {provenance.schema_version}" if provenance.schema_version else ""
    yield ""
    yield Text(clean(f"{named}, fingerprint {provenance.fingerprint}{version}"), "bold")
    # the stages in detail, then the other settings, then the prompts
    settings = dict(provenance.settings)
    stages = settings.pop("stages", {})
    for name, stage in stages.items():
        yield Text.assemble((f"  {clean(name)}: ", "bold"), clean(f"{stage['backend']}, {stage['model']}"))
        yield Text(clean(f"    revision {stage['revision'] or 'of the installed package'}"))
        if stage["parameters"]:
            yield Text(clean(f"    {_pairs(stage['parameters'])}"))
    for name, value in settings.items():
        if text := _setting(value):
            yield Text.assemble((f"  {clean(name)}: ", "bold"), clean(text))
    for name, text in provenance.prompts.items():
        yield Text(f"  prompt {clean(name)}:", "bold")
        yield Text("\n".join(f"    {clean(line)}" for line in text.splitlines()))


def _setting(value: Any) -> str:
    """A setting of a profile as text: settings that are not set are left out, lists are joined."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return _pairs(value)
    if isinstance(value, list):
        return ", ".join(filter(None, map(_setting, value)))
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {text}" for name, value in values.items() if (text := _setting(value)))


def difference_details(first: Snapshot, second: Snapshot, found: Difference) -> Text:
    """The differences of two snapshots: rows, parts, and the settings that changed."""
    lines = [f"{first.name} {first.id[:SHORT_ID]} → {second.name} {second.id[:SHORT_ID]}"]
    # the id is a hash of parts, selection and rows
    if first.id == second.id:
        lines.append("the same parts, selection and rows")
    lines += [f"rows: {_overlap(found.rows)}", f"parts: {_overlap(found.parts)}"]
    for title, changes in (("selection", found.selection), ("provenance", found.provenance)):
        lines.append(f"{title}: {'' if changes else 'the same'}".rstrip())
        lines += [f"  {_change(change)}" for change in changes]
    return Text("\n".join(lines))


def _overlap(overlap: Overlap) -> str:
    return f"{overlap.common:,} in both, {overlap.added:,} added, {overlap.removed:,} removed"


def _change(change: Change) -> str:
    old, new = (" and ".join(map(_short, values)) or "nothing" for values in (change.before, change.after))
    return clean(f"{change.setting}: {old} → {new}")


def _short(value: str) -> str:
    return value if len(value) <= SHOWN_VALUE else f"{value[: SHOWN_VALUE - 1]}…"
