"""A new profile's file, made from another one's with some keys changed. Comments and order stay as they are."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.items import Table

from strata.core import Profile, read_profile
from strata.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PROMPTS = "prompts"


@dataclass(frozen=True)
class NewProfile:
    """A profile that was written. path: its file."""

    profile: Profile
    path: Path


def new_profile(
    name: str, source: Path, folder: Path, changes: Mapping[str, str], without: Iterable[str] = ()
) -> NewProfile:
    """Write `folder/NAME.toml` from the file `source`, with some keys changed, and some stages or keys left out.

    changes: values by dotted key, such as "evidence.region" and "stages.captioner.parameters.served_model"; a value is
    TOML if it can be read as such, else a text. Nothing is written if the new profile has faults. Raises InvalidProfile
    with these, and InvalidInput for a name or a key that cannot be, and for a file that exists.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name[:60]!r} is no profile's name: use letters, digits, _ and -")
    path = folder / f"{name}.toml"
    if path.exists():
        raise InvalidInput(f"{path} exists; choose another name, or change it with an editor")
    try:
        document = tomlkit.parse(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{source} cannot be read: {' '.join(str(error).split())[:200]}") from error
    for unwanted in without:
        _remove(document, unwanted)
    for key, text in changes.items():
        _set(document, key, text, source.stem)
    # check it where nobody looks for profiles, beside the prompts that it may name
    text = tomlkit.dumps(document)
    with tempfile.TemporaryDirectory() as aside:
        trial = Path(aside) / "profiles" / path.name
        trial.parent.mkdir()
        if (folder.parent / _PROMPTS).is_dir():
            (Path(aside) / _PROMPTS).symlink_to((folder.parent / _PROMPTS).resolve())
        trial.write_text(text, encoding="utf-8")
        profile = read_profile(trial)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return NewProfile(profile, path)


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


def _set(document: TOMLDocument, key: str, text: str, source: str) -> None:
    """Set a dotted key; tables that are missing are made. The line tells that the value is not the source's."""
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
    if not isinstance(value, Table):
        value.comment(f"{source}: {before.as_string()}" if hasattr(before, "as_string") else f"not set in {source}")
        value.trivia.comment_ws = "  "
    table[last] = value


def _value(text: str) -> Any:
    """A value of the command line: TOML, such as `0.2`, `true`, `["a"]`, or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text
