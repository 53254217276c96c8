"""The files of profiles: they are read and checked completely, and all faults are told at once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from strata.components import components_folder
from strata.core.parameters import PromptParameters
from strata.core.profiles.checks import Fault, Prompts, combination_faults, shape_faults, stage_faults
from strata.core.profiles.profile import Profile, ProfileError
from strata.core.registry import installed
from strata.errors import ProfileInvalid, plain_line

PROMPTS = components_folder() / "models" / "prompts"  # of the back ends that are built in
_NO_KEYS = ("name", "prompts")  # fields of a Profile that its file does not set


class InvalidProfile(ProfileError, ProfileInvalid):
    """A profile file is invalid; the message has the file, the key and the problem of each fault."""

    def __init__(self, path: Path, faults: Sequence[Fault]) -> None:
        self.path, self.faults = path, tuple(faults)
        super().__init__("; ".join(f"{path.name}: {fault}" for fault in self.faults))

    @property
    def lines(self) -> list[str]:
        """A line for each fault, with the file's path."""
        return [f"{self.path}: {fault}" for fault in self.faults]


def profile_names(folder: Path) -> list[str]:
    """The names of the profiles in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load_profile(name: str, folder: Path, *, pinned: bool = True) -> Profile:
    """Read `folder/NAME.toml` and check it completely, see `read_profile`.

    Raises ProfileError; for an unknown name the message lists the known ones.
    """
    known = profile_names(folder)
    if name not in known:
        hint = f"there are: {', '.join(known)}" if known else f"{folder} has none"
        raise ProfileError(f"unknown profile {name[:60]!r}; {hint}")
    return read_profile(folder / f"{name}.toml", pinned=pinned)


def read_profile(path: Path, *, pinned: bool = True) -> Profile:
    """Read a profile's file and check it completely: keys, values, back ends, prompts, stages that need others.

    A prompt is looked for in `prompts` beside the file's folder, then among the built-in ones. Raises InvalidProfile
    with all faults. pinned: refuse revisions that are not pinned.
    """
    # a file that is not TOML has one fault
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = plain_line(error)[:200]
        raise InvalidProfile(path, [Fault("unreadable", (), f"cannot be read: {reason}")]) from error
    # shape: keys, types and ranges; the name comes from the file's name
    faults = [Fault("unknown_key", (key,), "is not set in a profile's file") for key in _NO_KEYS if key in data]
    given = {key: value for key, value in data.items() if key not in _NO_KEYS}
    try:
        profile = Profile.model_validate({**given, "name": path.stem})
    except ValidationError as error:
        faults += shape_faults(error, Profile, hidden=_NO_KEYS)
    # meaning: each stage, and the stages together, against the registry
    prompts = Prompts((path.parent.parent / "prompts", PROMPTS))
    meaning_faults = _meaning_faults(given, prompts, pinned)
    # report each key once: the message of the registry is the more specific one
    keys = {fault.key for fault in meaning_faults}
    # what an unknown stage lacks is not told, because the stage is not meant
    unknown = {fault.key for fault in meaning_faults if fault.kind == "unknown_stage"}
    faults = [fault for fault in faults if fault.key not in keys and fault.key[:2] not in unknown] + meaning_faults
    # texts: only a profile without other faults can say what its composer writes
    if not faults and (text := profile.texts_fault()):
        faults = [Fault("texts", ("texts",), text)]
    if faults:
        raise InvalidProfile(path, faults)
    return _with_prompts(profile, prompts)


def _meaning_faults(data: Mapping[str, Any], prompts: Prompts, pinned: bool) -> list[Fault]:
    registry, stages, evidence = installed(), data.get("stages"), data.get("evidence", {})
    if not isinstance(stages, dict):
        return []
    faults: list[Fault] = []
    for name, table in stages.items():
        if isinstance(table, dict):
            faults += stage_faults(name, table, registry, prompts, pinned=pinned)
    # a misspelt stage would also be reported as a missing one
    if isinstance(evidence, dict) and all(name in registry.stages for name in stages):
        faults += combination_faults(stages, evidence, registry)
    return faults


def _with_prompts(profile: Profile, prompts: Prompts) -> Profile:
    """The profile with the texts of its prompts, which have been checked."""
    stages, texts = dict(profile.stages), {}
    for name, settings in profile.stages.items():
        parameters = installed().back_end(name, settings.backend).parameters.model_validate(settings.parameters)
        # the texts are kept with the results; the fingerprint has only their sha256
        data = prompts.read(parameters.prompt) if isinstance(parameters, PromptParameters) else None
        if isinstance(parameters, PromptParameters) and data is not None:
            texts[parameters.prompt] = data.decode()
            stages[name] = settings.with_prompt(data.decode())
    return profile.model_copy(update={"prompts": texts, "stages": stages})
