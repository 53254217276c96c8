"""The groups of a faulty worker: the real groups and pipelines, with stages that fail when it is ordered."""

from __future__ import annotations

import functools
import sys
from typing import Any

from bench.faults.stages import FaultyStages
from models.pipeline import LlmPipeline, VisionPipeline
from strata.cli.exits import code_of
from strata.core import Profile, Settings, load_settings
from strata.errors import StrataError
from strata.images import DecodingPool
from strata.store import Store
from workers.groups import Group, LlmGroup, PipelineCache, VisionGroup
from workers.process import work
from workers.profile_versions import ProfileVersions


def run_worker(groups: list[str], stages: FaultyStages) -> int:
    """Work until SIGTERM; returns the exit code of a real worker."""
    try:
        work(load_settings(), groups, functools.partial(_group, stages=stages))
    except StrataError as error:
        print(f"faulty worker: {error}", file=sys.stderr)
        return code_of(error) or 1
    return 0


def _group(name: str, store: Store, profiles: ProfileVersions, settings: Settings, stages: FaultyStages) -> Group:
    """A `workers.engines.groups.GroupMaker`."""
    decoder = DecodingPool(settings.max_pixels)
    if name == "vision":
        return VisionGroup(store, PipelineCache(_building(VisionPipeline, stages), profiles), decoder)
    return LlmGroup(store, PipelineCache(_building(LlmPipeline, stages), profiles), decoder)


def _building(pipeline_class: Any, stages: FaultyStages) -> Any:
    def build(profile: Profile) -> Any:
        stages.build_fails()
        pipeline = pipeline_class(profile)
        load = pipeline.load

        def load_then_wrap() -> None:
            # the probes of loading must not use up the faults that are meant for images
            load()
            for stage in pipeline.stages.values():
                stages.wrap(stage)

        pipeline.load = load_then_wrap
        return pipeline

    return build
