"""The groups of commands: how the command line ends where a command raised."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from strata.cli import exits
from strata.errors import StrataError

LONG_RUNNING = ("serve", "worker")  # their lines stand among each other's in one log, so each names its command


class PlainGroup(TyperGroup):
    """A group whose own options are read without pydantic, whose import takes longer than all the rest of --help.

    Typer (0.29) gives --help and its completion options no default, and converts the None with pydantic; False needs
    no conversion.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """The group's options, those of typer with a default."""
        params = super().get_params(ctx)
        for option in params:
            if option.name in ("help", "install_completion", "show_completion"):
                option.default = False
        return params


class CommandLine(PlainGroup):
    """The group of all commands: ends a command that raised with one line on stderr and the error's exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Typer's own exceptions (usage errors, exit codes) pass through."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output has gone: typer ends quietly
            if ctx.params.get("debug"):
                traceback.print_exc()
            lines, code = told(error)
            name = f"strata {ctx.invoked_subcommand}" if ctx.invoked_subcommand in LONG_RUNNING else "strata"
            for line in lines:
                print(f"{name}: {_printable(line)}", file=sys.stderr, flush=True)
            raise typer.Exit(code) from error


def told(error: Exception) -> tuple[list[str], int]:
    """The lines, one for each fault, and the exit code for an error."""
    # classes of packages that are loaded only when a command needs them are known by the package's name
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    code = exits.code_of(error)
    if code is not None:
        return error.lines if isinstance(error, StrataError) else [str(error)], code
    if "httpx" in packages:
        return [f"cannot reach the service: {error}; is it running, and is --url right?"], exits.API_UNREACHABLE
    if "redis" in packages:
        return [f"Redis cannot be used: {error}"], exits.REDIS_UNREACHABLE
    first = str(error).strip().partition("\n")[0]
    return [f"{type(error).__name__}: {first}; run with --debug for the traceback"], exits.FAILURE


def _printable(text: str) -> str:
    """The text without control characters, which could steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
