"""`strata snapshot create`: from options to a selection, and from a selection to a snapshot."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.snapshot.access import pictures_of, save_plot, show_snapshot, snapshots_of, tell
from strata.cli.snapshot.options import (
    Accept,
    BetterBy,
    By,
    Cap,
    Concepts,
    Count,
    Exclude,
    FeaturesOf,
    Keep,
    LeaveOut,
    Like,
    Method,
    Plot,
    Quality,
    Quotas,
    Same,
    Scores,
    SelectionPath,
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
    from strata.snapshots import OwnFiles, Selection, Snapshots
    from strata.store import Part, Store

Options = dict[str, Any]
_OPTIONS = {"method": "select", "axes": "by", "quotas": "quota"}  # of the fields of a selection with other names


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name.")],
    sources: Sources,
    select: Annotated[Method | None, typer.Option("--select", help="How rows are selected: random.")] = None,
    count: Count = None,
    share: Share = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the selection: 0.")] = None,
    where: Where = None,
    unique: Annotated[bool, typer.Option("--unique", help="Each picture once; reads the images.")] = False,
    same: Annotated[Same | None, typer.Option("--same", help="Which pictures are one: near.")] = None,
    alike: Annotated[float | None, typer.Option(help="With --same embedding: the least cosine, 0 to 1.")] = None,
    bits: Annotated[int | None, typer.Option(help="By which hashes differ at most: 31 of 256.")] = None,
    keep: Annotated[Keep | None, typer.Option(help="With --unique: which row of one picture stays: first.")] = None,
    better: BetterBy = None,
    leave_out: LeaveOut = None,
    without: Without = None,
    features: FeaturesOf = None,
    by: By = None,
    target: Target = None,
    cap: Cap = None,
    concepts: Concepts = None,
    quality: Quality = None,
    quota: Quotas = None,
    scores: Scores = None,
    exclude: Exclude = None,
    accept_shortfall: Accept = False,
    selection: SelectionPath = None,
    like: Like = None,
    single_images: SingleImages = False,
    tenant: Tenant = None,
    plot: Plot = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Select rows of jobs and store the selection under a name. `options.HELP` is what the user reads."""
    _create(dict(locals()))


def _create(given: Options) -> None:
    """Make and show the snapshot that all parameters of `create` ask for."""
    from strata.snapshots import read_own_files
    from strata.store import PartsOf

    name, sources, tenant, like, plot = (given.pop(one) for one in ("name", "sources", "tenant", "like", "plot"))
    as_json, singles, snapshots = given.pop("as_json"), given.pop("single_images"), snapshots_of(given.pop("store"))
    options = _options(given, like, plot)
    own = read_own_files(*(options.pop(option, None) for option in ("scores", "exclude", "without")))
    accept_shortfall = bool(options.pop("accept_shortfall", False))
    selection = _selection(options, own) if like is None else _repeated(snapshots, like, options)
    # the sources are resolved to parts now: later parts of a job are not in the snapshot
    known = PartsOf(snapshots.store)
    for job in known.unended(sources):
        tell(f"job {job} has not ended: the snapshot has its rows so far")
    parts = known.sources(sources, singles)
    if like is None:
        selection = _with_rules(snapshots.store, parts, selection)
    # the run is told to whom the environment names
    with told_lineage(None, f"snapshot.{name}") as run, progress() as bar:
        advance = functools.partial(bar.advance, bar.add_task("parts", total=len(parts)))
        pictures = pictures_of(snapshots, selection.same, bar) if selection.same else None
        more = (accept_shortfall, own, tell, pictures, tenant)
        made = snapshots.create(name, parts, selection, sources, advance, *more)
        if run.told:
            # here, because it imports all of exports
            from strata.publishing.lineage import note_snapshots

            note_snapshots(run, snapshots.store, [made])
    if "match" in selection.features:
        _tell_of_matchers(snapshots.store, parts)
    try:
        save_plot(made, plot)
    except InvalidInput as error:
        raise InvalidInput(f"the snapshot {made.name} is there, its picture is not: {error}") from error
    show_snapshot(made, as_json)


def _tell_of_matchers(store: Store, parts: Sequence[Part]) -> None:
    """Tell if the matches of rows, by which they were selected, are not on one scale."""
    from strata.cli.rendering.side_by_side import different_matchers
    from strata.store import matchers_of

    models = matchers_of(store, {part.fingerprint for part in parts})
    if len(models) > 1:
        tell(different_matchers(models))


def _options(given: Options, like: str | None, plot: Path | None) -> Options:
    """The options of the selection that have a value, here or in the file of `--selection`.

    What would be found to be wrong only after minutes is refused now. Raises InvalidInput.
    """
    from strata.snapshots import check_plot, read_selection_file

    file = given.pop("selection")
    if file is not None and like is not None:
        raise InvalidInput("--like uses the whole selection of a snapshot; remove --selection")
    if plot is not None:
        check_plot(plot)
    options = {option: value for option, value in given.items() if not (value is None or value is False or value == [])}
    return {**(read_selection_file(file) if file else {}), **options}


def _repeated(snapshots: Snapshots, like: str, options: Options) -> Selection:
    """The selection of another snapshot. Raises UnknownSnapshot, and InvalidInput for options beside it."""
    if options:
        raise InvalidInput("--like uses the whole selection of a snapshot; remove the other selection options")
    return snapshots.open(like).manifest.selection


def _selection(options: Options, own: OwnFiles) -> Selection:
    """The selection of some options; those without a value keep their default. Raises InvalidInput."""
    from pydantic import ValidationError

    from strata.snapshots import Selection, quotas_of, rules_of

    values = dict(options)
    values["method"] = values.pop("select", "random")
    values |= _axes(values["method"], values.pop("by", ()), values.pop("target", ()), own)
    values["quotas"] = quotas_of(values.pop("quota", ()))
    values["ways"] = _ways(values.pop("features", None))
    values["leave_out"] = tuple(rules_of(values.pop("leave_out", ())).items())
    values["same"] = _same(values.get("same"), values.get("unique", False), own.benchmarks is not None)
    values |= {"own": own.kinds, "files": own.sha256s}
    try:
        return Selection.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{_OPTIONS.get(str(first['loc'][0]), first['loc'][0])}: " if first["loc"] else ""
        raise InvalidInput(f"{option}{fault_line(first)}") from error


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


def _with_rules(store: Store, parts: Sequence[Part], selection: Selection) -> Selection:
    """The selection with the rules of the rows' profiles too; its own replace those of their names, or end them.

    Raises RuleError, and Conflict if profiles have different rules of one name.
    """
    from strata.snapshots.rules import checked_rules
    from strata.store import leave_out_of

    rules = leave_out_of(store, {part.fingerprint for part in parts}, dict(selection.leave_out))
    kept = checked_rules({name: rule for name, rule in rules.items() if rule != "False"})
    return selection.model_copy(update={"leave_out": tuple(kept.items())})


def _axes(method: Method, by: Sequence[str], target: Sequence[str], own: OwnFiles) -> dict[str, Any]:
    """The axes of a balanced or diverse selection, from the options; other methods have none. Raises InvalidInput."""
    from strata.snapshots import AXES_OF, axes_of

    if method in AXES_OF:
        return {"axes": axes_of(by, target, AXES_OF[method], own.kinds, own.fractions)}
    if by or target:
        raise InvalidInput("--by and --target are for --select balanced and diverse")
    return {}
