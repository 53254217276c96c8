"""Folders: sub-folders, the texts beside images and in metadata files, and what is told of the other files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strata.shards import folders
from strata.shards.image_reader import read_images
from strata.shards.sources import index_shard
from strata.shards.stamps import shard_stamp, shard_stamps
from tests.fakes import jpeg
from tests.shards.test_captions import WINDOWS, folder_of, tar_of

MOMENT = datetime(2026, 11, 28, tzinfo=UTC)


def test_sub_folders(tmp_path: Path) -> None:
    names = ["b.jpg", "a/x.jpg", "a/b.jpg", "a/é 1/deep.JPG", "c+d/%20.png", ".hidden/a.jpg", "a/._b.jpg", "a/.x.jpg"]
    uri = folder_of(tmp_path / "f", {name: name.encode() for name in names} | {"a/b.txt": b"in a", "b.TXT": b"at top"})
    (tmp_path / "f" / "link").symlink_to(tmp_path / "f" / "a")
    index = index_shard(uri)
    keys = ["a/b", "a/x", "a/é 1/deep", "b", "c+d/%20"]
    assert [row.key for row in index.rows] == keys and index.failure is None
    assert [row.alt_text for row in index.rows] == ["in a", None, None, "at top", None]
    paths = [row.uri.removeprefix(f"{uri}/") for row in index.rows]
    assert read_images(index.rows) == [path.encode() for path in paths]
    assert index.left_out == {"hidden": 3, "no_image": 1}
    # a change below the folder is one of the folder
    before = shard_stamp(uri)
    (tmp_path / "f" / "a" / "new.jpg").write_bytes(b"1")
    assert shard_stamp(uri) != before and index_shard(uri).identity != index.identity


def test_sub_folders_elsewhere() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b.jpg", "a/b.jpg", "a/c/d.png", ".h/a.jpg", "a/b.txt", "metadata.jsonl"):
        memory.pipe_file(f"/folders/{name}", json.dumps({"file_name": "a/c/d.png", "text": name}).encode())
    index = index_shard("memory://folders/")
    assert [(row.key, row.uri) for row in index.rows] == [
        (key, f"memory://folders/{name}") for key, name in (("a/b", "a/b.jpg"), ("a/c/d", "a/c/d.png"), ("b", "b.jpg"))
    ]
    assert [row.alt_text for row in index.rows][1:] == ["metadata.jsonl", None] and index.left_out == {"hidden": 1}


def metadata_file(kind: str, rows: list[dict[str, str]]) -> bytes:
    if kind == "jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    if kind == "csv":
        lines = [",".join(f'"{value}"' for value in row.values()) for row in rows]
        return "\r\n".join([",".join(rows[0]), *lines]).encode("utf-8-sig")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("field", ["text", "caption", "alt_text"])
def test_metadata_beside_images(tmp_path: Path, kind: str, field: str) -> None:
    """As `datasets.load_dataset("imagefolder")` reads it: file_name is relative to the folder of the metadata."""
    rows = [("train/a.jpg", "one, a"), ("./train/b.jpg", "é"), ("none.jpg", "x"), ("../f/c.jpg", "c"), ("d.jpg", "no")]
    listed = [{"url": "https://host/x.jpg", "file_name": name, field: text} for name, text in rows]
    inner = [{"file_name": "b.jpg", field: "nearer"}]
    files = dict.fromkeys(("train/a.jpg", "train/b.jpg", "d.jpg", "e.jpg"), b"image")
    files |= {f"metadata.{kind}": metadata_file(kind, listed), f"train/metadata.{kind}": metadata_file(kind, inner)}
    index = index_shard(folder_of(tmp_path / "f", files | {"d.txt": b"beside"}))
    texts = {"d": "beside", "e": None, "train/a": "one, a", "train/b": "nearer"}
    assert {row.key: row.alt_text for row in index.rows} == texts
    assert index.left_out == {"metadata_without_image": 2} and index.failure is None


def test_metadata_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_TEXT", 5)
    lines = b'{"file_name": "a.jpg", "text": "1234"}\n{\n{"file_name": "b.jpg", "text": "56"}\n[]\n{"text": "x"}'
    files = {
        "a.jpg": b"1",
        "b.jpg": b"2",
        "metadata.jsonl": lines,
        "metadata.parquet": b"none",
        "metadata.csv": b"a,b\n",
    }
    index = index_shard(folder_of(tmp_path / "f", files))
    assert [row.alt_text for row in index.rows] == ["1234", None]
    assert index.left_out == {"metadata_without_image": 4, "text_too_many": 1}


def test_metadata_that_is_a_link_is_counted(tmp_path: Path) -> None:
    uri = folder_of(tmp_path / "f", {"a.jpg": b"1"})
    (tmp_path / "blob").write_bytes(b'{"file_name": "a.jpg", "text": "not read"}')
    (tmp_path / "f" / "metadata.jsonl").symlink_to(tmp_path / "blob")
    index = index_shard(uri)
    assert [row.alt_text for row in index.rows] == [None] and index.left_out == {"metadata_without_image": 1}


def test_files_that_are_no_images(tmp_path: Path) -> None:
    files = {
        "a": jpeg(),
        "b.jfif": b"1",
        "README": b"text",
        "notes.md": b"text",
        "alone.txt": b"x",
        "LICENSE.txt": b"x",
    }
    index = index_shard(folder_of(tmp_path / "f", files))
    assert [row.key for row in index.rows] == ["a", "b"] and read_images(index.rows) == [jpeg(), b"1"]
    assert index.left_out == {"no_image": 2, "text_without_image": 2}
    (tmp_path / "f" / "t").mkdir()
    tar_of(tmp_path / "f" / "t" / "0.tar", {})
    for name in ("a", "b.jfif"):
        (tmp_path / "f" / name).unlink()
    assert index_shard(str(tmp_path / "f")).failure == "a folder without images, with 1 tar: name them as FOLDER/*.tar"


def test_the_identity_of_plain_folders_stays() -> None:
    """Nothing is computed again for a folder of which nothing has changed: these are identities of version 3.1."""
    memory = fsspec.filesystem("memory")
    for name in ("b.jpg", "a.png", "b.webp", "a.txt", "b.json", "notes.md"):
        memory.pipe_file(f"/plain/{name}", b'{"caption": "%s"}' % name.encode())
        memory.store[f"/plain/{name}"].created = memory.store[f"/plain/{name}"].modified = MOMENT
    index = index_shard("memory://plain")
    assert (index.identity, index.families) == ("0b1c7947bb741282", ["4f8cf884b121a5d1", "7903c252a082fc8d"])
    assert shard_stamps("memory://plain").before == "daef174bf6d2fe1c"


def test_the_row_tells_how_metadata_was_read(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for folder, name, text in (
        ("c", "metadata.csv", 'file_name,text\na.jpg,"Café"\nb.jpg,plain\n'),
        ("j", "metadata.jsonl", '{"file_name": "a.jpg", "text": "Café"}\n{"file_name": "b.jpg", "text": "plain"}'),
    ):
        files |= {f"{folder}/a.jpg": b"1", f"{folder}/b.jpg": b"2", f"{folder}/{name}": text.encode("cp1252")}
    lost = [{"file_name": "a.jpg", "text": "Caf\ufffd"}, {"file_name": "b.jpg", "text": "é"}]
    for kind in ("csv", "jsonl", "parquet"):
        files |= {f"z{kind}/a.jpg": b"1", f"z{kind}/b.jpg": b"2", f"z{kind}/metadata.{kind}": metadata_file(kind, lost)}
    rows = index_shard(folder_of(tmp_path / "f", files)).rows
    assert [(row.alt_text, row.note) for row in rows[:4]] == [("Café", WINDOWS), ("plain", None)] * 2
    unreadable = "its text has characters that another program could not read"
    assert [(row.alt_text, row.note) for row in rows[4:]] == [("Caf\ufffd", unreadable), ("é", None)] * 3
    # a text beside the image counts, and its note
    files |= {"c/a.txt": b"certain", "j/a.txt": b" "}
    rows = index_shard(folder_of(tmp_path / "g", files)).rows
    assert [(rows[0].alt_text, rows[0].note), (rows[2].alt_text, rows[2].note)] == [
        ("certain", None),
        ("Café", WINDOWS),
    ]


def test_a_csv_over_its_bound_is_cut_between_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cut is within a character, and the rows before it are read as UTF-8; one more is told of as lost."""
    head = "file_name,text\na.jpg,é\n".encode()
    data = head + "b.jpg,éé\nc.jpg,x\n".encode()
    files = {"a.jpg": b"1", "b.jpg": b"2", "c.jpg": b"3", "metadata.csv": data}
    uri = folder_of(tmp_path / "f", files)
    for bound in range(len(head), len(head) + len("b.jpg,éé\n".encode())):
        monkeypatch.setattr(folders, "MAX_CSV", bound)
        index = index_shard(uri)
        # a row at the very end of what is read may go on after it
        assert [(row.alt_text, row.note) for row in index.rows[1:]] == [(None, None)] * 2
        assert index.rows[0].alt_text == ("é" if bound > len(head) else None) and index.rows[0].note is None
        assert index.left_out == {"metadata_without_image": 1}
    monkeypatch.setattr(folders, "MAX_CSV", len(data))
    index = index_shard(uri)
    assert [row.alt_text for row in index.rows] == ["é", "éé", "x"] and index.left_out == {}


def test_a_csv_with_a_long_field(tmp_path: Path) -> None:
    rows = [("a.jpg", "one"), ("b.jpg", "long " * 100_000), ("c.jpg", "three")]
    data = metadata_file("csv", [{"file_name": name, "text": text} for name, text in rows])
    index = index_shard(
        folder_of(tmp_path / "f", dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), b"1") | {"metadata.csv": data})
    )
    texts = [row.alt_text or "" for row in index.rows]
    assert (texts[0], texts[1][:9], texts[2]) == ("one", "long long", "three") and index.left_out == {}
