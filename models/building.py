"""Build the stages that a profile names."""

from __future__ import annotations

from typing import Any

from models.base import Stage
from models.stages.captioner import BACKENDS as CAPTIONERS
from models.stages.composer import BACKENDS as COMPOSERS
from models.stages.detector import BACKENDS as DETECTORS
from models.stages.matcher import BACKENDS as MATCHERS
from models.stages.ocr import BACKENDS as OCRS
from models.stages.segmenter import BACKENDS as SEGMENTERS
from strata.core.profiles import STAGES_OF, Profile

BACKENDS: dict[str, dict[str, Any]] = {
    "captioner": CAPTIONERS,
    "detector": DETECTORS,
    "segmenter": SEGMENTERS,
    "ocr": OCRS,
    "matcher": MATCHERS,
    "composer": COMPOSERS,
}


def build_stages(profile: Profile, group: str) -> dict[str, Stage[Any, Any]]:
    """The stages of a group that the profile names, not yet loaded. Raises ValueError for an unknown back end."""
    stages: dict[str, Stage[Any, Any]] = {}
    for name in STAGES_OF[group]:
        if name not in profile.stages:
            continue
        settings = profile.stages[name]
        if settings.backend not in BACKENDS[name]:
            raise ValueError(f"{name} has no back end {settings.backend!r}, only {', '.join(BACKENDS[name])}")
        stages[name] = BACKENDS[name][settings.backend](settings)
    return stages
