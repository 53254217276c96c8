"""Records as rows of a table: what is written is read, also from the tables of earlier schema versions."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from strata.core.claims import CheckedSentence, Claim, Turn, Variant, Verification
from strata.core.layers import Sentence
from strata.core.records import (
    RECORD_SCHEMA,
    SCHEMA_VERSION,
    FailureNote,
    ImageReference,
    Record,
    records_to_table,
    table_to_records,
)
from strata.core.usage import Usage

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
COUNTS = st.integers(0, 2**40)
USAGES = st.builds(Usage, prompt_tokens=COUNTS, completion_tokens=COUNTS, requests=COUNTS)
IMAGE = ImageReference(uri="a.tar", offset=512, size=9)


@st.composite
def rows(draw: st.DrawFn) -> Record:
    """A record with times, usage and perhaps a failure."""
    seconds = draw(st.dictionaries(NAMES, st.floats(0, 1e6, width=32), max_size=3))
    usage = draw(st.dictionaries(NAMES, USAGES, max_size=3))
    record = Record(key=draw(NAMES), image=IMAGE, seconds=seconds, usage=usage)
    if draw(st.booleans()):
        return record.failed(draw(NAMES), draw(NAMES), draw(NAMES), transient=draw(st.booleans()))
    return record


@given(st.lists(rows(), max_size=4))
def test_records_are_read_as_they_were_written(records: list[Record]) -> None:
    assert table_to_records(records_to_table(records)) == records


def test_what_the_verifier_found_and_the_variants_are_read_as_they_were_written() -> None:
    claim = Claim(kind="thing", text="a cat", supported=False, reason="unsupported_object", score=0.25)
    cut = CheckedSentence(text="A cat is there.", kept=None, reason="unsupported_object", claims=[claim])
    found = Verification(text="A cat is there.", sentences=[cut], origin="layers")
    turn = Turn(question="What is it?", answer="A hat.", evidence=["regions/0"])
    variants = [
        Variant(name="short", text="A hat.", sentences=[Sentence(text="A hat.", evidence=["regions/0"])]),
        Variant(name="questions", language="de", text="What is it?\nA hat.", turns=[turn], verification=found),
    ]
    record = Record(key="1", image=IMAGE, verification=found, variants=variants)
    assert table_to_records(records_to_table([record])) == [record]
    # parts of earlier versions have no such columns
    old = records_to_table([record]).drop_columns(["verification", "variants"])
    assert table_to_records(old) == [record.model_copy(update={"verification": None, "variants": None})]


def test_no_column_of_a_part_is_a_map() -> None:
    """`datasets` cannot read a Parquet file with a map."""

    def types(kind: pa.DataType) -> list[pa.DataType]:
        return [kind, *(each for index in range(kind.num_fields) for each in types(kind.field(index).type))]

    assert not [field.name for field in RECORD_SCHEMA if any(pa.types.is_map(kind) for kind in types(field.type))]


def earlier(version: int, **columns: Any) -> pa.Table:
    """A table of version 1 or 2 with one failed row and one good one: maps, and failures without `transient`."""
    table = records_to_table(
        [Record(key="1", image=IMAGE).failed("read", "OSError", "away"), Record(key="2", image=IMAGE)]
    )
    table = table.drop_columns(["failure_transient", "stage_seconds", "stage_usage"])
    table = table.set_column(0, "schema_version", pa.array([version, version], pa.int32()))
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def test_rows_of_earlier_versions_are_read() -> None:
    seconds = pa.array([[("ocr", 0.5)], []], pa.map_(pa.string(), pa.float32()))
    kind = pa.struct([(name, pa.int64()) for name in Usage.model_fields])
    usage = pa.array(
        [[("ocr", {"prompt_tokens": 3, "completion_tokens": 0, "requests": 1})], None], pa.map_(pa.string(), kind)
    )
    first = table_to_records(earlier(1, seconds=seconds))
    second = table_to_records(earlier(2, seconds=seconds, usage=usage))
    for failed, good in (first, second):
        assert failed.seconds == {"ocr": 0.5} and good.seconds == {}
        assert failed.failure == FailureNote(stage="read", error_type="OSError", detail="away", transient=False)
    assert first[0].usage == {} and second[0].usage == {"ocr": Usage(prompt_tokens=3, requests=1)}
    # a retry writes them again, as rows of this version
    again = records_to_table(second)
    assert again.schema == RECORD_SCHEMA and again.column("schema_version").to_pylist() == [SCHEMA_VERSION] * 2


def test_warnings_are_kept_and_parts_without_their_column_are_read() -> None:
    plain, warned = Record(key="1", image=IMAGE), Record(key="2", image=IMAGE).warned("incomplete_image", "cut off")
    assert (
        warned.warned("incomplete_image", "again") == warned and warned.warned("other", "x").warnings[1].type == "other"
    )
    table = records_to_table([plain, warned])
    assert table.column("warnings").to_pylist() == [None, [{"type": "incomplete_image", "detail": "cut off"}]]
    assert table_to_records(table) == [plain, warned]
    assert Record.model_validate_json(warned.model_dump_json()) == warned
    assert [record.warnings for record in table_to_records(table.drop_columns(["warnings"]))] == [(), ()]
