"""A snapshot's rows as samples: the text of one layer of each, with its image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from strata.core import LAYERS, REVIEWED, LayerError, LayerSpec, layer_named
from strata.data.boxes import BOX_FORMS, MAX_PIXELS, BoxForm, BoxName, Frame, boxes_of, text_of
from strata.data.prefetch import prefetch_map
from strata.data.sources.samples import ImageFiles, TableSource
from strata.data.sources.tables import SampleRow, default_cache, kept_table
from strata.snapshots import LostRows, Snapshot, by_part
from strata.store import READERS, FeatureReader, Part, Store


class PartRows(NamedTuple):
    """The numbers of one part's rows that are in a snapshot, ascending."""

    part: str
    rows: list[int]


def part_rows(snapshot: Snapshot) -> Iterator[PartRows]:
    """Yield a snapshot's rows part by part, in the order in which the snapshot lists the parts. Raises OSError."""
    for number, held in by_part(snapshot.rows()):
        yield PartRows(snapshot.parts[number], held.tolist())


def snapshot_source(
    store: Store,
    snapshot: Snapshot,
    layer: str,
    cache: Path | None = None,
    boxes: BoxName | None = None,
    max_pixels: int = MAX_PIXELS,
) -> TableSource:
    """The samples of a snapshot's rows that have text in a layer, part by part.

    boxes: the form in which the answers tell where things are, for a layer with boxes; None: they do not. max_pixels:
    of the largest image that the model's processor makes, on which Qwen2.5-VL's boxes depend.

    The parts are read once: a table of the needed columns is kept in `cache`, under the snapshot's id. Raises
    LayerError, also for boxes of a layer without boxes, and OSError if the store or the cache cannot be accessed.
    """
    # the snapshot's id, the layer and the form of boxes name the cached table
    chosen = layer_named(layer)
    if boxes is not None and not chosen.boxed:
        with_boxes = ", ".join(name for name, each in LAYERS.items() if each.boxed)
        raise LayerError(f"the layer {layer} has no boxes; those that have are {with_boxes}")
    name = f"snapshot/{snapshot.id}/{chosen.name}" + (f"/{boxes}/{max_pixels}" if boxes else "")
    form = BOX_FORMS[boxes] if boxes else None
    table = kept_table(cache or default_cache(), name, lambda: _sample_rows(store, snapshot, chosen, form, max_pixels))
    return TableSource(name, table, ImageFiles(store), markup=form.markup if form else ())


def _sample_rows(
    store: Store, snapshot: Snapshot, layer: LayerSpec, form: BoxForm | None, max_pixels: int
) -> Iterator[SampleRow]:
    for identity, row in snapshot_rows(store, snapshot, ["key", "image", "width", "height", layer.column]):
        text = text_of(layer, row)
        if text is not None and form is not None:
            frame = Frame(row["width"], row["height"], layer.quoted, max_pixels)
            text = form.write(boxes_of(layer, layer.value_of(row)), frame)
        if text is not None:
            yield sample_row(row, identity, text, layer.turns_of(row))


def snapshot_rows(
    store: Store, snapshot: Snapshot, columns: Sequence[str], faces: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a snapshot in order, with some columns, and their shard's identity.

    faces: whether with `face_boxes`, which the stage `faces` has computed; None for an image that it could not see.
    Raises LostRows if a part is not there, MissingFeatures for faces that were not looked for, and OSError.
    """
    reader = FeatureReader(store, snapshot.manifest.selection.ways) if faces else None

    texts = _reviewed(snapshot) if REVIEWED.name in columns else None
    names = [name for name in columns if name != REVIEWED.name]

    # only the columns and rows that are needed, from parts read in threads
    def read(held: PartRows) -> tuple[str, pa.Table]:
        try:
            table = store.read_columns(held.part, names).take(pa.array(held.rows))
        except FileNotFoundError:
            raise LostRows(snapshot.name, [held.part]) from None
        if reader is not None:
            boxes = reader.read(Part.parse(held.part), "faces", ["face_boxes.list.element"]).take(pa.array(held.rows))
            table = table.append_column("face_boxes", boxes.column("face_boxes"))
        if texts is not None:
            left = [texts.get((held.part, row)) for row in held.rows]
            table = table.append_column(REVIEWED.name, pa.array(left, pa.string()))
        return held.part, table

    for part, table in prefetch_map(read, part_rows(snapshot), READERS):
        identity = Part.parse(part).identity
        for row in table.to_pylist():
            yield identity, row


def _reviewed(snapshot: Snapshot) -> dict[tuple[str, int], str]:
    """The texts that people left of a snapshot's rows, by part and row."""
    entries = snapshot.reviewed().to_pylist()
    return {(snapshot.parts[entry["part"]], entry["row"]): entry["text"] for entry in entries}


def sample_row(row: dict[str, Any], identity: str, text: str, turns: Sequence[str] = ()) -> SampleRow:
    """Convert a record's row to a sample: its image, and a text as the answer, or questions and answers in turn."""
    image = row["image"]
    known = identity if image["offset"] else ""  # for a whole file only the size is checked
    return SampleRow(row["key"], image["uri"], image["offset"], image["size"], known, list(turns) or [text])
