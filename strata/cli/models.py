"""`strata models`: the weights of a profile, and the proof that they give what they must."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.exits import WEIGHTS_MISSING
from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson, Moved, Show, StoreUri, open_store, output, steps
from strata.components import load
from strata.counts import counted
from strata.errors import InvalidInput

if TYPE_CHECKING:
    from strata.core import Profile as ProfileContent
    from strata.store import Store

app = typer.Typer(
    name="models",
    cls=PlainGroup,
    help="Fetch, list, check or prove the models of a profile.",
    no_args_is_help=True,
)

Profile = Annotated[str, typer.Argument(metavar="PROFILE", help="The profile's name.")]
Profiles = Annotated[
    Path | None,
    typer.Option("--profiles", metavar="DIR", help="Folder of profiles; none: yours and the built-in ones."),
]
From = Annotated[
    Path | None, typer.Option("--from", metavar="DIR", help="Folder with OWNER/NAME folders, or a hub cache.")
]


NameOrFile = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A profile's name, or the path of its file.")]
Described = Annotated[
    str, typer.Option("--from", metavar="JOB|DATASET", help="A job, a profile or a fingerprint: whose images.")
]
Share = Annotated[float, typer.Option(min=0.0001, max=0.5, help="Share of the mismatched pairs that passes.")]
Labels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Labelled pairs as JSON lines: image, box, phrase, right, layer.")
]
ByPeople = Annotated[bool, typer.Option("--judgments", help="Also use what people said of the images in review.")]
Precision = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="With --judgments: least share of right ones of the judged that pass.")
]
NewFolder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="DIR", help="Where to write it; none: STRATA_PROFILES_DIR, else ./profiles."),
]


@app.command()
def fetch(profile: Profile, profiles: Profiles = None, folder: From = None, as_json: AsJson = False) -> None:
    """Fetch the weights that are missing, and check them."""
    raise typer.Exit(0 if _inventory().fetch(profile, _folder(profile, profiles), folder, as_json) else WEIGHTS_MISSING)


@app.command("list")
def list_weights(profile: Profile, profiles: Profiles = None, folder: From = None, as_json: AsJson = False) -> None:
    """List the weights by size: those that are present, and the size of those to fetch."""
    _inventory().list_weights(profile, _folder(profile, profiles), folder, as_json)


@app.command()
def check(profile: Profile, profiles: Profiles = None, as_json: AsJson = False) -> None:
    """Check the weights that are present against their checksums."""
    raise typer.Exit(0 if _inventory().check_weights(profile, _folder(profile, profiles), as_json) else WEIGHTS_MISSING)


@app.command()
def prove(
    profile: Profile,
    profiles: Profiles = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Folder with demo.jpg, truck.jpg and car.png, if you have them."),
    ] = None,
    world: Annotated[
        str | None,
        typer.Option("--pictures", metavar="WORLD", help="photographs or drawings; none: what the models know."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.0, help="How long the speed is measured.")] = 30.0,
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """Ask every stage about pictures whose truth is known, and keep the result in the store.

    Exit code 15 if a stage does not give what it must.
    """
    from strata.core import load_settings
    from strata.errors import ProofFailed
    from strata.store import keep_proof

    # libraries as quiet, and with as many threads, as in a worker; they read this when they are imported
    load("workers.engines.groups", "workers").quiet_libraries(load_settings().threads)
    report = load("models.prove.report", "workers")
    proof = report.prove_with_progress(profile, _folder(profile, profiles), images, world, seconds)
    if as_json:
        print(proof.model_dump_json(indent=2))
    else:
        output().print(report.tables(proof))
    opened = open_store(store)
    print(f"strata: the proof is kept in {opened.root}/{keep_proof(opened, proof)}", file=sys.stderr)
    if not proof.passed:
        raise ProofFailed(f"profile {profile} does not give what it must: {', '.join(proof.failed)}")


def _folder(profile: str, given: Path | None) -> Path | None:
    """The folder of a profile: the given one, else that of the settings if it is there; None: the built-in one."""
    from strata.core import load_settings

    own = load_settings().profiles_dir
    return given or (own if (own / f"{profile}.toml").is_file() else None)


def _inventory() -> Any:
    return load("models.weights.inventory", "workers")


def calibrate(
    profile: NameOrFile,
    source: Described,
    share: Share = 0.02,
    labels: Labels = None,
    judgments: ByPeople = False,
    precision: Precision = 0.95,
    images: Annotated[int, typer.Option(min=2, help="Most images that are read.")] = 500,
    name: Annotated[str | None, typer.Option(help="The new profile's name; none: PROFILE-calibrated.")] = None,
    folder: NewFolder = None,
    store: StoreUri = None,
    root: Moved = None,
    as_json: AsJson = False,
) -> None:
    """Find the matcher's thresholds for your images; write them, their source and their curve to a new profile.

    No labels are needed: phrases of other images are the wrong pairs.
    """
    from strata.core import load_settings
    from strata.data.described_images import labelled_pairs

    # what can be refused is refused before images are read
    settings = load_settings()
    found, write = _to_calibrate(profile, name, folder)
    known = labelled_pairs(labels, settings.max_pixels) if labels else []
    with steps() as show:
        show("loading libraries", 0, None)
        calibration = _calibration(settings.threads)
        described = open_store(store, root), source, images, settings.max_pixels
        judged = _judged(calibration, described, show) if judgments else None
        scores, count = _scores(calibration, found, described, known, judged, share, show)
    thresholds = {layer: calibration.threshold_of(one, share, precision) for layer, one in scores.items()}
    # the new profile, with the source of its numbers, and the curve beside it
    origin = calibration.Origin.of(found, source, count, share, labels)
    if judged is not None:
        origin = origin.model_copy(update={"judgments": judged.judgments, "precision": precision})
    path = write({f"evidence.{layer}": repr(one.threshold) for layer, one in thresholds.items()})
    result = calibration.written(path, origin, thresholds, scores)
    print(result.model_dump_json() if as_json else result.told())


def _to_calibrate(
    profile: str, name: str | None, folder: Path | None
) -> tuple[ProfileContent, Callable[[dict[str, str]], Path]]:
    """A profile, and what writes it anew with other values. Raises InvalidInput if that is not possible."""
    from strata.cli.profiles import file_of, target_of
    from strata.core import read_profile
    from strata.profiles import new_file, new_profile

    file, target = file_of(profile), target_of(folder)
    found = read_profile(file)
    if "matcher" not in found.stages:
        raise InvalidInput(f"profile {found.name} has no matcher: it has no threshold to calibrate")
    new_name = name or f"{found.name}-calibrated"
    new_file(new_name, target)
    return found, lambda values: new_profile(new_name, file, target, values).path


def _calibration(threads: int) -> Any:
    # libraries as quiet, and with as many threads, as in a worker; they read this when they are imported
    load("workers.engines.groups", "workers").quiet_libraries(threads)
    return load("models.evidence.curve", "workers")


Read = tuple["Store", str, int, int]  # a store, a source in it, the most images, and the largest of them in pixels


def _judged(calibration: Any, described: Read, show: Show) -> Any:
    """What people said of entries of a source. Raises InvalidInput if that is too little."""
    from strata.evaluation.judged import judged_images, judged_rows

    store, source, most, max_pixels = described
    rows = judged_rows(store, source)
    total = min(most, len(rows.rows))
    images = judged_images(store, rows, most, max_pixels, lambda done: show("reading judged images", done, total))
    judged = calibration.Judged.of(images, rows.other)
    if refused := judged.refused():
        raise InvalidInput(refused)
    if unused := judged.unused():
        print(f"strata: {counted(judged.judgments, 'judgment')} used{unused}", file=sys.stderr)
    return judged


def _scores(
    calibration: Any, profile: Any, described: Read, labels: Any, judged: Any, share: float, show: Show
) -> tuple[Any, int]:
    """The scores of the pairs of each layer, and the number of images. described: as for `described_images`."""
    from strata.data.described_images import described_images

    crops: list[Any] = []
    count = 0
    for record, image in described_images(*described, lambda done: show("reading images", done, described[2])):
        crops += calibration.crops_of(record, image, count)
        count += 1
    # the source may have fewer images than were allowed
    show("reading images", count, count)
    show("loading the matcher", 0, None)
    scores = calibration.scores_of(
        profile, crops, labels, share, lambda done, total: show("scoring pairs", done, total), judged
    )
    return scores, count
