"""`strata snapshot`, `clean`, `verify` and `compact`: commands on the store. They need no running service."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson, OpenLineage, StoreUri, open_store, output, progress, told_lineage
from strata.counts import counted
from strata.errors import BrokenStore, InvalidInput, fault_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from strata.snapshots import OwnFiles, PictureHashes, Selection, Snapshot, Snapshots
    from strata.store import Store

app = typer.Typer(
    name="snapshot",
    cls=PlainGroup,
    help="Choose and pin the rows that training reads.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A snapshot's name, or its id.")]
Sources = Annotated[
    list[str], typer.Option("--from", metavar="JOB|DATASET", help="A job, a profile or a fingerprint; may be repeated.")
]
By = Annotated[
    list[str] | None, typer.Option(metavar="FEATURE[:EDGES]", help="A feature to balance by; may be repeated.")
]
Target = Annotated[
    list[str] | None,
    typer.Option(metavar="FEATURE=LABEL:SHARE", help="The share of a label; none: equal shares; may be repeated."),
]
Count = Annotated[int | None, typer.Option(min=1, help="Number of rows; none: all.")]
Share = Annotated[float | None, typer.Option(help="Share of the rows that pass: 0 to 1.")]
Where = Annotated[str | None, typer.Option(help='Which rows pass: "objects >= 2 and text".')]
Cap = Annotated[int | None, typer.Option(min=1, help="Rows that each noun of the descriptions keeps, on average.")]
Scores = Annotated[Path | None, typer.Option(metavar="FILE", help="Columns for --where by `key`: .parquet or .csv.")]
Exclude = Annotated[Path | None, typer.Option(metavar="FILE", help="Keys of rows to leave out, one a line.")]
Accept = Annotated[bool, typer.Option("--accept-shortfall", help="Take what is there if a target cannot be met.")]
SingleImages = Annotated[
    bool, typer.Option("--single-images", help="With --from PROFILE, also images that were sent one by one.")
]
Tenant = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="To whom it belongs; none: to the tenant of its jobs, if they have one."),
]
Like = Annotated[str | None, typer.Option(metavar="NAME", help="The selection of another snapshot.")]
Forget = Annotated[list[str] | None, typer.Option(metavar="JOB", help="A finished job to drop; may be repeated.")]
# the same place or listed SHA-256, equal bytes, pixels, alike, also mirrored, also cropped, embeddings near each other
Same = Literal["near", "bytes", "listed", "pixels", "mirrored", "cropped", "embedding"]
Keep = Literal["first", "largest", "best"]
Without = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Leave out the pictures of a file of `snapshot hashes`.")
]
FeaturesOf = Annotated[
    str | None,
    typer.Option("--features", metavar="NAME|FILE", help="The profile whose features are read, if there are several."),
]
LeaveOut = Annotated[
    list[str] | None,
    typer.Option("--leave-out", metavar="NAME=FILTER", help="Leave rows out, and count them; False: none; repeatable."),
]
Method = Literal["random", "balanced", "best"]
SHOWN = 20  # maximum number of files that `strata clean` lists


@app.command()
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
    openlineage: OpenLineage = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Select rows of jobs and store the selection under a name.

    A data set is all rows of one profile, named by it or by the fingerprint, without images that were sent one by one
    (POST /v1/captions). What the rows' profile leaves out is left out, unless --leave-out has a filter of the name.
    """
    snapshots, own = _snapshots(store), _own_files(scores, exclude, without)
    given = {"count": count, "share": share, "seed": seed, "where": where, "unique": unique, "cap": cap, "bits": bits}
    given |= {"alike": alike, "keep": keep, "ways": _ways(features)} | _axes(method, by or (), target or ())
    given |= {"same": same if like else _same(same, unique, without is not None)}
    rules = None if like else _leave_out(snapshots, (sources, single_images), leave_out)
    selection = _asked(snapshots, like, {"method": method, **given}, {"leave_out": rules, **_of(own)})
    from strata.publishing.lineage import note_snapshots

    with told_lineage(openlineage, f"snapshot.{name}") as run:
        made = _made(snapshots, name, (sources, single_images), selection, (accept_shortfall, own, tenant))
        note_snapshots(run, snapshots.store, [made])
    _show(made, as_json)


def _made(
    snapshots: Snapshots,
    name: str,
    sources: tuple[list[str], bool],
    selection: Selection,
    how: tuple[bool, OwnFiles, str | None],
) -> Snapshot:
    """Make a snapshot, with a bar. sources: and whether with single images; how: `--accept-shortfall`, own, tenant."""
    from strata.store import PartsOf

    # the sources are resolved to parts now: later parts of a job are not in the snapshot
    parts = PartsOf(snapshots.store).sources(*sources)
    accept_shortfall, own, tenant = how
    with progress() as bar:
        advance = functools.partial(bar.advance, bar.add_task("parts", total=len(parts)))
        pictures = _pictures(snapshots, selection.same, bar) if selection.same else None
        more = (accept_shortfall, own, _tell, pictures, tenant)
        return snapshots.create(name, parts, selection, sources[0], advance, *more)


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


def _pictures(snapshots: Snapshots, same: Any, bar: Progress) -> Callable[..., PictureHashes]:
    """What reads the pictures of rows, with a bar; images that cannot be read are told."""
    from strata.data import PictureHasher

    hasher = PictureHasher(snapshots.store, same)

    def read(parts: Sequence[str], rows: Any, ways: dict[str, str] | None = None) -> PictureHashes:
        task = bar.add_task("images", total=rows.num_rows)
        hashes = hasher.hashes(parts, rows, lambda number: bar.advance(task, number), ways)
        if hashes.unread:
            _tell(f"{hashes.unread:,} of {rows.num_rows:,} images cannot be read; each counts as another picture")
        return hashes

    return read


def _tell(line: str) -> None:
    print(f"strata: {line}", file=sys.stderr)


def _axes(method: Method, by: Sequence[str], target: Sequence[str]) -> dict[str, Any]:
    """The axes of a balanced selection, from the options; other methods have none. Raises InvalidInput."""
    from strata.snapshots import axes_of

    if method == "balanced":
        return {"axes": axes_of(by, target)}
    if by or target:
        raise InvalidInput("--by and --target are for --select balanced")
    return {}


def _snapshots(store: str | None) -> Snapshots:
    from strata.snapshots import Snapshots

    return Snapshots(open_store(store))


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


@app.command("list")
def list_snapshots(
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of snapshots.")] = 20,
    before: Annotated[
        str | None, typer.Option(metavar="NAME", help="Continue an earlier list: older than this one.")
    ] = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """List the newest snapshots, the oldest of them first."""
    from strata.cli.rendering.snapshots import snapshot_table

    snapshots, damaged = _snapshots(store).scan()
    for error in damaged:
        print(error, file=sys.stderr)
    # the last ones before a name
    if before is not None:
        names = [snapshot.name for snapshot in snapshots]
        if before not in names:
            raise InvalidInput(f"--before {before!r}: there is no snapshot of this name")
        snapshots = snapshots[: names.index(before)]
    older, snapshots = snapshots[:-limit], snapshots[-limit:]
    if as_json:
        print(json.dumps([_as_json(snapshot, {"composition", "provenance", "parts"}) for snapshot in snapshots]))
    else:
        output().print(snapshot_table(snapshots))
    if older:
        print(f"{len(older):,} older: strata snapshot list --before {snapshots[0].name}", file=sys.stderr)


@app.command()
def split(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A snapshot's name.")],
    validation: Annotated[float, typer.Option(help="Share of the pictures for validation: above 0, below 1.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Seed of the division.")] = 0,
    same: Annotated[
        Literal["near", "bytes"], typer.Option("--same", help="Which pictures are one, and stay together.")
    ] = "near",
    openlineage: OpenLineage = None,
    store: StoreUri = None,
) -> None:
    """Divide a snapshot into NAME-train and NAME-validation. No picture is in both."""
    if not 0 < validation < 1:
        raise InvalidInput("--validation must be above 0 and below 1")
    from strata.publishing.lineage import note_split

    snapshots = _snapshots(store)
    with told_lineage(openlineage, f"split.{name}") as run, progress() as bar:
        made = snapshots.split(name, validation, seed, same, _pictures(snapshots, same, bar))
        note_split(run, snapshots.store, snapshots.open(name), made)
    for snapshot in made:
        print(f"{snapshot.name}: {snapshot.manifest.counts.selected:,} rows")


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of snapshots.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; without it they are only shown.")] = False,
    store: StoreUri = None,
) -> None:
    """Delete snapshots. Without --yes they are only shown.

    The rows that they pinned stay until `strata clean` removes what no job and no other snapshot needs.
    """
    snapshots = _snapshots(store)
    for name in dict.fromkeys(names):
        snapshots.check_name(name)
    for name in dict.fromkeys(names):
        if yes:
            snapshots.delete(name)
        print(f"{'deleted ' if yes else ''}{name}")
    if not yes:
        print("nothing was deleted: add --yes", file=sys.stderr)


@app.command()
def show(
    name: Name,
    card: Annotated[bool, typer.Option("--card", help="Show its data card, as `snapshot card` prints it.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the composition: .png, .svg, .pdf.")] = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Show a snapshot: its selection, its composition before and after, and its provenance.

    Exit code 14 if parts with its rows are lost.
    """
    snapshot = _snapshots(store).open(name)
    if plot:
        from strata.snapshots import plot_composition

        selected = f"{snapshot.name}: {counted(snapshot.manifest.counts.selected, 'row')}"
        plot_composition(snapshot.manifest.composition, selected, plot)
        print(f"plot: {plot}", file=sys.stderr)
    if card:
        _show_card(open_store(store), snapshot)
    else:
        _show(snapshot, as_json)
    snapshot.check_parts()


def _show_card(store: Store, snapshot: Snapshot) -> None:
    """The card of a snapshot on a terminal, without the head that is for the hub."""
    from rich.markdown import Markdown

    from strata.publishing import About, card_of, facts_of

    _, _, text = card_of(facts_of(store, snapshot, About())).split("---\n", 2)
    output().print(Markdown(text))


def _show(snapshot: Snapshot, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_json(snapshot)))
    else:
        from strata.cli.rendering.snapshots import snapshot_details

        output().print(snapshot_details(snapshot))


def _as_json(snapshot: Snapshot, without: set[str] | None = None) -> dict[str, Any]:
    return {"name": snapshot.name, **snapshot.manifest.model_dump(mode="json", exclude=without)}


@app.command()
def diff(first: Name, second: Name, as_json: AsJson = False, store: StoreUri = None) -> None:
    """Show the differences of two snapshots: rows, parts, selection, provenance."""
    from strata.cli.rendering.snapshots import difference_details
    from strata.snapshots import difference

    snapshots = _snapshots(store)
    old, new = snapshots.open(first), snapshots.open(second)
    found = difference(old, new)
    if as_json:
        print(found.model_dump_json())
    else:
        output().print(difference_details(old, new, found))


@app.command()
def features() -> None:
    """List the features of rows for --where and --by."""
    from strata.cli.rendering.snapshots import feature_table

    output().print(feature_table())


def clean(
    forget: Forget = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only listed.")] = False,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Remove parts that belong to no job and no snapshot. Without --yes they are only listed."""
    from strata.snapshots import Cleaning

    cleaning = Cleaning(open_store(store), forget or ())
    files = cleaning.unreferenced()
    for line in sorted(cleaning.damaged):
        print(f"{line}; what it may need is kept", file=sys.stderr)
    # report what was removed, or would be
    paths = cleaning.remove(list(files)) if yes else list(files)
    size = sum(files[path] for path in paths)
    if as_json:
        print(json.dumps({"removed": yes, "files": paths, "bytes": size}))
        return
    for path in paths[:SHOWN]:
        print(path)
    if len(paths) > SHOWN:
        print(f"… and {len(paths) - SHOWN:,} more")
    print(f"{counted(len(paths), 'file')}, {size / 1e6:,.1f} MB {'removed' if yes else 'can be removed with --yes'}")


def verify(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="A job's id.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of the store.")] = False,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Read every part against its checksums. Broken ones are set aside and computed again.

    A running service continues the jobs within half a minute, a stopped one when it starts.
    """
    from strata.snapshots import Verification

    if (job is None) != everything:
        raise InvalidInput("name a JOB, or all of the store with --all")
    verification = Verification(open_store(store), job)
    paths = verification.paths()
    with progress() as bar:
        task = bar.add_task("parts", total=len(paths))
        report = verification.run(paths, lambda number: bar.advance(task, number))
    if as_json:
        print(json.dumps(vars(report)))
    else:
        lines = [f"{path}: {reason}" for path, reason in report.broken.items()]
        lines += [f"{path}: missing" for path in report.missing] + report.damaged
        lines += [f"job {job_id}: runs again" for job_id in report.jobs]
        print("\n".join([*lines, f"intact: {counted(report.parts, 'part')} with {counted(report.rows, 'row')}"]))
    if not report.intact:
        counts = (len(report.broken), len(report.missing), len(report.damaged), len(report.jobs))
        raise BrokenStore("{} parts broken, {} missing, {} other files damaged; {} jobs run again".format(*counts))


def compact(
    undo: Annotated[bool, typer.Option("--undo", help="Take the bundles apart again.")] = False,
    older: Annotated[float, typer.Option(min=0, metavar="MINUTES", help="Leave parts that are younger.")] = 60.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it is only told what would be done.")] = False,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Put the small parts of each shard into a few larger Parquet files. Rows and snapshots stay as they are.

    It may run beside a service and may be ended at any time. While a shard's files are changed, other readers of its
    folder than Strata get an error.
    """
    from strata.store import Compaction

    compaction = Compaction(open_store(store), 60 * older)
    plans = [plan for plan in compaction.plans() if yes or plan.new or plan.bundles]
    small, new = sum(plan.small for plan in plans), sum(plan.new for plan in plans)
    bundles = sum(plan.bundles for plan in plans)
    told = {"folders": len(plans), "small": small, "new": new, "bundles": bundles, "done": yes}
    if yes:
        with progress() as bar:
            task = bar.add_task("folders", total=len(plans))
            done = compaction.run(plans, undo, lambda number: bar.advance(task, number))
        told |= vars(done)
        line = f"{counted(done.files, 'file')} {'out of' if undo else 'into'} {counted(done.bundles, 'bundle')}"
    elif undo:
        line = f"{counted(bundles, 'bundle')} can be taken apart with --yes"
    else:
        line = f"{counted(small, 'file')} can become {counted(new, 'bundle')} with --yes; there are {bundles:,} bundles"
    print(json.dumps(told) if as_json else line)
    if yes and (done.busy or done.broken):
        print(
            f"left as they are: {counted(done.busy, 'folder')} that another process bundles, and the files of "
            f"{counted(done.broken, 'bundle')} that cannot be read together; see `strata verify --all`",
            file=sys.stderr,
        )
