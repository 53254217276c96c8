"""`strata models`: the weights of a profile, and the proof that they give what they must."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from strata.cli.exits import WEIGHTS_MISSING
from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson, Moved, Show, StoreUri, open_store, output, steps
from strata.components import load
from strata.errors import InvalidInput

app = typer.Typer(
    name="models",
    cls=PlainGroup,
    help="Fetch, list, check or prove the models of a profile.",
    no_args_is_help=True,
)

Profile = Annotated[str, typer.Argument(metavar="PROFILE", help="The profile's name.")]
Profiles = Annotated[
    Path | None, typer.Option("--profiles", metavar="DIR", help="Folder of profiles; none: the built-in ones.")
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
NewFolder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="DIR", help="Where to write it; none: STRATA_PROFILES_DIR, else ./profiles."),
]


@app.command()
def fetch(profile: Profile, profiles: Profiles = None, folder: From = None, as_json: AsJson = False) -> None:
    """Fetch the weights that are missing, and check them."""
    raise typer.Exit(0 if _inventory().fetch(profile, profiles, folder, as_json) else WEIGHTS_MISSING)


@app.command("list")
def list_weights(profile: Profile, profiles: Profiles = None, folder: From = None, as_json: AsJson = False) -> None:
    """List the weights by size: those that are present, and the size of those to fetch."""
    _inventory().list_weights(profile, profiles, folder, as_json)


@app.command()
def check(profile: Profile, profiles: Profiles = None, as_json: AsJson = False) -> None:
    """Check the weights that are present against their checksums."""
    raise typer.Exit(0 if _inventory().check_weights(profile, profiles, as_json) else WEIGHTS_MISSING)


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
    proof = report.prove_with_progress(profile, profiles, images, world, seconds)
    if as_json:
        print(proof.model_dump_json(indent=2))
    else:
        output().print(report.tables(proof))
    opened = open_store(store)
    print(f"strata: the proof is kept in {opened.root}/{keep_proof(opened, proof)}", file=sys.stderr)
    if not proof.passed:
        raise ProofFailed(f"profile {profile} does not give what it must: {', '.join(proof.failed)}")


def _inventory() -> Any:
    return load("models.weights.inventory", "workers")


def calibrate(
    profile: NameOrFile,
    source: Described,
    share: Share = 0.02,
    labels: Labels = None,
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
    from strata.cli.profiles import file_of, target_of
    from strata.core import load_settings, read_profile
    from strata.data.described_images import labelled_pairs
    from strata.profiles import new_file, new_profile

    # what can be refused is refused before images are read
    file, target, settings = file_of(profile), target_of(folder), load_settings()
    found = read_profile(file)
    if "matcher" not in found.stages:
        raise InvalidInput(f"profile {found.name} has no matcher: it has no threshold to calibrate")
    name = name or f"{found.name}-calibrated"
    new_file(name, target)
    known = labelled_pairs(labels, settings.max_pixels) if labels else []
    with steps() as show:
        show("loading libraries", 0, None)
        calibration = _calibration(settings.threads)
        described = open_store(store, root), source, images, settings.max_pixels
        scores, count = _scores(calibration, found, described, known, share, show)
    thresholds = {layer: calibration.threshold_of(one, share) for layer, one in scores.items()}
    # the new profile, with the source of its numbers, and the curve beside it
    values = {f"evidence.{layer}": repr(one.threshold) for layer, one in thresholds.items()}
    origin = calibration.Origin.of(found, source, count, share, labels)
    result = calibration.written(new_profile(name, file, target, values).path, origin, thresholds, scores)
    print(result.model_dump_json() if as_json else result.told())


def _calibration(threads: int) -> Any:
    # libraries as quiet, and with as many threads, as in a worker; they read this when they are imported
    load("workers.engines.groups", "workers").quiet_libraries(threads)
    return load("models.evidence.curve", "workers")


def _scores(
    calibration: Any, profile: Any, described: tuple[Any, str, int, int], labels: Any, share: float, show: Show
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
        profile, crops, labels, share, lambda done, total: show("scoring pairs", done, total)
    )
    return scores, count
