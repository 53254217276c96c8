"""The groups of commands, and how an exception of a command becomes a message and an exit code."""

from __future__ import annotations

import errno
import functools
import math
import os
import re
import sys
import traceback
from collections import Counter
from typing import Any

import typer
from typer.core import TyperGroup

from strata.addresses import without_secrets
from strata.cli import exits
from strata.errors import InvalidInput, StrataError, plain_line
from strata.files import is_of_writing

_OF_FIELD = re.compile(r"Invalid request: body\.([^:\s]+): ")
_OPTIONS = {  # by fields of a submission
    **{"input.where": "--where", "input.sources": "--from", "input.shards": "SHARD", "webhook.url": "--webhook"},
    **{"budget.tokens": "--budget-tokens", "budget.money": "--budget-money"},
    **{name: f"--{name}" for name in ("profile", "priority", "metadata", "variants", "language", "prompt")},
}
LONG_RUNNING = ("serve", "worker")  # their messages share one log, so each begins with the command's name


class PlainGroup(TyperGroup):
    """A group whose own options are parsed without pydantic, whose import takes longer than the rest of --help.

    In Typer 0.29 --help and the completion options have no default, and their None is converted with pydantic. A
    default of False needs no conversion. No option of its commands takes "nan" or "inf" for a number: neither is below
    or above a limit. None takes a second text where one is used: Typer would drop the first one without a word.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command of the group, whose numbers are finite."""
        command: Any = super().get_command(ctx, cmd_name)
        if command is None or isinstance(command, TyperGroup):
            return command
        for option in command.params:
            option.callback = option.callback or _finite
        command.make_parser = functools.partial(_parser_of, type(command), command)
        return command

    def get_params(self, ctx: Any) -> list[Any]:
        """The group's options, where those that typer adds get a default."""
        params = super().get_params(ctx)
        for option in params:
            if option.name in ("help", "install_completion", "show_completion"):
                option.default = False
        return params


class CommandLine(PlainGroup):
    """The group of all commands. It prints a command's exception as one line and exits with the error's code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Typer's own exceptions (usage errors, exit codes) pass through."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of stdout has closed it: typer then exits without a message
            if ctx.params.get("debug"):
                print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
            lines, code = describe_error(error)
            # one line for each fault on stderr; the output of a command on stdout stays as it is
            name = f"strata {ctx.invoked_subcommand}" if ctx.invoked_subcommand in LONG_RUNNING else "strata"
            for line in lines:
                print(f"{name}: {_printable(without_secrets(line))}", file=sys.stderr, flush=True)
            raise typer.Exit(code) from error


def _parser_of(kind: Any, command: Any, ctx: Any) -> Any:
    """A command's parser, which raises InvalidInput for a text that is given twice to an option of one text.

    Of an option that the environment can set too, such as --store, the last one counts: it may replace an alias's.
    """
    parser = kind.make_parser(command, ctx)
    parse = parser.parse_args

    def parse_args(args: list[str]) -> Any:
        values, rest, order = parse(args=args)
        for one, times in Counter(order).items():
            if times > 1 and one.type_descriptor.annotation is str and not (one.multiple or one.envvar):
                raise InvalidInput(f"{one.opts[0]} is given {times} times, and one is used: name it once")
        return values, rest, order

    parser.parse_args = parse_args
    return parser


def _finite(ctx: Any, param: Any, value: Any) -> Any:
    """The value of an option, unless it is a number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number", ctx=ctx, param=param)
    return value


def describe_error(error: Exception) -> tuple[list[str], int]:
    """The message of an error, one line for each fault, and its exit code."""
    # packages that only some commands import are recognized by name, so that this module need not import them
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    code = exits.code_of(error)
    if code is not None:
        lines = error.lines if isinstance(error, StrataError) else [_with_place(error)]
        lines = [*map(_with_option, lines)]
        # an answer of the service, which does not know how its caller sends the key
        if getattr(getattr(error, "problem", None), "status", None) == 401:
            lines = [f"{lines[0]}; the command line sends the key of --api-key or STRATA_API_KEY"]
        return lines, code
    if "httpx" in packages:
        # the request is not set if its URL could not be parsed
        request = getattr(error, "_request", None)
        at = (
            f" at {request.url.scheme}://{request.url.netloc.decode()}"
            if request is not None and request.url.host
            else ""
        )
        line = f"cannot reach the service{at}: {error}; is it running, and is --url or STRATA_URL right?"
        return [line], exits.API_UNREACHABLE
    if "redis" in packages:
        return [f"Redis cannot be used: {error}"], exits.REDIS_UNREACHABLE
    # an unexpected exception: name its class, and how to see where it comes from
    first = str(error).strip().partition("\n")[0]
    return [f"{type(error).__name__}: {first}; run with --debug for the traceback"], exits.FAILURE


def _with_option(line: str) -> str:
    """A line of the service about a field of a request, with the option that the field came from."""
    found = _OF_FIELD.match(line)
    option = next((_OPTIONS[name] for name in _OPTIONS if found and f"{found[1]}.".startswith(f"{name}.")), None)
    return line if found is None or option is None else f"{option}: {line[found.end() :]}"


def _with_place(error: Exception) -> str:
    """An error in one line. Of a full disk that no file is known of, where there is no space is told."""
    import tempfile

    line = plain_line(error)
    if not is_of_writing(error) or getattr(error, "filename", None) is not None:
        return line
    places: dict[str, int | str] = {"stdout": 1, tempfile.gettempdir(): tempfile.gettempdir()}
    full = (name for name, place in places.items() if _is_full(place))
    return f"{next(full, 'stdout, or a file that is not known')}: {line}"


def _is_full(place: int | str) -> bool:
    """Whether the disk of a file or folder has no space left."""
    try:
        return os.statvfs(place).f_bavail == 0
    except OSError:
        return False


def _printable(text: str) -> str:
    """The text without control characters, which a terminal could execute."""
    return "".join(character if character.isprintable() else " " for character in text)
