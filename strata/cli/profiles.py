"""`strata profiles`: commands on profile files. They need no running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strata.cli.exits import PROFILE_INVALID
from strata.cli.group import PlainGroup

app = typer.Typer(
    name="profiles",
    cls=PlainGroup,
    help="Check profile files, and list the available back ends.",
    no_args_is_help=True,
)


@app.command()
def check(
    profile: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A profile's name, or the path of its file.")],
) -> None:
    """Validate a profile and print its faults, one a line; exit code 12 if there are any."""
    from strata.core import GROUPS, InvalidProfile, load_profile, load_settings, read_profile

    _print_refused_plug_ins()
    try:
        # a path is read where it is; a name is searched for in the folder of profiles
        if profile.endswith(".toml"):
            found = read_profile(Path(profile))
        else:
            found = load_profile(profile, load_settings().profiles_dir)
    except InvalidProfile as error:
        for line in error.lines:
            typer.echo(line)
        raise typer.Exit(PROFILE_INVALID) from error
    fingerprints = ", ".join(f"{group} {found.fingerprint(group)}" for group in GROUPS)
    typer.echo(f"{profile}: valid ({fingerprints})")


@app.command()
def backends() -> None:
    """List the back ends of each stage with the names of their parameters."""
    from strata.core import installed

    _print_refused_plug_ins()
    for back_end in installed().back_ends:
        names = ", ".join(back_end.parameters.model_fields) or "no parameters"
        typer.echo(f"{back_end.stage:<10} {back_end.name:<13} {names}")


def _print_refused_plug_ins() -> None:
    from strata.core import installed

    for line in installed().refused:
        typer.echo(f"strata: plug-in not used: {line}", err=True)
