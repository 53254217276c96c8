"""The texts of rows as people left them in review. A snapshot keeps them: later judgments must not change it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from strata.judgments import Judgments, Subject, reviewed_texts
from strata.snapshots.places import by_part
from strata.store import Part, Store

SCHEMA = pa.schema([("part", pa.int32()), ("row", pa.int32()), ("text", pa.string())])


def texts_of(store: Store, paths: Sequence[str], rows: pa.Table, tell: Callable[[str], object]) -> pa.Table:
    """The texts of the judged ones of some rows (columns part and row, sorted), in their order.

    That is the text that was edited, or the description where it was accepted. A rejected row has none. tell: gets a
    line for each file of judgments that is lost.
    """
    parts = [Part.parse(path) for path in paths]
    found = Judgments(store).of_fingerprints({part.fingerprint for part in parts})
    for fault in found.faults:
        tell(fault)
    judged = {(one.fingerprint, one.identity) for one in found.judgments}
    # of the parts with judged rows, the keys and descriptions of those that are wanted
    subjects: dict[Subject, tuple[int, int]] = {}
    described: dict[Subject, str | None] = {}
    for index, chosen in by_part(rows):
        part = parts[index]
        if (part.fingerprint, part.identity) in judged:
            table = store.read_columns(paths[index], ["key", "description.text"]).take(pa.array(chosen))
            texts = pc.struct_field(table.column("description"), "text").to_pylist()
            for row, key, text in zip(chosen.tolist(), table.column("key").to_pylist(), texts, strict=True):
                subject = Subject(part.fingerprint, part.identity, key)
                subjects[subject], described[subject] = (index, row), text
    left = reviewed_texts(found.judgments, described)
    entries = sorted((*subjects[subject], text) for subject, text in left.items() if subject in subjects)
    columns = [list(column) for column in zip(*entries, strict=True)] if entries else [[], [], []]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def digest_of(texts: pa.Table) -> str | None:
    """A hash of some texts and their rows; None for none."""
    if not texts.num_rows:
        return None
    lines = zip(*(texts.column(name).to_pylist() for name in SCHEMA.names), strict=True)
    return hashlib.sha256("\n".join(map(repr, lines)).encode()).hexdigest()
