"""Runs: what one execution of a job or a command has read and written, and who has started it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from strata.lineage.datasets import Data

State = Literal["START", "COMPLETE", "FAIL", "ABORT"]
NAMESPACE = "strata"  # of jobs, unless OPENLINEAGE_NAMESPACE names another


@dataclass(frozen=True)
class Parent:
    """The run of a scheduler that has started a run: namespace and name of its job, and its id (a UUID)."""

    namespace: str
    name: str
    run: str


@dataclass
class Run:
    """A run of a job. name: the job's; id: a UUID. The lists are filled until the run ends; tags: what is found by.

    parents: who has started it, and who has started all of it, if somebody says so. told: whether anybody is told.
    """

    name: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    namespace: str = field(default_factory=lambda: os.environ.get("OPENLINEAGE_NAMESPACE") or NAMESPACE)
    inputs: list[Data] = field(default_factory=list)
    outputs: list[Data] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    parents: tuple[Parent, ...] = ()
    told: bool = True


def parents_of(environment: Mapping[str, str]) -> tuple[Parent, ...]:
    """The parent and the root that a scheduler names; what has another form is passed over.

    It names them in OPENLINEAGE_CONTEXT, as JSON, or in OPENLINEAGE_PARENT_ID and OPENLINEAGE_ROOT_PARENT_ID, as
    NAMESPACE/JOB/RUN: the forms of OpenLineage's integrations (integration/common, provider/dbt/utils.py).
    """
    found: list[Parent | None] = []
    try:
        told: Any = json.loads(environment.get("OPENLINEAGE_CONTEXT") or "{}")["parent"]
        found = [_parent_in(told), _parent_in(told.get("root"))]
    except (ValueError, KeyError, TypeError, AttributeError):
        found = [parent_of(environment.get(f"OPENLINEAGE_{one}") or "") for one in ("PARENT_ID", "ROOT_PARENT_ID")]
    if found[0] is None:
        return ()
    return tuple(one for one in found if one is not None)


def _parent_in(told: Any) -> Parent | None:
    try:
        return Parent(str(told["job"]["namespace"]), str(told["job"]["name"]), str(uuid.UUID(told["run"]["runId"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def parent_of(text: str) -> Parent | None:
    """The parent that NAMESPACE/JOB/RUN names; None for a text of another form."""
    pieces = text.strip().split("/")
    try:
        return Parent(pieces[0], pieces[1], str(uuid.UUID(pieces[2]))) if len(pieces) == 3 and all(pieces) else None
    except ValueError:
        return None
