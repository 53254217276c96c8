"""`strata models`: the weights of a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from strata.cli.exits import WEIGHTS_MISSING
from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson
from strata.components import load

app = typer.Typer(
    name="models",
    cls=PlainGroup,
    help="Fetch, list or check a profile's weights.",
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


def _inventory() -> Any:
    return load("models.weights.inventory", "workers")
