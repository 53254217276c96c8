"""Lists of images as sources: Parquet and JSON Lines."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strata.shards.image_reader import read_images
from strata.shards.sources import index_shard
from strata.store import ShardIndex


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A root with images."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.c.png", "sub/a.jpg"):
        (root / name).write_bytes(name.encode())
    (root / "empty.jpg").touch()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "inner.jpg").symlink_to(root / "a.jpg")
    return root


def listed(root: Path, rows: list[Any], kind: str, name: str = "list") -> ShardIndex:
    """The index of a list of the rows; lines that are bytes are written as they are."""
    path = root / f"{name}.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
        path.write_bytes(b"\n".join(lines))
    return index_shard(str(path), [str(root)])


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_lists(images: Path, tmp_path: Path, kind: str) -> None:
    index = listed(
        images,
        [
            {"image": "a.jpg", "caption": "an a", "key": 7},
            {"image": "sub/a.jpg", "caption": None, "key": None},
            {"image": f"{images}/b.c.png", "caption": " b ", "key": 7},
            {"image": f"file://{images}/sub/../a.jpg", "caption": "x" * 5000, "key": None},
            {"image": "inner.jpg", "caption": "a link that stays", "key": None},
            {"image": "none.jpg", "caption": "the text stays", "key": None},
            {"image": "../secret.jpg", "caption": None, "key": None},
            {"image": "link.jpg", "caption": None, "key": None},
            {"image": "/etc/passwd", "caption": None, "key": None},
            {"image": "s3://bucket/a.jpg", "caption": None, "key": None},
            {"image": None, "caption": None, "key": None},
            {"image": "sub", "caption": None, "key": None},
            {"image": "empty.jpg", "caption": None, "key": None},
            {"image": "a\nb.jpg", "caption": None, "key": None},
            {"image": "zip://x::a.jpg", "caption": None, "key": None},
            {"image": "sub/a.jpg", "caption": "last", "key": None},
        ],
        kind,
    )
    assert index.failure is None and index.stamp is None
    rows, unit = index.rows, "row" if kind == "parquet" else "line"
    good = [rows[i] for i in (0, 1, 2, 3, 4, 15)]
    assert [row.key for row in good] == ["7", "a", "7-2", "a-2", "inner", "a-3"]
    assert [row.alt_text for row in good] == ["an a", None, "b", "x" * 4096, "a link that stays", "last"]
    assert read_images(good) == [b"a.jpg", b"sub/a.jpg", b"b.c.png", b"a.jpg", b"a.jpg", b"sub/a.jpg"]
    errors = [row.error or "" for row in rows]
    assert errors[5] == f"{unit} 6: no such image" and rows[5].alt_text == "the text stays"
    assert all("outside the folders" in errors[i] for i in (6, 7, 8, 9))
    assert errors[10] == f"{unit} 11: no path of an image" and rows[10].key == f"{unit}-11"
    assert "not a file" in errors[11] and errors[12] == "an empty file" and errors[13] and errors[14]
    assert not any(errors[i] for i in (0, 1, 2, 3, 4, 15))


def test_names_of_fields(images: Path) -> None:
    for field, text in (("path", "text"), ("url", "alt_text"), ("image_path", "caption"), ("file_name", "text")):
        for kind in ("parquet", "jsonl"):
            (row,) = listed(images, [{field: "a.jpg", text: "an a", "id": "k"}], kind, field).rows
            assert (row.key, row.alt_text, row.error) == ("k", "an a", None)


def test_lines_that_are_no_json(images: Path) -> None:
    good = {"image": "a.jpg"}
    long = json.dumps({"image": "a.jpg", "x": "y" * 17 * 2**20}).encode()
    lines = [good, b"{", b"", b"[1]", b'{"image": 5}', b"\xff\xfe", b'{"image": "\\ud800"}', long, b"[" * 9999, good]
    index = listed(images, lines, "jsonl")
    assert index.failure is None
    assert [row.error is None for row in index.rows] == [True, *[False] * 7, True]
    errors = [row.error or "" for row in index.rows]
    assert errors[1].startswith("line 2: not JSON") and errors[2] == "line 4: not a JSON object"
    assert "longer than" in errors[6] and errors[7].startswith("line 9: not JSON")
    assert index.rows[-1].key == "a-2"
    for row in index.rows:
        f"{row.key}{row.error}{row.alt_text}".encode()


def test_parquet_that_is_none(images: Path) -> None:
    path = images / "list.parquet"
    for data in (b"", b"PAR1" * 100, b"no parquet at all"):
        path.write_bytes(data)
        index = index_shard(str(path), [str(images)])
        assert index.rows == [] and index.failure and "not a Parquet file" in index.failure
    pq.write_table(pa.table({"image": [1, 2]}), path)
    assert "no text column" in (index_shard(str(path), [str(images)]).failure or "")
    pq.write_table(pa.table({"image": pa.array([], pa.string())}), path)
    assert index_shard(str(path), [str(images)]).failure == "a list without rows"
    table = pa.table({"url": [f"{i}.jpg" for i in range(5000)], "text": ["x"] * 5000})
    pq.write_table(table, path, row_group_size=1000)
    half = path.stat().st_size // 2
    broken = path.read_bytes()
    path.write_bytes(broken[:half] + random.Random(0).randbytes(500) + broken[half + 500 :])
    index = index_shard(str(path), [str(images)])
    assert index.failure or len(index.rows) == 5000


def test_parquet_texts_that_are_no_utf_8(images: Path) -> None:
    raw = pa.array([b"a.jpg", b"\xff\xfe", b"sub/a.jpg"])
    paths = pa.StringArray.from_buffers(3, *raw.buffers()[1:])
    captions = pa.array(["one", "two", "two"]).dictionary_encode()
    pq.write_table(pa.table({"image": paths, "caption": captions}), images / "list.parquet")
    rows = index_shard(f"{images}/list.parquet", [str(images)]).rows
    assert [row.error for row in rows] == [None, "row 2: no path of an image", None]
    assert [row.alt_text for row in rows] == ["one", None, "two"]


def test_lists_elsewhere() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/set/a.jpg", b"abc")
    lines = [{"image": name} for name in ("a.jpg", "memory://bucket/set/a.jpg", "none.jpg", "../x.jpg", "/etc/passwd")]
    memory.pipe_file("/bucket/set/list.jsonl", "\n".join(map(json.dumps, lines)).encode())
    rows = index_shard("memory://bucket/set/list.jsonl", ["memory://bucket/set"]).rows
    assert read_images(rows[:2]) == [b"abc", b"abc"]
    assert [row.error is None for row in rows] == [True, True, False, False, False]


def test_without_roots_no_image_is_read(images: Path) -> None:
    (images / "list.jsonl").write_text('{"image": "a.jpg"}')
    (row,) = index_shard(f"{images}/list.jsonl").rows
    assert "outside" in (row.error or "") and row.size == 0


def test_long_lists(images: Path) -> None:
    table = pa.table({"image": ["a.jpg"] * 30_000, "caption": [f"text {i}" for i in range(30_000)]})
    pq.write_table(table, images / "list.parquet")
    index = index_shard(f"{images}/list.parquet", [str(images)])
    assert index.table.num_rows == 30_000 and index.table.column("error").null_count == 30_000
    assert index.rows[-1].key == "a-30000" and index.rows[-1].alt_text == "text 29999"
