"""The tree of errors and the table of exit codes."""

from __future__ import annotations

import errno
import importlib
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

import strata
from strata import errors
from strata.cli import exits
from strata.cli.group import describe_error
from strata.cli.main import app
from strata.client.responses import ApiError
from strata.core.schemas import Problem
from strata.data.mixtures import IncompleteMixture, MixtureError
from strata.errors import plain_line
from strata.files import writing
from strata.jobs.jobs import NotFinished, UnknownJob
from strata.snapshots.snapshots import UnknownSnapshot
from tests.checkout import CHECKOUT
from tests.cli.test_cli import code_of


def raised_classes() -> set[type[Exception]]:
    """Every public exception class that a module of strata defines."""
    found: set[type[Exception]] = set()
    for module in pkgutil.walk_packages(strata.__path__, "strata."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_"):
                found |= {value} if value.__module__.startswith("strata.") else set()
    return found


def test_every_error_of_the_library_stands_in_the_tree() -> None:
    classes = raised_classes()
    assert len(classes) > 20
    assert {one for one in classes if not issubclass(one, errors.StrataError)} == set()


def test_every_kind_of_error_has_a_code() -> None:
    kinds = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    # the first has the general code, the second brings its own, and Docker's health checks know 1 alone
    kinds -= {errors.StrataError, errors.ProcessFailed, errors.NoWorker}
    assert {kind for kind in kinds if exits.code_of(kind.__new__(kind)) in (None, exits.FAILURE)} == set()
    assert set(exits.CODES.values()) == set(range(1, 18))


def test_an_error_of_a_full_disk_names_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    with pytest.raises(OSError) as caught, writing(tmp_path), full.open("wb", buffering=0) as file:
        file.write(b"x")
    assert describe_error(caught.value) == ([f"{tmp_path}: No space left on device"], exits.USAGE)
    # the inner place counts, and errors of other kinds stay as they are
    with pytest.raises(OSError) as caught, writing("outer"), writing("inner"):
        raise OSError(errno.EDQUOT, "whatever the library says of it")
    assert plain_line(caught.value) == "inner: Disk quota exceeded"
    for error in (
        OSError(errno.ENOSPC, "no space", "a"),
        OSError(errno.EIO, "broken"),
        OSError("away"),
        ValueError("x"),
    ):
        with pytest.raises(type(error)) as other, writing("outer"):
            raise error
        assert other.value is error
    # stdout has no name
    spaces = {1: 0, tempfile.gettempdir(): 5}
    monkeypatch.setattr("os.statvfs", lambda place: SimpleNamespace(f_bavail=spaces[place]))
    nameless = OSError(errno.ENOSPC, "No space left on device")
    assert describe_error(nameless)[0] == ["stdout: No space left on device"]
    spaces[1] = 5
    assert describe_error(nameless)[0] == ["stdout, or a file that is not known: No space left on device"]


def test_every_code_stands_in_the_table_of_the_documentation() -> None:
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", exits.__doc__ or "", re.MULTILINE)}
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert documented == codes | {0} == {*exits.CODES.values(), 0, exits.INTERRUPTED}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownJob("none"), exits.REQUEST_REFUSED),
        (UnknownSnapshot("none", []), exits.REQUEST_REFUSED),
        (MixtureError("no"), exits.USAGE),
        (IncompleteMixture("no"), exits.MIXTURE_INCOMPLETE),
        (ApiError.of(Problem(type="about:blank", title="No", status=404, detail="")), exits.REQUEST_REFUSED),
        (ApiError.of(Problem(type="about:blank", title="No", status=503, detail="")), exits.API_UNREACHABLE),
        (errors.ProcessFailed("ended", exits.WEIGHTS_MISSING), exits.WEIGHTS_MISSING),
        (errors.ProcessFailed("ended", 0), exits.FAILURE),
        (FileNotFoundError("a"), exits.USAGE),
        (ValueError("a fault"), None),
    ],
)
def test_the_nearest_class_decides(error: Exception, code: int | None) -> None:
    assert exits.code_of(error) == code


def test_errors_stay_what_they_are() -> None:
    assert issubclass(UnknownJob, LookupError) and issubclass(NotFinished, ValueError)
    assert issubclass(MixtureError, ValueError)


def test_no_room_but_the_command_line_knows_exit_codes() -> None:
    folder = Path(strata.__path__[0])
    named = [path.relative_to(folder) for path in folder.rglob("*.py") if "exits" in path.read_text()]
    users = {path.parts[0] for path in named if len(path.parts) > 1}
    assert users == {"cli"}
    assert [path.name for path in folder.glob("*.py") if "import exits" in path.read_text()] == []


def test_importing_the_errors_loads_nothing_heavy() -> None:
    code = "import sys, strata.cli.exits; sys.exit(any(name in sys.modules for name in ('pydantic', 'httpx', 'redis')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_pydantic_says_is_read_in_one_place() -> None:
    folders = [CHECKOUT / name for name in ("app", "strata", "training", "models", "workers")]
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    found = [path for path in modules if re.search(r"\[.msg.\]", path.read_text(encoding="utf-8"))]
    assert found == [CHECKOUT / "strata" / "errors.py"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", "a.tar", "--variants", "nonsense"),
        ("submit", "a.tar", "--language", "xx"),
        ("submit", "a.tar", "--prompt", "{"),
        ("submit", "a.tar", "--budget-money", "-1"),
    ],
)
def test_a_bad_value_is_told_without_the_name_of_an_exception(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(*arguments) == exits.USAGE
    line = capsys.readouterr().err
    assert line.startswith(f"strata: {arguments[2]}") and "error," not in line


def commands(group: Any, path: str = "strata") -> Iterator[tuple[str, Any]]:
    """Every command with its path, as the command line runs it."""
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(
    ("detail", "line"),
    [
        ("body.input.where: it is empty", "--where: it is empty"),
        ("body.input.sources.0: no job", "--from: no job"),
        ("body.metadata.a: too long", "--metadata: too long"),
        ("body.budget.tokens: too few", "--budget-tokens: too few"),
        ("body.inputs: what", "Invalid request: body.inputs: what"),
        ("the body: what", "Invalid request: the body: what"),
    ],
)
def test_a_field_of_a_request_is_told_as_its_option(detail: str, line: str) -> None:
    problem = Problem(type="t", title="Invalid request", status=422, detail=detail)
    assert describe_error(ApiError(problem))[0] == [line]


def test_a_text_is_not_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["submit"], ["run"], ["snapshot", "create", "x"]):
        for options, said in ((["--where", "a", "--where=b"], "is given 2 times"), (["--where= "], "is empty")):
            assert code_of(*command, "--from", "job", *options) == exits.USAGE
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"strata: --where {said}")
    # options that take several, and one that may replace an alias's
    assert code_of("submit", "--from", "a", "--from", "b", "--url", "x", "--url", "y") == exits.USAGE
    assert "the address must have the form" in capsys.readouterr().err


def test_no_option_takes_a_number_that_is_not_finite() -> None:
    found = {
        f"{path} {option.opts[0]}": (command, option)
        for path, command in commands(typer.main.get_command(app))
        for option in command.params
        if option.type_descriptor.annotation is float
    }
    assert {"strata search --score-min", "strata evaluate --budget-money"} <= set(found)
    for name, (command, option) in found.items():
        context = typer.Context(command)
        for text in ("nan", "inf", "-inf", "NaN", "1e999"):
            with pytest.raises(typer.BadParameter):
                option.process_value(context, text)
                pytest.fail(f"{name} {text}")
        assert option.process_value(context, "0.5") == 0.5
