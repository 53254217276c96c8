"""Descriptions in one process, for `strata.describing`: the pipelines of both groups, without a queue and a store."""

from __future__ import annotations

from workers.describing.pipelines import LocalPipelines

__all__ = ["LocalPipelines"]
