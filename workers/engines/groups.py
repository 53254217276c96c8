"""Groups by their names, with the models of a profile, as every engine loads them."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable

from models.base import StageNotLoaded
from strata.core import Settings
from strata.errors import InvalidInput, ProcessBroken, StrataError
from strata.images import DecodingPool
from strata.logs import adopt_libraries
from strata.store import Store
from workers.groups import Group, LlmGroup, PipelineCache, VisionGroup, with_weights
from workers.profile_versions import ProfileVersions

GroupMaker = Callable[[str, Store, ProfileVersions, Settings], Group]


def real_group(name: str, store: Store, profiles: ProfileVersions, settings: Settings) -> Group:
    """The group with the models of its profiles."""
    from models.pipeline import LlmPipeline, VisionPipeline  # slow imports

    decoder = _decoder(settings.max_pixels)
    if name == "vision":
        return VisionGroup(store, PipelineCache(with_weights(VisionPipeline, name), profiles), decoder)
    return LlmGroup(store, PipelineCache(with_weights(LlmPipeline, name), profiles), decoder)


@functools.cache
def _decoder(max_pixels: int) -> DecodingPool:
    """The pool of this process: its groups share the memory that decoding may take."""
    return DecodingPool(max_pixels)


def loaded_group(
    name: str, group_of: GroupMaker, store: Store, profiles: ProfileVersions, settings: Settings, profile: str
) -> Group:
    """The group by its name, with the models of a profile loaded. Raises StrataError."""
    try:
        group = group_of(name, store, profiles, settings)
        group.load(profile)
        adopt_libraries()
    except StageNotLoaded as error:
        # a package that is missing is told at once; for any other error a new process may have better luck
        kind = InvalidInput if isinstance(error.__cause__, ImportError) else ProcessBroken
        raise kind(str(error)) from error
    except StrataError:
        raise
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    return group


def quiet_libraries(threads: int) -> None:
    """Set the libraries' threads; keep their progress bars and advice out of the log; keep them from asking the hub."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # `strata models fetch` has fetched and checked the weights
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # open_clip reports each step of loading through the root logger
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: record.name != "root" or record.levelno >= logging.WARNING)
