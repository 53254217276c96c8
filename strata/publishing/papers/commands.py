"""The commands that make a snapshot and an export again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from strata.data import Request
from strata.snapshots import Axis, Selection, Snapshot
from strata.snapshots.duplicates.pictures import MOST_DIFFERENT
from strata.snapshots.features import CLUSTER
from strata.snapshots.selection.axes import DEFAULT_AXES


def snapshot_commands(snapshot: Snapshot) -> list[str]:
    """The command that makes a snapshot of the same sources by the same rules, or the two of a split one.

    The snapshot that it makes has the same id if the sources have the same parts. A file of the user is named FILE.
    """
    manifest, name = snapshot.manifest, snapshot.name
    selection, commands = manifest.selection, []
    if (split := selection.split) is not None:
        name = name.removesuffix(f"-{split.part}")
        shares = ["--validation", f"{split.validation:g}", "--seed", str(split.seed), "--same", split.same]
        commands = [_command("snapshot", "split", name, *shares)]
    origins = [word for source in manifest.sources for word in ("--from", source)]
    options = [*selection_options(selection), *_rule_options(snapshot)]
    return [_command("snapshot", "create", name, *origins, *options), *commands]


def _rule_options(snapshot: Snapshot) -> Iterator[str]:
    """The options that leave out the same rows, whatever the profiles say then; False: a rule that was taken back."""
    rules = dict(snapshot.manifest.selection.leave_out)
    of_profiles = [name for one in snapshot.provenance for name in one.settings.get("leave_out") or {}]
    for name, rule in (dict.fromkeys(of_profiles, "False") | rules).items():
        yield from ("--leave-out", f"{name}={rule}")


def selection_options(selection: Selection) -> list[str]:
    """The options of `strata snapshot create` that select in this way."""
    words = ["--select", selection.method, "--seed", str(selection.seed)]
    for option, value in (("--count", selection.count), ("--share", selection.share), ("--cap", selection.cap)):
        words += [] if value is None else [option, f"{value:.15g}"]
    words += ["--where", selection.where] if selection.where else []
    words += ["--unique"] if selection.unique else []
    words += ["--same", selection.same or "listed"] if selection.unique or selection.same else []
    words += ["--alike", f"{selection.alike:.15g}"] if selection.alike is not None else []
    words += ["--bits", str(selection.bits)] if selection.bits != MOST_DIFFERENT else []
    words += ["--keep", selection.keep] if selection.keep != "first" else []
    words += [f"--better={criterion}" for criterion in selection.better]
    words += _axis_options(selection.axes)
    if selection.concepts != ("nouns",):
        words += [word for kind in selection.concepts for word in ("--concepts", kind)]
    words += ["--quality", selection.quality] if selection.quality is not None else []
    for quota in selection.quotas:
        words += ["--quota", f"{quota.source}={quota.rows if quota.share is None else f'{100 * quota.share:.15g}%'}"]
    return words + [word for option, _ in selection.files for word in (f"--{option}", "FILE")]


def _axis_options(axes: Sequence[Axis]) -> Iterator[str]:
    if not _are_default(axes):
        for axis in axes:
            values = axis.names if axis.names is not None else [f"{edge:g}" for edge in axis.edges]
            if axis.feature == CLUSTER:  # clusters are found anew; how many may have been asked for
                values = [] if axis.commonest is None else [str(axis.commonest)]
            yield from ("--by", f"{axis.feature}:{','.join(values)}" if values else axis.feature)
    for axis in axes:
        for label, share in axis.targets.items():
            yield from ("--target", f"{axis.feature}={label}:{share:.15g}")


def _are_default(axes: Sequence[Axis]) -> bool:
    """Whether axes are those of a selection without `--by`, which alone have held labels; a target lets one go."""
    if [(axis.feature, axis.edges) for axis in axes] != [(axis.feature, axis.edges) for axis in DEFAULT_AXES]:
        return False
    pairs = zip(axes, DEFAULT_AXES, strict=True)
    return all(label in axis.held or label in axis.shares for axis, default in pairs for label in default.held)


def export_command(snapshot: Snapshot, request: Request) -> str:
    """The command that makes an export again."""
    words = ["--format", request.form, "--layer", request.layer.name]
    words += ["--instruction", request.instruction] if request.instruction is not None else []
    words += ["--boxes", request.boxes] if request.boxes is not None else []
    words += ["--max-pixels", str(request.max_pixels)] if request.boxes == "qwen2.5" else []
    words += ["--image-root", request.image_root] if request.image_root is not None else []
    words += ["--skip-broken"] if request.skip_broken else []
    words += ["--keep-metadata"] if request.keep_metadata else []
    words += ["--blur-faces"] if request.blur_faces else []
    return _command("export", snapshot.name, *words, "--out", "FOLDER")


def _command(*words: str) -> str:
    return shlex.join(["strata", *words])
