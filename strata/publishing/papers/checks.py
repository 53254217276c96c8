"""What was dropped, cut and rejected on the way to a snapshot's texts, counted from its parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from strata.core import LAYERS, Status
from strata.data.prefetch import prefetch_map
from strata.data.sources.snapshots import part_rows
from strata.snapshots import LostRows, Snapshot
from strata.store import READERS, Store

_LAYERS = [layer.name for layer in LAYERS.values() if layer.many and layer.scored]
_REASON = "verification.sentences.list.element.reason"
_COLUMNS = ["status", "failure.stage", "failure.error_type", "verification.origin", _REASON]
_COLUMNS += [f"{name}.list.element.{inside}" for name in _LAYERS for inside in ("kept", "reason")]


@dataclass
class Checks:
    """Counts of a snapshot.

    Of all rows of its parts: filtered, by the rule (the guards that reject a text are rules too); failed, by stage and
    error. Of the selected rows: kept and dropped entries of layers, by layer, and by layer and reason; verified: rows
    whose text the verifier has read; sentences of them; cut: sentences of which something was cut, by reason; origins:
    verified rows by the text that remained (see `strata.core.Verification`). parts_missing: parts without selected rows
    that are not in the store any more: their rows are not counted.
    """

    filtered: Counter[str] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    verified: int = 0
    sentences: int = 0
    cut: Counter[str] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)
    parts_missing: int = 0

    def add_ends(self, table: pa.Table) -> None:
        """Count all rows of a part that did not succeed."""
        ended = table.filter(pc.not_equal(table.column("status"), Status.SUCCEEDED.value))
        for status, failure in zip(*(ended.column(name).to_pylist() for name in ("status", "failure")), strict=True):
            stage, kind = (failure or {}).get("stage") or "", (failure or {}).get("error_type") or ""
            if status == Status.FILTERED.value:
                self.filtered[kind or "unknown"] += 1
            else:
                self.failed[stage, kind] += 1

    def add_selected(self, table: pa.Table) -> None:
        """Count the entries and sentences of selected rows."""
        for name in _LAYERS:
            entries = pc.list_flatten(table.column(name).combine_chunks())
            kept = pc.fill_null(pc.struct_field(entries, "kept"), False)
            reasons = pc.fill_null(pc.struct_field(entries, "reason").filter(pc.invert(kept)), "")
            self.kept[name] += pc.sum(kept).as_py() or 0
            self.dropped.update({(name, reason): count for reason, count in _counts(reasons).items()})
        found = table.column("verification").combine_chunks().drop_null()
        self.verified += len(found)
        if found.type.get_field_index("origin") >= 0:  # parts of earlier versions have none
            self.origins.update(_counts(pc.struct_field(found, "origin")))
        sentences = pc.list_flatten(pc.struct_field(found, "sentences"))
        self.sentences += len(sentences)
        self.cut.update(_counts(pc.struct_field(sentences, "reason").drop_null()))


def _counts(values: pa.Array) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}


def checks_of(store: Store, snapshot: Snapshot) -> Checks:
    """Count what a snapshot's parts tell. Raises LostRows, BrokenPart and OSError."""
    held = dict(part_rows(snapshot))
    checks = Checks()

    def read(part: str) -> pa.Table | None:
        try:
            return store.read_columns(part, _COLUMNS)
        except FileNotFoundError:
            if part in held:
                raise LostRows(snapshot.name, [part]) from None
            return None

    for part, table in zip(snapshot.parts, prefetch_map(read, snapshot.parts, READERS), strict=True):
        if table is None:
            checks.parts_missing += 1
            continue
        checks.add_ends(table)
        if part in held:
            checks.add_selected(table.take(pa.array(held[part])))
    return checks
