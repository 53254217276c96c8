"""The manifest of a snapshot: all that is known of it but its rows, and the id that names parts, selection and rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, BaseModel, Field, field_validator

from strata.core import DEFAULT_TENANT
from strata.snapshots.composition import Composition
from strata.snapshots.selection import Better, Selection
from strata.store import Part, Provenance

ROW_SCHEMA = pa.schema([pa.field("part", pa.int32(), nullable=False), pa.field("row", pa.int32(), nullable=False)])


def _path_of_part(path: str) -> str:
    Part.parse(path)  # raises ValueError
    return path


class Counts(BaseModel):
    """The numbers of parts, and of their rows by status. passed: succeeded rows that pass the filter.

    left_out: by rule of the selection, the succeeded rows that it is the first to leave out. better: what became of
    images that are described several times, if one row of each stays.
    """

    parts: int
    succeeded: int
    filtered: int
    failed: int
    passed: int
    selected: int
    left_out: dict[str, int] = {}
    better: Better | None = None


class Manifest(BaseModel):
    """The content of `snapshots/NAME.json`. sources: the jobs and data sets that the parts come from.

    tenant: to whom it belongs; empty: to nobody, so that only the operator sees it in the service.
    """

    id: str = Field(pattern="^[0-9a-f]{64}$")
    created_at: datetime
    sources: list[str]
    selection: Selection
    counts: Counts
    composition: Composition
    provenance: list[Provenance]
    parts: list[Annotated[str, AfterValidator(_path_of_part)]]
    tenant: str = DEFAULT_TENANT

    @field_validator("selection", mode="before")
    @classmethod
    def _with_its_score(cls, values: Any) -> Any:
        """What was best when the snapshot was made: earlier versions wrote no score."""
        earlier = isinstance(values, dict) and values.get("method") == "best" and "score" not in values
        return {**values, "score": "evidence"} if earlier else values


def manifest_of(
    parts: Sequence[str],
    rows: pa.Table,
    selection: Selection,
    *,
    counts: Counts,
    composition: Composition,
    origin: tuple[list[str], list[Provenance], str],
) -> Manifest:
    """The manifest of a snapshot that is made now; it describes the selection completely, so that it can be repeated.

    rows: the selected ones, of ROW_SCHEMA. origin: the sources of the parts, the provenance of their
    fingerprints, and the tenant.
    """
    sources, provenance, tenant = origin
    return Manifest(
        id=id_of(parts, selection, rows),
        created_at=datetime.now(UTC),
        sources=sources,
        selection=selection,
        counts=counts,
        composition=composition,
        provenance=provenance,
        parts=list(parts),
        tenant=tenant,
    )


def id_of(parts: Sequence[str], selection: Selection, rows: pa.Table) -> str:
    """SHA-256 of parts, selection and rows: the same choice has the same id under every name.

    The selection is resolved, so it has the same meaning for other data.
    """
    # canonical JSON, and little-endian integers: the id is the same on every machine
    content = {"parts": list(parts), "selection": selection.model_dump(mode="json")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    for name in ROW_SCHEMA.names:
        digest.update(rows.column(name).to_numpy().astype(np.dtype("<i4")).tobytes())
    return digest.hexdigest()
