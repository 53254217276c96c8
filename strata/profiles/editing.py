"""A new profile's file, made from another one's with some keys changed. Comments and order stay as they are."""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.items import InlineTable, Table

from strata.core import InvalidProfile, Profile, read_profile
from strata.core.profiles import Fault
from strata.errors import InvalidInput, plain_line

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PROMPTS = "prompts"
_LONGEST = 120  # characters of the note of what a line was before, and of a description that is made


@dataclass(frozen=True)
class NewProfile:
    """A profile that was written. path: its file."""

    profile: Profile
    path: Path


def new_file(name: str, folder: Path) -> Path:
    """The file of a new profile. Raises InvalidInput for a name that cannot be, and for a file that exists."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name[:60]!r} is no profile's name: use letters, digits, _ and -")
    path = folder / f"{name}.toml"
    if path.exists():
        raise InvalidInput(f"{path} exists; choose another name, or change it with an editor")
    return path


def new_profile(
    name: str, source: Path, folder: Path, changes: Mapping[str, str], without: Iterable[str] = ()
) -> NewProfile:
    """Write `folder/NAME.toml` from the file `source`, with some keys changed, and some stages or keys left out.

    changes: values by dotted key, such as "evidence.region" and "stages.captioner.parameters.served_model"; a value is
    TOML if it can be read as such, else a text. The description tells the source and the changes, unless it is one of
    them. Nothing is written if the new profile has faults. Raises InvalidProfile with these, and InvalidInput for a
    name or a key that cannot be, and for a file that exists.
    """
    path = new_file(name, folder)
    try:
        document = tomlkit.parse(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{source} cannot be read: {plain_line(error)[:200]}") from error
    unwanted_names = list(without)
    for unwanted in unwanted_names:
        _remove(document, unwanted)
    for key, text in _described(source.stem, changes, unwanted_names).items():
        if fault := _set(document, key, text, source.stem):
            raise InvalidProfile(path, [fault])
    text = tomlkit.dumps(document)
    profile = _checked(path, text)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return NewProfile(profile, path)


def _described(source: str, changes: Mapping[str, str], without: Sequence[str]) -> dict[str, str]:
    """The changes with that of the description, by which the profile is told from its source in a list."""
    if any(key.partition(".")[0] == "description" for key in changes):
        return dict(changes)
    told = ", ".join([*(f"{key} = {text}" for key, text in changes.items()), *(f"no {name}" for name in without)])
    text = f"{source} with {told}" if told else f"a copy of {source}"
    # a text in JSON is one in TOML too
    return {**changes, "description": json.dumps(_one_line(text), ensure_ascii=False)}


def _checked(path: Path, text: str) -> Profile:
    """The profile that a text would be as the file `path`, which is not written. Raises InvalidProfile."""
    # check it where nobody looks for profiles, beside the prompts that it may name
    prompts = path.parent.parent / _PROMPTS
    with tempfile.TemporaryDirectory() as aside:
        trial = Path(aside) / "profiles" / path.name
        trial.parent.mkdir()
        if prompts.is_dir():
            (Path(aside) / _PROMPTS).symlink_to(prompts.resolve())
        trial.write_text(text, encoding="utf-8")
        try:
            return read_profile(trial)
        except InvalidProfile as error:
            # the user's path: the one of the trial is gone when the message is read
            raise InvalidProfile(path, error.faults) from error


def _remove(document: TOMLDocument, name: str) -> None:
    """Remove a stage, or a dotted key such as "evidence.second_object"."""
    stages = document.get("stages", {})
    *path, last = name.split(".") if "." in name else ["stages", name]
    table: Any = document
    for part in path:
        table = table.get(part) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or last not in table:
        raise InvalidInput(f"there is no {name[:60]!r} to leave out; stages are: {', '.join(stages)}")
    del table[last]  # type: ignore[attr-defined]  # a table of tomlkit


def _set(document: TOMLDocument, key: str, text: str, source: str) -> Fault | None:
    """Set a dotted key; tables that are missing are made. The line tells that the value is not the source's.

    Returns the fault of a value in the place of a table, which is not set. Raises InvalidInput for a key that is none.
    """
    *path, last = key.split(".")
    if not all((*path, last)):
        raise InvalidInput(f"--set {key[:60]!r}: expected a dotted key, such as evidence.region")
    table: Any = document
    for name in path:
        table = table.setdefault(name, tomlkit.table())
        if not isinstance(table, Mapping):
            raise InvalidInput(f"--set {key[:60]!r}: {name[:60]!r} is no table")
    before = table.get(last)
    value = tomlkit.item(_value(text))
    if isinstance(before, Mapping) and not isinstance(before, InlineTable) and not isinstance(value, Table):
        return Fault("invalid_value", (*path, last), "should be a table; set its keys, or leave it out with --without")
    if not isinstance(value, Table):
        note = f"{source}: {before.as_string()}" if hasattr(before, "as_string") else f"not set in {source}"
        value.comment(_one_line(note))
        value.trivia.comment_ws = "  "
    table[last] = value
    return None


def _one_line(text: str) -> str:
    """A text as a comment or a description: one line without control characters, shortened."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _value(text: str) -> Any:
    """A value of the command line: TOML, such as `0.2`, `true`, `["a"]`, or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text
