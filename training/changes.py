"""What a run is, kept beside its checkpoints, so that a run with another mixture or other settings is not continued."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from strata.data import Mixture
from strata.errors import InvalidInput
from strata.snapshots.comparing.differences import leaves
from training.config import Config, Table

# settings that change neither the data nor what is computed; docs/how-to/train.md lists them too
FREE = {"mixture", "output", "data", "store", "report_to", "readers", "save_steps", "keep", "skip_limit"}
FREE |= {"gradient_checkpointing", "model.attn_implementation"}
FREE |= {"evaluation.every", "evaluation.mixture", "evaluation.questions"}
# settings that a checkpoint's weights or the state of its optimizer do not fit, if they are changed
FIXED = {"model.freeze", "lora", "optimizer.rates"}

_GIVEN = "a table"
_LONGEST = 200  # characters of a value in a message


class ChangedRun(InvalidInput):
    """A run would be continued with other settings than it was begun with. The message names each change."""


class RunRecord:
    """The file `run.json` of a run's output: its settings, the identity of its mixture, and its processes.

    changes: those that a continued run was allowed to make, each with the step from which on it holds.
    """

    def __init__(self, config: Config, trained: Mixture, processes: int) -> None:
        self.path = config.output / "run.json"
        self.settings = {"mixture": trained.identity, "processes": processes, **settings_of(config)}
        self.sources = sources_of(trained)

    def check(self, step: int, allow: bool) -> list[str]:
        """The changes since the run was begun, each "NAME: OLD → NEW". Raises ChangedRun if there are, without `allow`.

        With `allow` it raises ChangedRun only if there is one that the checkpoint does not fit (FIXED). A run of an
        earlier version has no record, and is not checked.
        """
        record = self._read()
        if "settings" not in record:
            return []
        settings = _setting_changes(_completed(record["settings"]), self.settings)
        sources = _source_changes(record.get("sources", self.sources), self.sources)
        # the hash of the mixture says nothing more if its sources or its split have changed
        if sources or "evaluation.split" in settings:
            settings.pop("mixture", None)
        changes = [*sources, *(f"{_shown(name)}: {line}" for name, line in settings.items())]
        fixed = [name for name in settings if _within(name, FIXED)]
        if changes and (fixed or not allow):
            line = f"{self.path.parent} has a run of other settings, at step {step}: {'; '.join(changes)}"
            way = (
                f" ({_shown(', '.join(fixed))} cannot change in a run)"
                if fixed
                else ", or continue with --allow-changes"
            )
            raise ChangedRun(f"{line}. Use another output{way}")
        return changes

    def write(self, step: int, changes: list[str]) -> None:
        """Write the record of a run that begins, or goes on at a step with some changes."""
        known = self._read().get("changes", []) if step else []
        if changes:
            known = [*known, {"step": step, "changes": changes}]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # replace the file atomically
        record = {"settings": self.settings, "sources": self.sources, "changes": known}
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=2), encoding="utf-8")
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
    return {name: value for name, value in leaves(config.model_dump(mode="json")) if not _within(name, FREE)}


def sources_of(mixture: Mixture) -> dict[str, dict[str, Any]]:
    """What determines the samples of each source of a mixture, by its name."""
    found: dict[str, dict[str, Any]] = {}
    for share in mixture.shares:
        several = share.instruction
        instruction = list(several) if isinstance(several, tuple) else several
        name = share.name if share.name not in found else f"{share.name} ({len(found) + 1})"
        found[name] = {"task": share.task, "count": share.count, "instruction": instruction}
        found[name]["contents"] = share.source.identity
    return found


def _setting_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Each setting that is not the same, with "OLD → NEW". A table that is there or not is named as a whole."""
    absent = {name for record in (before, now) for name, value in record.items() if value is None}
    changes = {}
    for name in dict.fromkeys([*before, *now]):
        old, new = _value(before, name), _value(now, name)
        if old != new and not any(name.startswith(f"{table}.") for table in absent):
            changes[name] = f"{_shown(old)} → {_shown(new)}"
    return changes


def _source_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The changes of the mixture's sources, each "mixture: source NAME: …"."""
    changes = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            one = old or new or {}
            changes.append(f"source {name}: {'added' if old is None else 'removed'} ({one['count']:,} samples)")
        else:
            differing = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
            changes += [f"source {name}: {key} {_shown(old.get(key))} → {_shown(new.get(key))}" for key in differing]
    # the order of the sources determines which samples have which numbers
    if not changes and list(before) != list(now):
        changes.append(f"order of the sources: {', '.join(before)} → {', '.join(now)}")
    return [f"mixture: {line}" for line in changes]


def _completed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the defaults of the settings that it lacks, because an earlier version did not have them."""
    found = dict(record)
    for name, default in _defaults(Config):
        parts = name.split(".")
        tables = {".".join(parts[:end]) for end in range(1, len(parts))}
        known = any(other == name or other.startswith(f"{name}.") for other in found)
        if not known and not _within(name, FREE) and not any(found.get(table, "") is None for table in tables):
            found[name] = default
    return found


def _defaults(table: type[Table], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The names and defaults of a table's settings, and of those in its tables; without those that have none."""
    for name, field in table.model_fields.items():
        several = get_origin(field.annotation) is tuple  # a list of tables is one value
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_table(kind) and not several]
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if not field.is_required() and not isinstance(default, Table | Mapping):
            yield f"{prefix}{name}", list(default) if isinstance(default, tuple) else default
        for kind in inner:
            yield from _defaults(kind, f"{prefix}{name}.")


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Table)


def _value(record: Mapping[str, Any], name: str) -> Any:
    """A setting's value, None if there is none, or _GIVEN for a table."""
    table = name not in record and any(other.startswith(f"{name}.") for other in record)
    return _GIVEN if table else record.get(name)


def _within(name: str, names: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{one}.") for one in names)


def _shown(value: Any) -> str:
    """A value in one line."""
    text = "none" if value is None else " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
