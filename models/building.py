"""Build the stages of a profile: the registry names each back end's class, which is imported here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from models.base import Stage, StageBroken, StageNotLoaded, is_interrupt
from models.faults import ends_process, reason_of
from strata.core import STAGES_OF, BackEnd, Profile, ProfileError, StageSettings, UnknownBackEnd, installed
from strata.errors import StrataError


def build_stages(profile: Profile, group: str) -> dict[str, Stage[Any, Any]]:
    """The stages of a group that the profile names, without their weights loaded.

    Raises ProfileError for a back end that does not exist or is no stage, ValueError for settings that are not valid
    for it, StageNotLoaded for code that cannot be imported here or fails, and StageBroken.
    """
    names = [name for name in STAGES_OF[group] if name in profile.stages]
    return {name: build_stage(name, profile.stages[name]) for name in names}


def build_stage(name: str, settings: StageSettings) -> Stage[Any, Any]:
    """One stage, without its weights loaded. Raises the errors of `build_stages`."""
    try:
        back_end = installed().back_end(name, settings.backend)
    except UnknownBackEnd as error:
        raise ProfileError(str(error)) from error
    with _told_by(name):
        chosen = stage_class(back_end)
        # the back ends of a matcher give the second opinion too; faults, costs and seconds are noted under its name
        if chosen.name != name:
            chosen = type(chosen.__name__, (chosen,), {"name": name})
        return chosen(settings)


def load_stages(stages: Mapping[str, Stage[Any, Any]]) -> None:
    """Load stages and compute the probe of each, so that what is broken is found before the first image.

    Raises WeightsMissing, ValueError, StageNotLoaded and StageBroken.
    """
    for name, stage in stages.items():
        with _told_by(name):
            stage.load()
        with _told_by(name, known=StrataError):
            stage.probe()


@contextmanager
def _told_by(
    stage: str, known: type[Exception] | tuple[type[Exception], ...] = (StrataError, ValueError)
) -> Iterator[None]:
    """Raise what goes wrong while a stage is built or loaded as StageNotLoaded or StageBroken.

    known: errors that are raised as they are, because they say what is wrong: the weights, the profile, the server.
    """
    try:
        yield
    except known:
        raise
    except BaseException as error:
        if is_interrupt(error):
            raise
        # a plug-in that ends the process while it is imported would do so on every machine: it cannot be loaded
        if isinstance(error, Exception) and ends_process(error):
            raise StageBroken(stage, reason_of(error), loading=True) from error
        raise StageNotLoaded(stage, error) from error


def stage_class(back_end: BackEnd) -> type[Stage[Any, Any]]:
    """Import the class of a back end. Raises ProfileError, and any error of the module."""
    module, _, name = back_end.code.partition(":")
    about = f"back end {back_end.name!r} of {back_end.stage}"
    imported = importlib.import_module(module)
    if not hasattr(imported, name):
        raise ProfileError(f"{about}: module {module} has no attribute {name!r}")
    found = getattr(imported, name)
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise ProfileError(f"{about}: {back_end.code} is not a subclass of models.base.Stage")
    return found
