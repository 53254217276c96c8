"""What a run is, kept beside its checkpoints, so that a run with another mixture or other settings is not continued."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from strata.errors import InvalidInput
from training.config import Config

# settings that change neither the data nor what is computed
_FREE = {"mixture", "output", "data", "store", "evaluation", "report_to", "readers", "save_steps", "keep"}
_FREE |= {"skip_limit", "gradient_checkpointing", "model.attn_implementation"}

_GIVEN = "a table"


class ChangedRun(InvalidInput):
    """A run would be continued with other settings than it was begun with. The message names each change."""


class RunRecord:
    """The file `run.json` of a run's output: its settings, the identity of its mixture, and its processes.

    changes: those that a continued run was allowed to make, each with the step from which on it holds.
    """

    def __init__(self, config: Config, mixture: str, processes: int) -> None:
        self.path = config.output / "run.json"
        self.settings = {"mixture": mixture, "processes": processes, **settings_of(config)}

    def check(self, step: int, allow: bool) -> list[str]:
        """The changes since the run was begun, each "NAME: OLD → NEW". Raises ChangedRun if there are, without `allow`.

        A run of an earlier version has no record, and is not checked.
        """
        before = self._read().get("settings", self.settings)
        # a setting that is new in this version has no old value; a table that is there or not has other names
        now = {name: self.settings.get(name, _GIVEN if before[name] is None else None) for name in before}
        changes = [
            f"{name}: {_shown(before[name])} → {_shown(now[name])}" for name in before if before[name] != now[name]
        ]
        if changes and not allow:
            line = f"{self.path.parent} has a run of other settings, at step {step}: {'; '.join(changes)}"
            raise ChangedRun(f"{line}. Use another output, or continue with --allow-changes")
        return changes

    def write(self, step: int, changes: list[str]) -> None:
        """Write the record of a run that begins, or goes on at a step with some changes."""
        known = self._read().get("changes", []) if step else []
        if changes:
            known = [*known, {"step": step, "changes": changes}]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # replace the file atomically
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"settings": self.settings, "changes": known}, indent=2), encoding="utf-8")
        temporary.replace(self.path)

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise ChangedRun(f"{self.path} cannot be parsed: remove it to continue unchecked") from None
        return found


def settings_of(config: Config) -> dict[str, Any]:
    """The settings that determine what a run computes, by their names in the file, "TABLE.KEY" in tables."""
    found = _flat(config.model_dump(mode="json"))
    return {name: value for name, value in found if not any(f"{name}.".startswith(f"{free}.") for free in _FREE)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
