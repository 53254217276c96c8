"""Parts as files: every damage is noticed, and of a chunk that was retried every reader sees each row once."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import duckdb
import pandas
import polars
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st

from strata.core.chunks import Chunk
from strata.core.records import SCHEMA_VERSION, Record, Status, records_to_table
from strata.core.usage import Bill, Work
from strata.store import Compaction, part_format
from strata.store.index_rows import IndexRow, index_table
from strata.store.part_format import BrokenPart, Footer, Source, decode_footer, encode
from strata.store.part_paths import Attempts, Part
from strata.store.store import Store
from tests.described import FINGERPRINT, described

FLIPS = 400
KEPT = Path(__file__).parents[1] / "data_files" / "store-schema-2" / "store"
COLUMNS = ["key", "status", "objects.list.element.kept", "description.text"]


def chunk_of(number: int = 0, attempt: int = 0, images: int = 4, group: str = "llm") -> Chunk:
    return Chunk(group, "fake", FINGERPRINT, "a.tar", "a" * 16, number, images, attempt)


def rows(failed: int = 0, images: int = 4, number: int = 0) -> list[Record]:
    """Described images, the last of them failed."""
    records = [described(f"{number}-{row}", ["dog", "cat"]) for row in range(images)]
    # without the regions, whose scores are no float32
    records = [record.model_copy(update={"seconds": {"ocr": 0.5}, "regions": []}) for record in records]
    return records[: images - failed] + [
        each.failed("read", "OSError", "away", True) for each in records[images - failed :]
    ]


def test_a_part_tells_what_it_took_wherever_it_lies(store: Store) -> None:
    work = Work(images=3, computing=1.5, decoding=0.25, writing=0.1, first=True, loading=2.0, device="NVIDIA H200")
    chunks = [chunk_of(number) for number in range(2)]
    for chunk in chunks:
        store.write_records(chunk, rows(1, number=chunk.number), Bill(job="j", entry="e"), work)
    assert all(store.read_footer(chunk).work == work for chunk in chunks)
    # one of a version without it, and after bundling
    plain = chunk_of(2)
    store.write_records(plain, rows(number=2))
    compaction = Compaction(store)
    assert compaction.run(list(compaction.plans()), False, lambda _: None)
    assert [store.read_footer(chunk).work for chunk in (*chunks, plain)] == [work, work, None]
    # how many bytes a part has is known before it is written
    table = records_to_table(rows())
    store.write_rows(chunk_of(3), table)
    assert abs(Path(store.part_path(chunk_of(3))).stat().st_size - store.size_of(chunk_of(3), table)) == 0


# damage


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_of_a_part_is_noticed(store: Store) -> None:
    chunk = chunk_of()
    store.write_records(chunk, rows(1), Bill(job="j", entry="e"))
    path = Path(store.part_path(chunk))
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    chosen = random.Random(16).sample(range(8 * len(whole)), FLIPS)
    for bit in chosen:
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(BrokenPart, match=r"^parts/llm/f+/a+/00000.parquet is broken: "):
            store.read_records(chunk)
        # the footer alone tells of its own damage
        if bit // 8 >= footer:
            with pytest.raises(BrokenPart):
                store.read_footer(chunk)
    assert {bit // 8 >= footer for bit in chosen} == {True, False}
    path.write_bytes(whole)
    assert store.read_records(chunk) == rows(1)


@given(
    st.dictionaries(st.sampled_from(["succeeded", "failed", "filtered"]), st.integers(1, 4), min_size=1),
    st.none() | st.builds(Bill, job=st.text(max_size=300), entry=st.text(max_size=20)),
    st.integers(0, 10**9),
)
def test_a_footer_says_the_same_as_by_parquet(counts: dict[str, int], bill: Bill | None, transient: int) -> None:
    number = sum(counts.values())
    source = Source.of(chunk_of(images=number))
    written = Footer(Counter(counts), bill, transient)
    data = encode(records_to_table(rows(images=number)), source.part, written, "snappy")
    assert decode_footer(data, source) == written
    with mock.patch.object(part_format, "_KEPT", ()):  # by Parquet's own reader
        assert decode_footer(data, source) == written


def test_a_flipped_bit_of_a_column_is_noticed_by_those_who_read_it(store: Store) -> None:
    """Readers of some columns do not read the others: damage of theirs is noticed, that of others is not theirs."""
    chunk = chunk_of()
    store.write_records(chunk, rows())
    path = Path(store.part_path(chunk))
    whole = path.read_bytes()
    expected = store.read_columns(Part.of_chunk(chunk).path, COLUMNS)
    noticed = 0
    for bit in random.Random(61).sample(range(8 * len(whole)), FLIPS // 2):
        path.write_bytes(flipped(whole, bit))
        try:
            assert store.read_columns(Part.of_chunk(chunk).path, COLUMNS) == expected
        except BrokenPart:
            noticed += 1
    assert noticed > FLIPS // 8  # the footer is half of such a small part


@pytest.mark.parametrize("group", ["index", "llm"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"no part" * 999,
        lambda data: b"\0" * len(data),
    ],
    ids=["empty", "one byte", "half", "without the last byte", "with one more", "another file", "zeros"],
)
def test_a_part_that_is_no_part_is_broken_for_all_readers(
    store: Store, damage: Callable[[bytes], bytes], group: str
) -> None:
    chunk = chunk_of(group=group, images=0 if group == "index" else 4)
    if group == "index":
        store.write_index(chunk, index_table([IndexRow("a", "a.tar", 512, 9)]))
    else:
        store.write_records(chunk, rows())
    path = Path(store.part_path(chunk))
    path.write_bytes(damage(path.read_bytes()))
    readers: list[Callable[[], object]] = [lambda: store.read_table(chunk), lambda: store.read_footer(chunk)]
    readers += [lambda: store.read_columns(Part.of_chunk(chunk).path, ["key"])]
    readers += [lambda: store.read_index(chunk)] if group == "index" else [lambda: store.read_record(chunk, 0)]
    for reader in readers:
        with pytest.raises(BrokenPart):
            reader()
    assert store.read_all_footers([chunk])[0].args[0].startswith("parts/")  # type: ignore[union-attr]


def test_another_part_at_the_path_of_a_part_is_broken(store: Store) -> None:
    chunk = chunk_of()
    store.write_records(chunk, rows())
    others = [chunk_of(1), chunk_of(attempt=1), replace(chunk, identity="b" * 16), replace(chunk, group="vision")]
    others += [replace(chunk, fingerprint="e" * 16)]
    whole = Path(store.part_path(chunk)).read_bytes()
    for other in others:
        store.put(store.part_path(other), whole)
        for reader in (store.read_table, store.read_footer):
            with pytest.raises(BrokenPart, match="it is the part"):
                reader(other)


def test_a_part_with_another_number_of_rows_is_broken(store: Store) -> None:
    store.write_records(chunk_of(), rows(images=3))
    for reader in (store.read_table, store.read_footer, store.read_records):
        with pytest.raises(BrokenPart, match="it has 3 rows instead of 4"):
            reader(chunk_of())
    store.write_records(chunk_of(), [])
    with pytest.raises(BrokenPart, match="it has 0 rows"):
        store.read_columns(Part.of_chunk(chunk_of()).path, ["key"])


def test_damage_of_parts_of_earlier_versions_is_noticed_as_far_as_arrow_does(tmp_path: Path) -> None:
    """They have no checksums: what is not noticed gives records all the same, and nothing but BrokenPart is raised."""
    shutil.copytree(KEPT, tmp_path / "store")
    store, ends = Store(str(tmp_path / "store")), Counter[str]()
    path = next((tmp_path / "store" / "parts" / "vision").rglob("00001.parquet"))
    part = Part.parse(store.relative(str(path)))
    chunk = Chunk(part.group, "kept", part.fingerprint, "", part.identity, part.number, 2)
    whole = path.read_bytes()
    for bit in random.Random(2).sample(range(8 * len(whole)), FLIPS // 4):
        path.write_bytes(flipped(whole, bit))
        try:
            ends[f"{len(store.read_records(chunk))} rows"] += 1
        except BrokenPart:
            ends["broken"] += 1
    assert set(ends) <= {"2 rows", "broken"} and ends["broken"]


def test_a_broken_part_is_set_aside_and_an_intact_one_is_not(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    chunk = chunk_of(attempt=1)
    store.write_records(chunk_of(), rows(1))
    first = Path(store.part_path(chunk_of())).read_bytes()
    store.write_records(chunk, rows())
    path = Part.of_chunk(chunk).path
    error = BrokenPart(path, "told by a reader that was wrong", 4)
    assert not store.set_aside(error) and store.has_part(chunk)
    data = Path(store.path(path)).read_bytes()
    Path(store.path(path)).write_bytes(data[:-9])
    assert store.set_aside(error) and not store.set_aside(error)
    assert len(caplog.records) == 1 and f"kept as broken/{path}" in caplog.text
    assert Path(store.path("broken", path)).read_bytes() == data[:-9]
    # no older attempt counts in its place, until it is computed again
    Path(store.part_path(chunk_of())).write_bytes(first)
    assert store.newest(chunk_of()) is None and store.attempts(chunk).needed(chunk_of()) == chunk
    store.write_records(chunk, rows())
    assert store.newest(chunk_of()) == chunk and not store.attempts(chunk).broken
    # a part of the right form with another number of rows than images
    assert store.set_aside(BrokenPart(path, "4 rows instead of 5", 5)) and not store.has_part(chunk)


# attempts


def test_older_attempts_are_moved_away_and_stay_readable(store: Store) -> None:
    for attempt in range(3):
        store.write_records(chunk_of(attempt=attempt), rows(2 - attempt))
    assert list(store.find("parts")) == [chunk_path(2)]
    assert len(store.find("superseded")) == 2
    for attempt in range(3):
        chunk = chunk_of(attempt=attempt)
        assert store.read_footer(chunk).counts["failed"] == 2 - attempt == store.read_footer(chunk).transient
        assert store.read_columns(Part.of_chunk(chunk).path, ["status"]).num_rows == 4
        assert store.newest(chunk) == chunk_of(attempt=2)
    assert store.newest(chunk_of(attempt=3)) is None
    assert store.attempts_before(chunk_of(attempt=2)) == [chunk_of(attempt=1), chunk_of()]


def chunk_path(attempt: int) -> str:
    return Part.of_chunk(chunk_of(attempt=attempt)).path


def test_a_part_that_is_written_late_changes_neither_the_newest_nor_a_superseded_one(store: Store) -> None:
    """A worker was paused with the first attempt in flight, and goes on after the second was written."""
    store.write_records(chunk_of(), rows(1))
    store.write_records(chunk_of(attempt=1), rows())
    store.write_records(chunk_of(), rows(3))
    assert list(store.find("parts")) == [chunk_path(1)]
    assert store.read_footer(chunk_of()).counts["failed"] == 1


@pytest.mark.parametrize("names", [["00000", "00000.1"], ["00000.1", "_00000.1"], ["00000", "_00000.1"], ["_00000.1"]])
def test_what_a_writer_that_died_or_an_earlier_version_left_is_tidied(store: Store, names: list[str]) -> None:
    store.write_records(chunk_of(), rows(1))
    first = Path(store.part_path(chunk_of())).read_bytes()
    store.write_records(chunk_of(attempt=1), rows())
    second = Path(store.part_path(chunk_of(attempt=1))).read_bytes()
    shutil.rmtree(store.path("superseded"))
    folder = Path(store.part_path(chunk_of())).parent
    (folder / "00000.1.parquet").unlink()
    for name in names:
        (folder / f"{name}.parquet").write_bytes(second if name.endswith(".1") else first)
    # it is readable as it lies, and after it was tidied
    for _ in range(2):
        attempts = store.attempts(chunk_of())
        assert attempts.newest(chunk_of()) == chunk_of(attempt=1)
        assert store.read_records(chunk_of(attempt=1)) == rows()
        if "00000" in names:
            assert store.read_records(chunk_of()) == rows(1)
        store.tidy(Part.of_chunk(chunk_of()), attempts)
    assert list(store.find("parts")) == [chunk_path(1)]
    assert len(store.find("superseded")) == ("00000" in names)


def test_names_that_are_none_of_parts_are_ignored() -> None:
    attempts = Attempts.of_names(["00003.parquet", "notes.txt", "00003.parquet.tmp", ".00004.parquet", "x.parquet"])
    assert attempts.found == {3: {0: ["00003.parquet"]}} and not attempts.broken


# other readers


def by_pyarrow(folder: str) -> list[str]:
    return [str(key) for key in pyarrow.dataset.dataset(folder).to_table(columns=["key"]).column("key").to_pylist()]


def by_pandas(folder: str) -> list[str]:
    return list(pandas.read_parquet(folder)["key"])


def by_duckdb(folder: str) -> list[str]:
    found = duckdb.connect().execute(f"select key from '{folder}/**/*.parquet'").fetchall()
    return [key for (key,) in found]


def by_polars(folder: str) -> list[str]:
    return list(polars.read_parquet(f"{folder}/**/*.parquet")["key"])


def by_polars_folder(folder: str) -> list[str]:
    return list(polars.scan_parquet(folder).collect()["key"])


def by_datasets(folder: str) -> list[str]:
    cache = f"{folder}-cache"
    return list(load_dataset("parquet", data_files=f"{folder}/**/*.parquet", split="train", cache_dir=cache)["key"])


PLAIN_READERS = (by_pyarrow, by_pandas, by_duckdb, by_polars, by_polars_folder, by_datasets)


@pytest.mark.parametrize("reader", PLAIN_READERS)
def test_plain_readers_of_a_fingerprint_see_every_row_once_after_a_retry(
    store: Store, reader: Callable[[str], list[str]]
) -> None:
    for number in range(3):
        store.write_records(chunk_of(number), rows(number == 1, number=number))
    store.write_records(chunk_of(1, attempt=1), rows(number=1))
    store.write_records(chunk_of(1, attempt=2), rows(number=1))
    store.write_records(replace(chunk_of(), identity="b" * 16), rows(4, number=9))
    found = reader(store.path("parts", "llm", FINGERPRINT))
    assert Counter(found) == Counter(f"{number}-{row}" for number in (0, 1, 2, 9) for row in range(4))


def test_duckdb_reads_what_lies_in_lists_of_structures(store: Store) -> None:
    store.write_records(chunk_of(), rows())
    query = f"select stage_seconds[1].seconds from '{store.path('parts', 'llm', FINGERPRINT)}/**/*.parquet'"
    assert set(duckdb.connect().execute(query).fetchall()) == {(0.5,)}


def test_old_and_new_parts_in_one_folder_have_no_column_of_two_types(tmp_path: Path) -> None:
    shutil.copytree(KEPT, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    old = next((tmp_path / "store" / "parts" / "llm").rglob("00000.parquet"))
    part = Part.parse(store.relative(str(old)))
    new = Chunk("llm", "kept", part.fingerprint, "", part.identity, 7, 4)
    store.write_records(new, rows())
    schemas = [pq.read_schema(path) for path in (old, Path(store.part_path(new)))]
    common = set(schemas[0].names) & set(schemas[1].names)
    assert common >= {"key", "status", "failure", "regions", "description"}
    assert {name for name in common if schemas[0].field(name).type != schemas[1].field(name).type} == set()
    keys = by_pyarrow(str(old.parents[1]))
    assert len(keys) == len(set(keys))
    assert {record.schema_version for record in store.read_records(new)} == {SCHEMA_VERSION}
    assert {record.status for record in store.read_records(new)} == {Status.SUCCEEDED}
