"""Build the stages of a profile: the registry names each back end's class, which is imported here."""

from __future__ import annotations

import importlib
from typing import Any

from models.base import Stage
from strata.core import STAGES_OF, BackEnd, Profile, ProfileError, StageSettings, UnknownBackEnd, installed


def build_stages(profile: Profile, group: str) -> dict[str, Stage[Any, Any]]:
    """The stages of a group that the profile names, without their weights loaded.

    Raises ProfileError for a back end that does not exist or whose code cannot be imported, and ValueError for
    settings that are not valid for it.
    """
    names = [name for name in STAGES_OF[group] if name in profile.stages]
    return {name: build_stage(name, profile.stages[name]) for name in names}


def build_stage(name: str, settings: StageSettings) -> Stage[Any, Any]:
    """One stage, without its weights loaded. Raises the errors of `build_stages`."""
    try:
        back_end = installed().back_end(name, settings.backend)
    except UnknownBackEnd as error:
        raise ProfileError(str(error)) from error
    return stage_class(back_end)(settings)


def stage_class(back_end: BackEnd) -> type[Stage[Any, Any]]:
    """Import the class of a back end. Raises ProfileError."""
    module, _, name = back_end.code.partition(":")
    about = f"back end {back_end.name!r} of {back_end.stage}"
    # a back end of another distribution may be broken, or missing one of its own dependencies
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ProfileError(f"{about}: {back_end.code} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise ProfileError(f"{about}: {back_end.code} is not a subclass of models.base.Stage")
    return found
