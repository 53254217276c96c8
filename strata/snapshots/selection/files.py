"""A selection as a TOML file (`strata snapshot create --selection FILE`), with the names of the command's options."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from strata.core.registry import suggestion
from strata.errors import InvalidInput, fault_line


class SelectionFile(BaseModel):
    """What a file may say: the options of `strata snapshot create` that choose rows.

    leave_out: names of rules with their filters; target: features with the shares of their labels; quota: sources with
    a number of rows or a share. Paths are relative to the file.
    """

    model_config = ConfigDict(extra="forbid", alias_generator=lambda name: name.replace("_", "-"))

    select: str | None = None
    count: int | None = None
    share: float | None = None
    seed: int | None = None
    where: str | None = Field(default=None, min_length=1)
    unique: bool = False
    same: str | None = None
    alike: float | None = None
    bits: int | None = None
    keep: str | None = None
    better: list[str] = Field(default_factory=list)
    leave_out: dict[str, str] = Field(default_factory=dict)
    without: Path | None = None
    features: str | None = None
    by: list[str] = Field(default_factory=list)
    target: dict[str, dict[str, float]] = Field(default_factory=dict)
    cap: int | None = None
    concepts: list[str] = Field(default_factory=list)
    quality: str | None = Field(default=None, min_length=1)
    quota: dict[str, int | float | str] = Field(default_factory=dict)
    scores: Path | None = None
    exclude: Path | None = None
    accept_shortfall: bool = False

    def options(self, folder: Path) -> dict[str, Any]:
        """The options by name, without those that are not set. folder: of the file."""
        found = {name: value for name, value in self if not (value is None or value is False or value in ([], {}))}
        found |= {name: folder / found[name] for name in ("without", "scores", "exclude") if name in found}
        texts = {
            "leave_out": [f"{name}={rule}" for name, rule in self.leave_out.items()],
            "quota": [f"{source}={amount}" for source, amount in self.quota.items()],
            "target": [f"{axis}={label}:{part}" for axis, of in self.target.items() for label, part in of.items()],
        }
        return found | {name: text for name, text in texts.items() if text}


def read_selection_file(path: Path) -> dict[str, Any]:
    """The options of a file, those that take several values as lists of what the command line takes.

    Raises InvalidInput for a file that cannot be read, a name that is no option, or a value of another kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: it is no TOML file: {error}") from None
    known = {name.replace("_", "-") for name in SelectionFile.model_fields}
    for name in content:
        if name not in known:
            raise InvalidInput(f"{path}: {name!r} is no option of a selection; {suggestion(name, known)}")
    try:
        return SelectionFile.model_validate(content).options(path.parent)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"{path}: {place}: {fault_line(first)}") from None
