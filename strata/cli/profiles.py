"""`strata profiles`: commands on profile files. They need no running service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strata.cli.exits import PROFILE_INVALID
from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson, output

if TYPE_CHECKING:
    from strata.core import InvalidProfile, Profile

app = typer.Typer(
    name="profiles",
    cls=PlainGroup,
    help="List, show, check and make profiles, and list the available back ends.",
    no_args_is_help=True,
)

NameOrFile = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A profile's name, or the path of its file.")]


@app.command("list")
def list_profiles(as_json: AsJson = False) -> None:
    """List the profiles: what each is for, the machine that it needs, and the bytes that it downloads."""
    from strata.cli.rendering import profiles as profile_render
    from strata.core import load_settings
    from strata.profiles import ProfileList, views

    settings = load_settings()
    found = views(settings.profiles_dir, settings.profile)
    if as_json:
        typer.echo(ProfileList(profiles=found).model_dump_json())
    else:
        output().print(profile_render.table(found))


@app.command()
def show(profile: NameOrFile, as_json: AsJson = False) -> None:
    """Show a profile: stages, models, licences, download, memory, and the layers that it computes."""
    from strata.cli.rendering import profiles as profile_render
    from strata.core import InvalidProfile
    from strata.profiles import view_of

    _print_refused_plug_ins()
    try:
        view = view_of(_read(profile))
    except InvalidProfile as error:
        raise _end(error, as_json) from error
    if as_json:
        typer.echo(view.model_dump_json())
    else:
        output().print(profile_render.tree(view))


@app.command()
def check(profile: NameOrFile, as_json: AsJson = False) -> None:
    """Validate a profile and print its faults, one a line; exit code 12 if there are any."""
    from strata.core import GROUPS, InvalidProfile

    _print_refused_plug_ins()
    try:
        found = _read(profile)
    except InvalidProfile as error:
        raise _end(error, as_json) from error
    fingerprints = {group: found.fingerprint(group) for group in GROUPS}
    if as_json:
        _print_check(profile, [], fingerprints)
    else:
        listed = ", ".join(f"{group} {fingerprint}" for group, fingerprint in fingerprints.items())
        typer.echo(f"{profile}: valid ({listed})")


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new profile's name.")],
    source: Annotated[str, typer.Option("--from", metavar="NAME|FILE", help="The profile that it is made from.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key and its value, as evidence.region=0.02; repeatable."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="STAGE|KEY", help="A stage or a key to leave out; repeatable."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Where to write it; none: STRATA_PROFILES_DIR, else ./profiles."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a profile from another one with some things changed: a model, a server, thresholds.

    The file keeps the other one's comments; a changed line tells what stood there. Nothing is written if it has faults.
    """
    from strata.cli.arguments import pairs_of
    from strata.core import InvalidProfile, load_settings
    from strata.profiles import new_profile, view_of

    own, target = load_settings().profiles_dir, target_of(folder)
    try:
        made = new_profile(name, file_of(source), target, pairs_of(changes or (), "--set"), without or ())
    except InvalidProfile as error:
        ended = _end(error, as_json)
        typer.echo("strata: nothing was written", err=True)
        raise ended from error
    if as_json:
        typer.echo(view_of(made.profile).model_dump_json())
        return
    typer.echo(f"{made.path}: written")
    if target != own:
        typer.echo(f"use it with STRATA_PROFILES_DIR={target.resolve()} strata serve --profile {name}")


@app.command()
def backends() -> None:
    """List the back ends of each stage with the names of their parameters."""
    from strata.core import installed

    _print_refused_plug_ins()
    for back_end in installed().back_ends:
        names = ", ".join(back_end.parameters.model_fields) or "no parameters"
        typer.echo(f"{back_end.stage:<10} {back_end.name:<13} {names}")


def _read(profile: str) -> Profile:
    """The profile of a name or of a file. Raises ProfileError."""
    from strata.core import load_profile, load_settings, read_profile

    # a path is read where it is; a name is searched for in the folder of profiles
    if profile.endswith(".toml"):
        return read_profile(Path(profile))
    return load_profile(profile, load_settings().profiles_dir)


def file_of(profile: str) -> Path:
    """The file of a name or of a path; a name that is not in the folder of profiles may be one of Strata's own.

    Raises ProfileError, which lists the names, for an unknown one.
    """
    from strata.core import load_profile, load_settings

    if profile.endswith(".toml"):
        return Path(profile)
    folder = load_settings().profiles_dir
    if not (folder / f"{profile}.toml").is_file():
        folder = _built_in()
    load_profile(profile, folder)
    return folder / f"{profile}.toml"


def target_of(folder: Path | None) -> Path:
    """Where a new profile is written: in the folder that is given, else that of the settings, else in ./profiles."""
    from strata.core import load_settings

    own = load_settings().profiles_dir
    return folder or (Path("profiles") if own == _built_in() else own)


def _built_in() -> Path:
    from strata.components import components_folder

    return components_folder() / "models" / "profiles"


def _end(error: InvalidProfile, as_json: bool) -> typer.Exit:
    """Print the faults of a profile; the exit with their code."""
    if as_json:
        _print_check(str(error.path), [str(fault) for fault in error.faults], {})
    else:
        for line in error.lines:
            typer.echo(line)
    return typer.Exit(PROFILE_INVALID)


def _print_check(profile: str, faults: list[str], fingerprints: dict[str, str]) -> None:
    import json

    typer.echo(json.dumps({"profile": profile, "faults": faults, "fingerprints": fingerprints}))


def _print_refused_plug_ins() -> None:
    from strata.core import installed

    for line in installed().refused:
        typer.echo(f"strata: plug-in not used: {line}", err=True)
