"""`strata snapshot create`: from options to a selection, and from a selection to a snapshot."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.snapshot.access import pictures_of, show_snapshot, snapshots_of, tell
from strata.cli.snapshot.options import (
    Accept,
    BetterBy,
    By,
    Cap,
    Count,
    Exclude,
    FeaturesOf,
    Keep,
    LeaveOut,
    Like,
    Method,
    Same,
    Scores,
    Share,
    SingleImages,
    Sources,
    Target,
    Tenant,
    Where,
    Without,
)
from strata.cli.terminal import AsJson, StoreUri, progress, told_lineage
from strata.errors import InvalidInput, fault_line

if TYPE_CHECKING:
    from strata.snapshots import OwnFiles, Selection, Snapshot, Snapshots


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name.")],
    sources: Sources,
    method: Annotated[Method, typer.Option("--select", help="How rows are selected.")] = "random",
    count: Count = None,
    share: Share = None,
    seed: Annotated[int, typer.Option(help="Seed of the selection.")] = 0,
    where: Where = None,
    unique: Annotated[bool, typer.Option("--unique", help="Each picture once; reads the images.")] = False,
    same: Annotated[Same | None, typer.Option("--same", help="Which pictures are one: near.")] = None,
    alike: Annotated[float | None, typer.Option(help="With --same embedding: the least cosine, 0 to 1.")] = None,
    bits: Annotated[int | None, typer.Option(help="By which hashes differ at most: 31 of 256.")] = None,
    keep: Annotated[Keep, typer.Option(help="With --unique: which row of one picture stays.")] = "first",
    better: BetterBy = None,
    leave_out: LeaveOut = None,
    without: Without = None,
    features: FeaturesOf = None,
    by: By = None,
    target: Target = None,
    cap: Cap = None,
    scores: Scores = None,
    exclude: Exclude = None,
    accept_shortfall: Accept = False,
    like: Like = None,
    single_images: SingleImages = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Select rows of jobs and store the selection under a name.

    A data set is all rows of one profile, named by it or by the fingerprint, without images that were sent one by one
    (POST /v1/captions). What the rows' profile leaves out is left out, unless --leave-out has a filter of the name.
    First --exclude, --leave-out and --where say which rows pass; then --better chooses among those of one image.
    """
    snapshots, own = snapshots_of(store), _own_files(scores, exclude, without)
    given = {"count": count, "share": share, "seed": seed, "where": where, "unique": unique, "cap": cap, "bits": bits}
    given |= {"alike": alike, "keep": keep, "ways": _ways(features)} | _axes(method, by or (), target or ())
    chosen: dict[str, Any] = {"better": tuple(better or ()) or None}
    given |= {"same": same if like else _same(same, unique, without is not None)}
    rules = None if like else _leave_out(snapshots, (sources, single_images), leave_out)
    selection = _asked(snapshots, like, {"method": method, **given, **chosen}, {"leave_out": rules, **_of(own)})
    show_snapshot(_made(snapshots, name, (sources, single_images), selection, (accept_shortfall, own, tenant)), as_json)


def _made(
    snapshots: Snapshots,
    name: str,
    sources: tuple[list[str], bool],
    selection: Selection,
    how: tuple[bool, OwnFiles, str | None],
) -> Snapshot:
    """Make a snapshot, with a bar. sources: and whether with single images; how: `--accept-shortfall`, own, tenant.

    Its run is told to whom the environment names (`strata.lineage`).
    """
    from strata.publishing.lineage import note_snapshots
    from strata.store import PartsOf

    # the sources are resolved to parts now: later parts of a job are not in the snapshot
    parts = PartsOf(snapshots.store).sources(*sources)
    accept_shortfall, own, tenant = how
    with told_lineage(None, f"snapshot.{name}") as run, progress() as bar:
        advance = functools.partial(bar.advance, bar.add_task("parts", total=len(parts)))
        pictures = pictures_of(snapshots, selection.same, bar) if selection.same else None
        more = (accept_shortfall, own, tell, pictures, tenant)
        made = snapshots.create(name, parts, selection, sources[0], advance, *more)
        note_snapshots(run, snapshots.store, [made])
        return made


def _same(same: Same | None, unique: bool, without: bool) -> str | None:
    """How pictures are compared; None: not at all."""
    if same and not (unique or without):
        raise InvalidInput("--same says which pictures are one to --unique and --without: add one of them")
    if same == "listed" and without:
        raise InvalidInput("--same listed reads no image, and --without compares images: leave one of them out")
    return None if not (unique or without) or same == "listed" else same or "near"


def _ways(profile: str | None) -> dict[str, str] | None:
    """How the stages of the group `features` of a profile compute. Raises ProfileError."""
    from strata.cli.profiles import file_of
    from strata.core import read_profile

    return None if profile is None else read_profile(file_of(profile)).feature_ways()


def _leave_out(
    snapshots: Snapshots, sources: tuple[list[str], bool], given: Sequence[str] | None
) -> tuple[tuple[str, str], ...]:
    """The rules of the rows' profiles, and those of the options, which replace rules of their names.

    sources: and whether with single images.
    """
    from strata.snapshots import rules_of
    from strata.store import PartsOf, leave_out_of

    asked = rules_of(given or ())
    parts = PartsOf(snapshots.store).sources(*sources)
    rules = leave_out_of(snapshots.store, {part.fingerprint for part in parts}, asked)
    return tuple((name, rule) for name, rule in rules.items() if rule != "False")


def _own_files(scores: Path | None, exclude: Path | None, without: Path | None) -> OwnFiles:
    from strata.snapshots import read_own_files

    return read_own_files(scores, exclude, without)


def _of(own: OwnFiles) -> dict[str, Any]:
    """What a selection says of the user's files."""
    return {"own": own.kinds, "files": own.sha256s}


def _asked(snapshots: Snapshots, like: str | None, given: dict[str, Any], more: dict[str, Any]) -> Selection:
    """The selection of the options, or a copy of another snapshot's selection. more: what that may differ in."""
    if like is None:
        return _selection(given | more)
    unset = {"method": "random", "keep": "first"}
    if any(value and value != unset.get(name) for name, value in given.items()):
        raise InvalidInput("--like uses the whole selection of a snapshot; remove the other selection options")
    return snapshots.open(like).manifest.selection


def _axes(method: Method, by: Sequence[str], target: Sequence[str]) -> dict[str, Any]:
    """The axes of a balanced selection, from the options; other methods have none. Raises InvalidInput."""
    from strata.snapshots import axes_of

    if method == "balanced":
        return {"axes": axes_of(by, target)}
    if by or target:
        raise InvalidInput("--by and --target are for --select balanced")
    return {}


def _selection(values: dict[str, Any]) -> Selection:
    """The selection of some options; those without a value keep their default. Raises InvalidInput."""
    from pydantic import ValidationError

    from strata.snapshots import Selection

    try:
        return Selection.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{first['loc'][0]}: " if first["loc"] else ""
        raise InvalidInput(f"{option}{fault_line(first)}") from error
