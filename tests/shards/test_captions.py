"""Texts of images: the encodings of files beside images, and the fields of JSON."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core import Rules
from strata.shards import captions, lists
from strata.shards.sources import index_shard
from strata.store import IndexRow
from workers.items import item_of

WINDOWS = "its text is not valid UTF-8: it was read as Windows-1252"
TEXTS = {
    "plain": ("naïve café".encode(), "naïve café", None),
    "bom": ("\ufeffnaïve café".encode(), "naïve café", None),
    "utf-16-le": ("\ufeffnaïve café".encode("utf-16-le"), "naïve café", None),
    "utf-16-be": ("\ufeffnaïve café 😀".encode("utf-16-be"), "naïve café 😀", None),
    "utf-32": ("naïve café".encode("utf-32"), "naïve café", None),
    "windows": ("“naïve” café – 5 €".encode("cp1252"), "“naïve” café – 5 €", WINDOWS),
    "undefined": (b"caf\xe9 \x81\x8d", "café \ufffd\ufffd", f"{WINDOWS}, in which some of its bytes have no meaning"),
    "nul": (b"a\0b\0\0", "ab", None),
    "odd": ("café".encode("utf-16") + b"\0", "café\ufffd", "its text is damaged: some of its characters are none of"),
    "damaged": ("caf\ufffd".encode(), "caf\ufffd", "its text has characters that another program could not read"),
    "empty": (b"\xef\xbb\xbf \n", None, None),
}


def tar_of(path: Path, files: dict[str, bytes]) -> str:
    """Write a tar of the files."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def folder_of(path: Path, files: dict[str, bytes]) -> str:
    """Write a folder of the files."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path)


def check(rows: list[IndexRow], text: str | None, note: str | None) -> None:
    assert [row.alt_text for row in rows] == [text] * len(rows)
    assert all((row.note or "").startswith(note or "") and (row.note is None) == (note is None) for row in rows)


@pytest.mark.parametrize("name", TEXTS)
def test_encodings(tmp_path: Path, name: str) -> None:
    """A text file is read alike in a tar, in a folder and beside a single image."""
    data, text, note = TEXTS[name]
    files = {"a.jpg": b"1", "a.txt": data}
    rows = index_shard(tar_of(tmp_path / "0.tar", files)).rows + index_shard(folder_of(tmp_path / "f", files)).rows
    check(rows + index_shard(str(tmp_path / "f" / "a.jpg")).rows, text, note)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("field", ["text", "alt_text", "caption"])
def test_fields(tmp_path: Path, encoding: str, field: str) -> None:
    fields = json.dumps({"width": 5, "caption": "", field: "ein \0Café"}, ensure_ascii=False).replace("\0", "\\u0000")
    note = WINDOWS if encoding == "cp1252" else None
    files = {"a.jpg": b"1", "a.json": fields.encode(encoding)}
    rows = index_shard(tar_of(tmp_path / "0.tar", files)).rows + index_shard(folder_of(tmp_path / "f", files)).rows
    check(rows, "ein Café", note)
    line = fields.replace("{", '{"image": "f/a.jpg", ', 1)
    (tmp_path / "list.jsonl").write_bytes(line.encode(encoding))
    check(index_shard(str(tmp_path / "list.jsonl"), [str(tmp_path)]).rows, "ein Café", note)


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff x", "\\ufffd"])
def test_a_character_that_cannot_be_stored_is_told(tmp_path: Path, escape: str) -> None:
    """A lone surrogate is legal in JSON; it is replaced, and the row says so, wherever the JSON stands."""
    fields = f'{{"file_name": "a.jpg", "caption": "lone {escape} end"}}'.encode()
    files = {"a.jpg": b"1", "a.json": fields}
    metadata = {"a.jpg": b"1", "metadata.jsonl": fields}
    rows = index_shard(tar_of(tmp_path / "0.tar", files)).rows + index_shard(folder_of(tmp_path / "f", files)).rows
    rows += index_shard(folder_of(tmp_path / "m", metadata)).rows
    rows += index_shard(folder_of(tmp_path / "l", metadata) + "/metadata.jsonl", [str(tmp_path)]).rows
    assert len(rows) == 4
    text = f"lone \ufffd {'x ' if 'x' in escape else ''}end"
    check(rows, text, "its text has characters that another program could not read")


def test_json_over_a_mebibyte(tmp_path: Path) -> None:
    fields = json.dumps({"exif": "x" * (3 * 2**20), "caption": "a cat"}).encode()
    longest = json.dumps({"exif": "x" * captions.MAX_JSON, "caption": "a cat"}).encode()
    files = {"a.jpg": b"1", "a.json": fields, "b.jpg": b"2", "b.json": longest, "c.jpg": b"3", "c.json": b"{"}
    for uri in (tar_of(tmp_path / "0.tar", files), folder_of(tmp_path / "f", files)):
        rows = index_shard(uri).rows
        assert [row.alt_text for row in rows] == ["a cat", None, None]
        notes = ["its JSON file is longer than 16,777,216 bytes, and was not read", "its JSON file is not valid JSON"]
        assert [row.note for row in rows] == [None, *notes]


def test_the_row_tells_how_a_text_was_read(tmp_path: Path) -> None:
    files = {"a.jpg": b"1", "a.txt": "Café".encode("cp1252"), "b.jpg": b"2", "b.txt": b"plain"}
    rows = index_shard(tar_of(tmp_path / "0.tar", files)).rows
    warnings = [item_of(row, Rules()).record.warnings for row in rows]
    assert [[(one.type, one.detail) for one in found] for found in warnings] == [[("alt_text", WINDOWS)], []]


@given(st.text(st.characters(codec="utf-8"), max_size=50), st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
def test_what_was_written_is_read(text: str, encoding: str) -> None:
    """No character is lost or changed but NULs and white space at the ends."""
    text = text.lstrip("\0")  # the mark of UTF-16 and a NUL are the mark of UTF-32
    found = captions.from_txt(text.encode(encoding))
    assert (found.text or "") == text.replace("\0", "").lstrip("\ufeff").strip()


@given(st.binary(max_size=60))
def test_any_bytes_give_a_text_that_can_be_stored(data: bytes) -> None:
    found = captions.from_txt(data)
    assert "\0" not in (found.text or "") and (found.text or "x").encode()
    # a character that could not be read is never left without a word
    assert found.note or "\ufffd" not in (found.text or "")


@pytest.mark.parametrize("character", ["é", "漢", "😀"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_long_text_is_cut_between_characters(character: str, encoding: str) -> None:
    for before in range(4):
        data = ("x" * before + character * 9000).encode(encoding)
        assert captions.from_txt(data) == ("x" * before + character * (4096 - before), None)


@pytest.mark.parametrize("blank", [b"", b" \n\t", b"\0\0\0", b"\xef\xbb\xbf", b"\xff\xfe \0"])
def test_a_text_without_words_gives_way_to_the_json(tmp_path: Path, blank: bytes) -> None:
    """In any order of a tar's members, also sorted by type, and in a folder."""
    files = {"a.jpg": b"1", "a.txt": blank, "a.json": b'{"caption": "from json"}'}
    rows = index_shard(folder_of(tmp_path / "f", files)).rows
    other = {name.replace("a", "b", 1): data for name, data in files.items()}
    for number, order in enumerate(itertools.permutations(files)):
        beside = {name: files[name] for name in order} | {f"b{name[1:]}": files[name] for name in order}
        by_type = {name: (files | other)[name] for kind in order for name in (kind, f"b{kind[1:]}")}
        for tar, members in (("beside", beside), ("by_type", by_type)):
            index = index_shard(tar_of(tmp_path / f"{tar}{number}.tar", members))
            assert len(index.rows) == 2 and index.left_out == {}
            rows += index.rows
    check(rows, "from json", None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_all_lines_of_a_list_are_read_in_its_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(lists, "_PIECE", 7)  # so that pieces end within characters
    names = [f"{number}.jpg" for number in range(5)]
    text = "\n".join(json.dumps({"file_name": name, "text": f"é😀 ਊ {name}"}, ensure_ascii=False) for name in names)
    data = ("\ufeff" * (encoding == "utf-16-be") + text).encode(encoding)
    folder = folder_of(tmp_path / "f", dict.fromkeys(names, b"1") | {"metadata.jsonl": data, "list.jsonl": data})
    for uri in (folder, f"{folder}/list.jsonl"):
        rows = index_shard(uri, [str(tmp_path)]).rows
        assert [(row.alt_text, row.note) for row in rows] == [(f"é😀 ਊ {name}", None) for name in names]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n")), max_size=5), st.integers(1, 9))
def test_lines_are_alike_in_each_encoding(lines: list[str], piece: int) -> None:
    lines[:1] = [line.lstrip("\0") for line in lines[:1]]  # the mark of UTF-16 and a NUL are the mark of UTF-32
    expected = list(filter(None, lines))
    for encoding in ("utf-16", "utf-32"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lists, "_PIECE", piece + 4)
            found = list(lists._lines(io.BytesIO("\n".join(lines).encode(encoding))))
        assert [line.decode() for line in found if line] == expected
