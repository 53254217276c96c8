"""Parquet files that have the images in themselves: those of Hugging Face's datasets, and of img2dataset."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.data.sources.samples import TableSource
from strata.data.sources.tables import SampleRow, kept_table
from strata.shards.image_reader import ImageReader, ShardChanged, read_images
from strata.shards.parquet import child
from strata.shards.parquet import rows as parquet_process
from strata.shards.roots import SourceError
from strata.shards.sources import index_shard
from strata.store import ParquetCell
from strata.store.store import Store
from tests.fakes import jpeg

PICTURES = [jpeg(10 + number, 10) for number in range(30)]


def hugging_face(path: Path, images: list[Any], **columns: list[Any]) -> str:
    """Write a Parquet file as `Dataset.to_parquet` does: a structure with bytes and path, in small row groups."""
    kind = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    table = pa.table(
        {"image": pa.array(images, kind), "mask": pa.array([{"bytes": b"m"}] * len(images), kind), **columns}
    )
    pq.write_table(table, path, row_group_size=7)
    return str(path)


def test_a_data_set_of_hugging_face(tmp_path: Path) -> None:
    """Rows in several row groups, read in any order, through a link that is named as in the cache of a hub."""
    images = [{"bytes": data, "path": f"dir/{number}.v1.jpg"} for number, data in enumerate(PICTURES)]
    (tmp_path / "blobs").mkdir()
    hugging_face(tmp_path / "blobs" / "c0ffee", images, text=[f"text {n}" for n in range(30)], label=list(range(30)))
    (tmp_path / "train.parquet").symlink_to("blobs/c0ffee")
    uri = str(tmp_path / "train.parquet")
    index = index_shard(uri)
    assert index.failure is None and index.stamp and not index.families
    assert [(row.key, row.alt_text) for row in index.rows] == [(f"{n}.v1", f"text {n}") for n in range(30)]
    assert index.rows[8].uri == f"{uri}#parquet/image.bytes/8"
    order = [29, 3, 3, 8, 0, 15]
    versions = [index.rows[number].stamp for number in order]
    assert read_images([index.rows[n] for n in order], versions=versions) == [PICTURES[n] for n in order]
    # a copy is the same shard
    copy = shutil.copy(uri, tmp_path / "copy.parquet")
    assert index_shard(str(copy)).identity == index.identity
    # and one that was moved with its root is found
    store = Store(str(tmp_path / "store"), moved={"/old": str(tmp_path)})
    row = index.rows[5]._replace(uri="/old/train.parquet#parquet/image.bytes/5")
    assert ImageReader(store).read([row], [row.stamp]) == [PICTURES[5]]


@pytest.mark.parametrize(("column", "compression"), [("jpg", "none"), ("image", "snappy"), ("bytes", "zstd")])
def test_binary_columns(tmp_path: Path, column: str, compression: str) -> None:
    """As img2dataset writes them: the bytes count, although there is an address too."""
    columns = {"url": ["https://host/a.jpg"] * 30, "caption": ["a"] * 30, "key": [f"{n:09d}" for n in range(30)]}
    table = pa.table({**columns, column: pa.array(PICTURES, pa.large_binary())})
    pq.write_table(table, tmp_path / "0.parquet", compression=compression, row_group_size=11)
    index = index_shard(str(tmp_path / "0.parquet"))
    assert [row.key for row in index.rows] == columns["key"] and {row.alt_text for row in index.rows} == {"a"}
    assert read_images(index.rows) == PICTURES


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_column_with_a_dictionary(tmp_path: Path, kind: pa.DataType) -> None:
    """Images that are the values of several rows, as of pandas; a page of a dictionary is too small for most."""
    large = [bytes([number]) * 300_000 for number in range(8)]
    images = [*PICTURES[:2], None, *large, *PICTURES[:2]] * 3
    pq.write_table(
        pa.table({"jpg": pa.array(images, kind).dictionary_encode()}), tmp_path / "0.parquet", row_group_size=20
    )
    index = index_shard(str(tmp_path / "0.parquet"))
    assert index.failure is None and [row.error is None for row in index.rows] == [data is not None for data in images]
    assert read_images([row for row in index.rows if row.error is None]) == [data for data in images if data]


def test_rows_without_bytes(tmp_path: Path) -> None:
    """A row without bytes is looked up by its path; a row without both has a reason."""
    (tmp_path / "b.jpg").write_bytes(b"beside")
    images = [
        {"bytes": b"inside", "path": None},
        {"bytes": None, "path": "b.jpg"},
        None,
        {"bytes": b"", "path": "/x/c.d"},
    ]
    index = index_shard(hugging_face(tmp_path / "0.parquet", images), [str(tmp_path)])
    assert [row.key for row in index.rows] == ["row-1", "b", "row-3", "c"] and index.stamp is None
    assert [row.error for row in index.rows] == [None, None, "row 3: no path of an image", "row 4: an empty image"]
    assert read_images(index.rows[:2]) == [b"inside", b"beside"]


def test_elsewhere_and_with_other_names() -> None:
    memory = fsspec.filesystem("memory")
    kind = pa.struct([pa.field("path", pa.string()), pa.field("bytes", pa.binary())])
    table = pa.table(
        {"photo": pa.array([{"path": None, "bytes": data} for data in PICTURES], kind), "n": list(range(30))}
    )
    with memory.open("/sets/x#1.parquet", "wb") as file:
        pq.write_table(table, file)
    index = index_shard("memory://sets/x#1.parquet")
    assert read_images(index.rows) == PICTURES and index.rows[0].key == "row-1"


def test_a_file_that_was_changed(tmp_path: Path) -> None:
    uri = hugging_face(tmp_path / "0.parquet", [{"bytes": data} for data in PICTURES])
    rows = index_shard(uri).rows
    stamps = [row.stamp for row in rows]
    changed = [b"x" * len(data) if number == 1 else data for number, data in enumerate(PICTURES[:20])]
    hugging_face(tmp_path / "0.parquet", [{"bytes": data} for data in changed])
    answers = read_images(rows, versions=stamps)
    assert [number for number, answer in enumerate(answers) if isinstance(answer, ShardChanged)] == [1, *range(20, 30)]
    Path(uri).write_bytes(b"PAR1")
    assert all(isinstance(answer, SourceError) for answer in read_images(rows))
    Path(uri).unlink()
    assert all(isinstance(answer, FileNotFoundError) for answer in read_images(rows))


def test_the_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many images that are stored once are read a few at a time; an image that is too large is refused."""
    monkeypatch.setattr(parquet_process, "MEMORY", 256 * 2**20)
    pq.write_table(pa.table({"jpg": [bytes(2**20)] * 300}), tmp_path / "0.parquet")
    index = index_shard(str(tmp_path / "0.parquet"))
    assert index.failure is None and index.table.num_rows == 300
    assert read_images([index.rows[299]]) == [bytes(2**20)]
    monkeypatch.setattr(parquet_process, "MEMORY", 32 * 2**20)
    pq.write_table(pa.table({"jpg": [bytes(2**26)]}), tmp_path / "1.parquet")
    assert "needs more than" in str(index_shard(str(tmp_path / "1.parquet")).failure)


def test_training_reads_them(tmp_path: Path) -> None:
    uri = hugging_face(tmp_path / "0.parquet", [{"bytes": data} for data in PICTURES])
    samples = [SampleRow(row.key, row.uri, row.offset, row.size, "", ["text"]) for row in index_shard(uri).rows]
    source = TableSource("x", kept_table(tmp_path / "cache", "x", lambda: samples))
    assert [sample.images[0] for sample in source.read([7, 3])] == [
        PICTURES[7],
        PICTURES[3],
    ] and source.missing().lines == []
    Path(uri).unlink()
    assert len(source.missing().lines) == 30


@given(
    st.text(max_size=30), st.text(st.characters(exclude_characters="/"), min_size=1, max_size=9), st.integers(0, 2**40)
)
def test_a_cell_is_found_in_its_uri(file: str, column: str, row: int) -> None:
    cell = ParquetCell(file, column, row)
    found = ParquetCell.find(str(cell))
    assert "#parquet/" in file + column or found == cell
    assert ParquetCell.find(file) is None or "#parquet/" in file


@given(st.lists(st.one_of(st.none(), st.binary(max_size=20)), min_size=1, max_size=12), st.integers(1, 5), st.data())
def test_any_file_gives_back_its_bytes(data: list[bytes | None], group: int, more: st.DataObject) -> None:
    """Of any rows in any row groups; the functions of the process are called in this one."""
    sink = pa.BufferOutputStream()
    nested = more.draw(st.booleans())
    cells = [{"bytes": one} for one in data] if nested else data
    kind = pa.struct([pa.field("bytes", pa.binary())]) if nested else pa.binary()
    pq.write_table(pa.table({"png": pa.array(cells, kind)}), sink, row_group_size=group)
    file = pq.ParquetFile(pa.BufferReader(sink.getvalue()))
    rows = [row for batch in child.read_rows(file, ["png"], [["url"], ["text"], ["key"]], [9, 9, 9]) for row in batch]
    column = "png.bytes" if nested else "png"
    sizes = [None if one is None else (column, len(one), f"{zlib.crc32(one):08x}") for one in data]
    assert [tuple(row[3:]) if row[3] else None for row in rows] == sizes
    wanted = more.draw(st.lists(st.integers(0, len(data) - 1)))
    found = {number: bytes(image) for number, image in child.read_images(file, column, sorted(wanted))}
    assert found == {number: data[number] for number in wanted if data[number] is not None}
