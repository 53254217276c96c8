"""`strata profiles`: commands on profile files; no service is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strata.cli.exits import PROFILE_INVALID
from strata.core.profiles import GROUPS, InvalidProfile, load_profile, read_profile
from strata.core.registry import installed
from strata.core.settings import Settings

app = typer.Typer(name="profiles", help="Check profile files.", no_args_is_help=True)


@app.callback()
def _commands() -> None:
    """With a callback typer keeps the name of the only command."""


@app.command()
def check(
    profile: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A profile's name, or the path of its file.")],
) -> None:
    """Validate a profile and print its faults, one a line; exit code 12 if there are any."""
    for line in installed().refused:
        typer.echo(f"plug-in not used: {line}", err=True)
    try:
        if profile.endswith(".toml"):
            found = read_profile(Path(profile))
        else:
            found = load_profile(profile, Settings().profiles_dir)
    except InvalidProfile as error:
        for line in error.lines:
            typer.echo(line)
        raise typer.Exit(PROFILE_INVALID) from error
    fingerprints = ", ".join(f"{group} {found.fingerprint(group)}" for group in GROUPS)
    typer.echo(f"{profile}: valid ({fingerprints})")
