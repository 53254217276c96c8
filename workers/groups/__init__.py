"""The groups `vision` and `llm`: how their chunks are read, decoded and computed.

A group uses the store and the sources, never the queue; the runner uses the queue, never a model. `group.py` says what
the runner asks of a group, `pipelines.py` keeps the loaded models.
"""

from __future__ import annotations

from workers.groups.group import Group
from workers.groups.llm import LlmGroup
from workers.groups.pipelines import Pipeline, PipelineCache, with_weights
from workers.groups.vision import VisionGroup

__all__ = ["Group", "LlmGroup", "Pipeline", "PipelineCache", "VisionGroup", "with_weights"]
