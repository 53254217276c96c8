"""The table of layers, and what is derived from it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.layers import LAYERS, THINGS, Caption, LayerSpec, ObjectMask, TextLine
from strata.core.records import (
    RECORD_SCHEMA,
    ImageReference,
    Mask,
    Record,
    arrow_type,
    records_to_table,
    table_to_records,
)
from strata.store.store import Store
from tests.described import described, write_part

KEPT_PARTS = sorted((Path(__file__).parents[1] / "data_files").glob("*/store/parts/llm/*/*/*.parquet"))


def test_a_record_has_the_layers_in_order() -> None:
    fields = list(Record.model_fields)
    assert fields[fields.index("alt_text") : fields.index("description") + 1] == list(LAYERS)
    assert [layer.name for layer in THINGS] == ["regions", "objects"]
    assert {layer.form for layer in LAYERS.values()} == {"text", "entry", "entries", "sentences"}


def test_features_of_layers_have_distinct_names() -> None:
    names = [layer.feature for layer in LAYERS.values() if layer.many]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", KEPT_PARTS, ids=lambda path: path.parents[1].name + path.name)
def test_columns_of_kept_parts_have_the_types_of_today(path: Path) -> None:
    kept = pq.read_schema(path)
    common = [name for name in kept.names if name in RECORD_SCHEMA.names]
    assert [kept.field(name).type for name in common] == [RECORD_SCHEMA.field(name).type for name in common]
    assert set(kept.names) - set(common) == {"seconds", "usage"}  # maps, which no part has since version 3


def test_no_arrow_type_is_guessed() -> None:
    with pytest.raises(TypeError, match="no Arrow type"):
        arrow_type(dict[str, int])


@given(columns=st.lists(st.sampled_from(list(LAYERS)), unique=True))
def test_a_part_without_the_column_of_a_layer_is_read_with_null_there(columns: list[str]) -> None:
    record = described("a", ["dog"], text=True).model_copy(update={"alt_text": "a dog"})
    table = records_to_table([record])
    (whole,) = table_to_records(table)
    assert table_to_records(table.drop_columns(columns)) == [whole.model_copy(update=dict.fromkeys(columns))]


@pytest.mark.parametrize("layer", LAYERS)
def test_columns_of_parts_of_several_versions_are_read_together(store: Store, layer: str) -> None:
    record = described("a", ["dog"], text=True)
    new = write_part(store, [record])
    old = write_part(store, [record], number=1)
    path = Path(store.path(old.path))
    footer = {"strata.schema_version": "2", "strata.counts": '{"succeeded": 1}'}  # of a version without checksums
    pq.write_table(pq.read_table(path).drop_columns([layer]).replace_schema_metadata(footer), path)
    spec = LAYERS[layer]
    wanted = [f"{layer}.list.element.kept" if spec.many else layer, "key"]
    tables = [store.read_columns(part.path, wanted) for part in (new, old)]
    both = pa.concat_tables(tables)
    assert both.column_names == tables[0].column_names and both.column(layer).to_pylist()[1] is None


def test_words() -> None:
    line = TextLine(box=(0, 0, 1, 1), text="EXIT")
    assert LAYERS["text"].display_text(line) == "“EXIT”" and LAYERS["text"].words_of({"text": "EXIT"}) == "EXIT"
    thing = ObjectMask(box=(0, 0, 1, 1), mask=Mask(size=(1, 1), counts="0"), area=1)
    assert LAYERS["objects"].words_of(thing) == ""
    assert LAYERS["caption"].entries(None) == [] and LAYERS["alt_text"].entries("a") == []
    assert LAYERS["caption"].entries(caption := Caption(text="A.")) == [caption]
    assert LayerSpec(title="t", entry="e", instruction="i").form == "text"


def test_a_rejected_record_says_by_which_rule() -> None:
    record = Record(key="a", image=ImageReference(uri="u", size=1)).filtered("smallest_side", "a\nb")
    assert (record.status, record.failure and record.failure.stage) == ("filtered", "rules")
    assert record.failure and (record.failure.error_type, record.failure.detail) == ("smallest_side", "a b")
