"""What the runs of snapshots and exports have read and written, as `strata.lineage` tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from strata.core import RECORD_SCHEMA
from strata.data import Request
from strata.data.exports import Form
from strata.data.exports.tables import MESSAGES_SCHEMA, TABLE_SCHEMA
from strata.lineage import Column, Data, Run, columns_of, data_at, rows_data, snapshot_data
from strata.publishing.papers.samples import FIELDS
from strata.snapshots import Snapshot
from strata.store import Part, Store

_LAYER = "description"  # what the texts of the layer `reviewed` were edited from
_TABLES: Mapping[Form, pa.Schema] = MappingProxyType(
    {
        "messages": MESSAGES_SCHEMA,
        "webdataset": TABLE_SCHEMA,
        "mds": TABLE_SCHEMA,
        "parquet": TABLE_SCHEMA,
        "hf": TABLE_SCHEMA,
    }
)
# from which column of a snapshot a column is made, if not from the text
_ORIGINS = {"id": "key", "key": "key", "image": "image", "images": "image", "width": "width", "height": "height"}


def note_snapshots(run: Run, store: Store, made: Sequence[Snapshot]) -> None:
    """Note snapshots that were made of rows, and the rows of each profile that they were chosen from."""
    for snapshot in made:
        counts = snapshot.manifest.counts
        fingerprints = sorted({Part.parse(part).fingerprint for part in snapshot.parts})
        # of several profiles it is not known how many rows are of which
        rows = counts.succeeded + counts.filtered + counts.failed if len(fingerprints) == 1 else None
        read = [rows_data(store.uri, one, rows) for one in fingerprints]
        run.inputs += [one for one in read if one not in run.inputs]
        run.outputs.append(_snapshot(store, snapshot, read))
        run.tags |= {f"strata_snapshot.{snapshot.name}": snapshot.id}


def note_split(run: Run, store: Store, whole: Snapshot, made: Sequence[Snapshot]) -> None:
    """Note the parts of a snapshot that was split."""
    read = _snapshot(store, whole, ())
    run.inputs.append(read)
    run.outputs += [_snapshot(store, one, (read,)) for one in made]


def note_export(run: Run, store: Store, snapshot: Snapshot, request: Request, out: Path, count: int) -> None:
    """Note an export of a snapshot. count: its images."""
    read = _snapshot(store, snapshot, ())
    run.inputs.append(read)
    columns = _columns(request.form)
    text = request.layer.column if request.layer.column in RECORD_SCHEMA.names else _LAYER
    made_of = {
        column.name: ((read, _ORIGINS.get(column.name, text), _ORIGINS.get(column.name) == "key"),)
        for column in columns
    }
    about = f"Images with texts of the layer {request.layer.name}, in the format {request.form}."
    written = replace(data_at(str(out)), columns=columns, rows=count, version=snapshot.id, about=about, made_of=made_of)
    run.outputs.append(written)


def _snapshot(store: Store, snapshot: Snapshot, read: Sequence[Data]) -> Data:
    return snapshot_data(store.uri, snapshot.name, snapshot.id, snapshot.manifest.counts.selected, read)


def _columns(form: Form) -> tuple[Column, ...]:
    if form in _TABLES:
        return columns_of(_TABLES[form])
    return tuple(Column(name, "string" if name in ("id", "image") else "list") for name in FIELDS[form])
