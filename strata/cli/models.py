"""`strata models`: the weights of a profile, and the proof that they give what they must."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from strata.cli.exits import WEIGHTS_MISSING
from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson, StoreUri, open_store, output
from strata.components import load

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
    load("workers.process", "workers").quiet_libraries(load_settings().threads)
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
