"""The provenance file of an export: what its texts were made from, with which models and prompts, and how many."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import strata
from strata.snapshots import Snapshot

# `pandas` and pyarrow pass over files of a folder whose names begin with "_", so that it may lie beside Parquet files
PROVENANCE = "_provenance.json"


def write_provenance(folder: Path, snapshot: Snapshot, request: dict[str, Any], samples: dict[str, int]) -> None:
    """Write the provenance of an export into its folder.

    request: format, layer and options; samples: how many were exported, and left out for each reason. The snapshot's
    counts are of rows by status; its profiles have the content of each profile: models, revisions, prompts, thresholds.
    """
    manifest = snapshot.manifest
    about = {"name": snapshot.name, **manifest.model_dump(mode="json", include={"id", "created_at", "sources"})}
    about |= manifest.model_dump(mode="json", include={"selection", "counts"})
    content = {
        "strata": strata.__version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": request,
        "samples": samples,
        "snapshot": about,
        "profiles": [each.model_dump(mode="json") for each in snapshot.provenance],
    }
    (folder / PROVENANCE).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
