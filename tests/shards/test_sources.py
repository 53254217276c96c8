"""Sources: patterns, roots, the index of tars and folders, and images read back by offsets."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from strata.shards.image_reader import ImageReader, ShardChanged, read_images
from strata.shards.roots import ShardMissing, SourceError
from strata.shards.sources import index_shard
from strata.shards.stamps import shard_stamp
from strata.shards.tar.headers import Window
from strata.store import IndexRow
from strata.store.storage_errors import is_transient

Files = list[tuple[str, bytes]]


def write_tar(path: Path, files: Files, **options: Any) -> str:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def samples(count: int) -> Files:
    """img2dataset's order: jpg, json, txt."""
    files: Files = []
    for i in range(count):
        image = bytes([i % 256]) * (700 + i)
        texts = json.dumps({"caption": f"json {i}"}).encode(), f"text {i}".encode()
        files += [(f"{i:09d}.jpg", image), (f"{i:09d}.json", texts[0]), (f"{i:09d}.txt", texts[1])]
    return files


# tars


def test_index(tmp_path: Path) -> None:
    uri = write_tar(tmp_path / "0.tar", samples(5))
    index = index_shard(uri)
    assert index.failure is None and index.stamp == shard_stamp(uri) and len(index.identity) == 16
    assert [row.key for row in index.rows] == [f"{i:09d}" for i in range(5)]
    assert [row.alt_text for row in index.rows] == [f"text {i}" for i in range(5)]
    assert read_images(index.rows) == [data for name, data in samples(5) if name.endswith("jpg")]


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    uri = write_tar(tmp_path / "0.tar", samples(1))
    first = shard_stamp(uri)
    assert shard_stamp(uri) == first
    os.utime(uri, (1, 1))
    assert shard_stamp(uri) != first
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"1")
    before = shard_stamp(str(folder))
    (folder / "b.png").write_bytes(b"1")
    assert shard_stamp(str(folder)) != before


def test_odd_members(tmp_path: Path) -> None:
    caption = json.dumps({"caption": "from json \ud800"}).encode()
    files = [
        ("../../x.jpg", b"1"), ("/etc/y.JPEG", b"2"), ("y.json", caption), ("..\\..\\z.png", b"3"),
        ("a/1.jpg", b"4"), ("b/1.jpg", b"5"), ("b/1.jpg", b"6"), ("._junk.jpg", b"7"), ("noextension", b"8"),
        ("mask.seg.png", b"m"), ("mask.jpg", b"9"), ("mask.txt", b"caf\xe9"), ("text.txt", b"alone"),
        ("empty.jpg", b""), ("bad\udcff\n.jpg", b"10"), ("long.jpg", b"11"),
        ("long.txt", b"\xc3\xa9" * 9000),
        ("j.jpg", b"12"), ("j.json", b"[" * 100_000), ("l.jpg", b"13"), ("l.json", b'["no caption"]'),
    ]  # fmt: skip
    index = index_shard(write_tar(tmp_path / "0.tar", files, errors="surrogateescape"))
    rows = {row.key: row for row in index.rows}
    assert index.failure is None and len(rows) == len(index.rows)
    keys = ["x", "y", "z", "1", "1-2", "1-3", "mask", "empty", "bad__", "long", "j", "l"]
    assert [key.replace("\ufffd", "_") for key in rows] == keys
    images = dict(zip(rows, read_images(index.rows), strict=True))
    assert images["x"] == b"1" and images["1-3"] == b"6" and images["mask"] == b"9"
    assert index.left_out == {"hidden": 1, "no_image": 1, "further_image": 1, "text_without_image": 2}
    assert rows["empty"].error == "an empty file" and isinstance(images["empty"], SourceError)
    assert rows["mask"].alt_text == "café" and rows["long"].alt_text == "é" * 4096
    assert rows["j"].alt_text is None and rows["l"].alt_text is None
    for row in index.rows:
        f"{row.key}{row.alt_text}".encode()  # valid Unicode


def test_links_in_a_tar_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"a{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    rows = index_shard(str(tmp_path / "0.tar")).rows
    assert [row.error for row in rows] == ["the image is a link, not a file"] * 3


def test_truncated(tmp_path: Path) -> None:
    uri = write_tar(tmp_path / "0.tar", samples(6))
    whole = index_shard(uri)
    data = Path(uri).read_bytes()
    cut = whole.rows[3].offset + 10
    Path(uri).write_bytes(data[:cut])
    index = index_shard(uri)
    assert index.failure == "truncated after 3 images"
    assert [row.error for row in index.rows] == [None] * 3 + ["the tar ends inside this image"]
    assert [row.alt_text for row in index.rows[:3]] == ["text 0", "text 1", "text 2"]
    for cut in (whole.rows[4].offset - 512, whole.rows[4].offset - 100, whole.rows[4].offset):
        Path(uri).write_bytes(data[:cut])  # between members, inside of a header, right after it
        failure = index_shard(uri).failure
        assert failure == "truncated after 4 images", cut
    broken = bytearray(data)
    broken[whole.rows[2].offset - 512 : whole.rows[2].offset] = b"x" * 512
    Path(uri).write_bytes(broken)
    index = index_shard(uri)
    assert index.failure == "damaged at byte 7,168, 1,536 bytes skipped"
    assert [row.error for row in index.rows] == [None] * 5 and index.left_out == {"text_without_image": 1}
    assert index.rows == whole.rows[:2] + whole.rows[3:]


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "an empty file"), (b"no tar at all" * 200, "not a tar"), (b"\x1f\x8b" + b"0" * 99, "compressed")],
)
def test_no_tar(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "0.tar").write_bytes(data)
    index = index_shard(str(tmp_path / "0.tar"))
    assert index.rows == [] and index.failure is not None and words in index.failure
    assert index.identity


def test_missing_shard(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "none.tar"), "memory://none.tar"):
        for function in (shard_stamp, index_shard):
            with pytest.raises(ShardMissing, match="no such shard"):
                function(uri)


def test_empty_tar_and_device(tmp_path: Path) -> None:
    assert index_shard(write_tar(tmp_path / "0.tar", [])).failure is None
    os.mkfifo(tmp_path / "fifo")
    assert index_shard(str(tmp_path / "fifo")).failure == "neither a file nor a folder"


def headers_of(data: bytes) -> list[int]:
    """The offsets of a tar's headers."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [member.offset for member in tar.getmembers()]


def test_garbage_in_the_middle(tmp_path: Path) -> None:
    """The neighbours come out undamaged if something between them is inserted, removed or overwritten."""
    uri = write_tar(tmp_path / "0.tar", samples(6))
    data, images = Path(uri).read_bytes(), [data for name, data in samples(6) if name.endswith("jpg")]
    second, third = headers_of(data)[3], headers_of(data)[6]
    noise = random.Random(0).randbytes(5001)
    for broken in (
        data[:second] + noise + data[second:],
        data[:second] + bytes(20_480) + data[second:],
        data[: second + 700] + noise + data[third:],
        data[: second - 100] + data[second:],
        data[:second] + bytes(512) + data[second + 512 :],
    ):
        Path(uri).write_bytes(broken)
        index = index_shard(uri)
        found = read_images(index.rows)
        assert all(image in found for number, image in enumerate(images) if number != 1)
        assert index.failure is not None and index.failure.startswith("damaged at byte ")
        assert [row.alt_text for row in index.rows][2:] == [f"text {i}" for i in range(6)][-len(index.rows) + 2 :]


def test_an_image_that_was_cut_short_is_told(tmp_path: Path) -> None:
    uri = write_tar(tmp_path / "0.tar", [("a.jpg", b"a" * 2000), ("b.jpg", b"b" * 2000)])
    data = Path(uri).read_bytes()
    Path(uri).write_bytes(data[:1000] + data[headers_of(data)[1] :])
    index = index_shard(uri)
    assert [row.error for row in index.rows] == ["the tar is damaged inside this image", None]
    assert read_images(index.rows)[1] == b"b" * 2000


def test_two_tars_in_one_file(tmp_path: Path) -> None:
    one, other = (Path(write_tar(tmp_path / f"{i}.tar", samples(i))).read_bytes() for i in (2, 3))
    (tmp_path / "0.tar").write_bytes(one + other)
    assert len(index_shard(str(tmp_path / "0.tar")).rows) == 5
    (tmp_path / "0.tar").write_bytes(one + b"what others left behind the end")
    assert index_shard(str(tmp_path / "0.tar")).failure is None


def test_hostile_headers_end_soon(tmp_path: Path) -> None:
    def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind
        return info.tobuf(tarfile.GNU_FORMAT)

    long = [header("x", 512, tarfile.XHDTYPE) + b"30 comment=aaaaaaaaaaaaaaaaaa\n".ljust(512, b"\0")] * 5000
    digits = [header("x", 10_240, tarfile.XHDTYPE) + b"1" * 10_240] * 100
    for data in (b"".join(long), b"".join(digits), header("a.jpg", 5) + b"ustar" * 2_000_000, header("a.jpg", -1)):
        (tmp_path / "0.tar").write_bytes(data)
        started = time.thread_time()
        assert index_shard(str(tmp_path / "0.tar")).failure
        assert time.thread_time() - started < 5


def test_a_long_text(tmp_path: Path) -> None:
    files = [("a.jpg", b"1"), ("a.txt", "é".encode() * 2**19), ("b.jpg", b"2"), ("b.txt", b"two")]
    files += [("c.jpg", b"3"), ("c.json", json.dumps({"x": "y" * 2**20, "caption": "yes"}).encode()), ("d.jpg", b"4")]
    rows = index_shard(write_tar(tmp_path / "0.tar", files)).rows
    assert [row.alt_text for row in rows] == ["é" * 4096, "two", "yes", None]
    assert read_images(rows) == [b"1", b"2", b"3", b"4"]


def test_members_across_the_pieces_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that lie across two pieces of the file, or fill many, are read correctly."""
    uri = write_tar(tmp_path / "0.tar", [*samples(40), ("big.jpg", b"b" * 200_000), *samples(3)])
    whole = index_shard(uri)
    monkeypatch.setattr(Window, "LOOKBACK", 3000)
    for piece in (512, 1000, 5000, 65_536):
        monkeypatch.setattr(Window, "PIECE", piece)
        index = index_shard(uri)
        assert index.table.equals(whole.table) and index.failure is None


def test_plain_and_other_headers_give_the_same(tmp_path: Path) -> None:
    """Our parser and the standard library give the same names, texts and images."""
    files = samples(5)
    uris = [write_tar(tmp_path / f"{i}.tar", files, format=i) for i in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT)]
    uris.append(write_tar(tmp_path / "pax.tar", files, pax_headers={"comment": "all by the library"}))
    with tarfile.open(tmp_path / "times.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            tar.addfile(info, io.BytesIO(data))
    for uri in (*uris, str(tmp_path / "times.tar")):
        rows = index_shard(uri).rows
        assert [(row.key, row.alt_text) for row in rows] == [(f"{i:09d}", f"text {i}") for i in range(5)]
        assert read_images(rows) == [data for name, data in files if name.endswith("jpg")]


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_fuzzed_tars(tmp_path: Path, style: int) -> None:
    """A damaged tar gives rows and a failure: no exception, no endless loop, no row outside of the file."""
    rng = random.Random(style)
    files = [("x" * 150 + f"é{name}" if style != tarfile.USTAR_FORMAT else name, d) for name, d in samples(4)]
    path = tmp_path / "0.tar"
    original = Path(write_tar(path, files, format=style)).read_bytes()
    for _ in range(250):
        data = bytearray(original)
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(len(data))] = rng.choice([0, 0x30, 0x37, 0x80, 0xFF, rng.randrange(256)])
        if rng.random() < 0.4:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        for row in index_shard(str(path)).rows:
            assert row.error or (row.offset > 0 and row.offset + row.size <= len(data))


def test_many_duplicates_stay_fast(tmp_path: Path) -> None:
    uri = write_tar(tmp_path / "0.tar", [("a.jpg", b"1")] * 5000)
    rows = index_shard(uri).rows
    assert len({row.key for row in rows}) == 5000 and rows[-1].key == "a-5000"


# changes


def test_a_shard_that_changed_or_went(tmp_path: Path) -> None:
    uri = write_tar(tmp_path / "0.tar", samples(3))
    index = index_shard(uri)
    ImageReader().verify(uri, index.identity)
    write_tar(tmp_path / "0.tar", samples(4))
    with pytest.raises(ShardChanged, match="changed since"):
        ImageReader().verify(uri, index.identity)
    Path(uri).unlink()
    with pytest.raises(ShardMissing):
        ImageReader().verify(uri, index.identity)
    assert [type(answer) for answer in read_images(index.rows)] == [FileNotFoundError] * 3


def test_a_loose_image_that_changed(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode() * 10)
    index = index_shard(str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"longer than before")
    (tmp_path / "b.jpg").write_bytes(b"short")
    answers = read_images(index.rows)
    assert [type(answer) for answer in answers[:2]] == [ShardChanged] * 2 and answers[2] == b"c" * 10


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"}), SourceError),
        (PermissionError, SourceError),
        (type("EndpointConnectionError", (Exception,), {"__module__": "botocore.exceptions"}), OSError),
        (ConnectionResetError, OSError),
        (KeyError, SourceError),
    ],
)
def test_storages_that_fail(monkeypatch: pytest.MonkeyPatch, raised: type[Exception], kind: type[Exception]) -> None:
    """Missing credentials make a shard fail; for an unreachable server a retry may help."""

    def info(*_: object, **__: object) -> None:
        raise raised("Unable to locate")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", info)
    for function in (shard_stamp, index_shard, lambda uri: ImageReader().verify(uri, "0")):
        with pytest.raises(kind, match="Unable to locate"):
            function("memory://bucket/0.tar")


# folders


def test_folder(tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(b"secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in [("b.jpg", b"22"), ("a.png", b"1"), ("a.txt", b"an a"), ("b.json", b'{"caption":"a b"}')]:
        (folder / name).write_bytes(data)
    (folder / "notes.md").write_text("no image")
    (folder / "c.jpg").symlink_to(outside)
    (folder / "d.jpg").touch()
    (folder / "b.webp").write_bytes(b"4")
    index = index_shard(f"{folder}/")
    assert index.failure is None and index.stamp == shard_stamp(f"{folder}/")
    assert [row.key for row in index.rows] == ["a", "b", "b-2", "c", "d"]
    assert [row.alt_text for row in index.rows] == ["an a", "a b", "a b", None, None]
    assert [row.error for row in index.rows[3:]] == ["links are not followed", "an empty file"]
    assert read_images(index.rows)[:3] == [b"1", b"22", b"4"]
    (tmp_path / "none").mkdir()
    assert index_shard(str(tmp_path / "none")).failure == "a folder without images"


def test_other_file_system() -> None:
    memory = fsspec.filesystem("memory")
    with tarfile.open(fileobj=memory.open("/shards/0.tar", "wb"), mode="w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        memory_file = tar.fileobj
    assert memory_file is not None
    memory_file.close()
    index = index_shard("memory://shards/0.tar")
    assert index.failure is None and read_images(index.rows) == [b"abc"]


# reading


def test_reads_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 8192)  # 2 MiB
    uri = str(path)
    rows = [IndexRow("k", uri, offset, 10) for offset in (0, 5000, 20_000, 1_500_000, 100, 100)]
    calls: list[tuple[int, int]] = []
    original = os.pread

    def counted(file: int, size: int, start: int) -> bytes:
        calls.append((start, start + size))
        return original(file, size, start)

    monkeypatch.setattr(os, "pread", counted)
    data = path.read_bytes()
    assert read_images(rows) == [data[row.offset : row.offset + 10] for row in rows]
    assert calls == [(0, 20_010), (1_500_000, 1_500_010), (100, 110), (100, 110)]
    assert read_images([]) == []


def test_a_shrunken_file_fails_its_rows_only(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"0123456789")
    b.write_bytes(b"abc")
    places = [(a, 0, 4), (a, 4, 4), (a, 8, 4), (a, 20, 4), (tmp_path / "gone", 0, 3), (b, 0, 3), (b, 0, 0)]
    results = read_images([IndexRow("k", str(path), offset, size) for path, offset, size in places])
    assert results[:2] == [b"0123", b"4567"] and results[5] == b"abc"
    assert [type(result).__name__ for result in (*results[2:5], results[6])] == [
        "OSError", "OSError", "FileNotFoundError", "SourceError"
    ]  # fmt: skip


def test_an_image_of_many_bytes_is_not_read(tmp_path: Path) -> None:
    for name, size in (("large", 10 * 2**30), ("least too large", 512 * 2**20 + 1), ("small", 3)):
        with (tmp_path / f"{name}.jpg").open("wb") as file:
            file.truncate(size)  # a file with a hole, which takes no room on the disk
    index = index_shard(str(tmp_path))
    large, least, small = read_images(index.rows)
    assert small == bytes(3)
    assert str(large) == "10,737,418,240 bytes, but at most 536,870,912 are read for one image"
    assert isinstance(large, SourceError) and isinstance(least, SourceError) and not is_transient(large)
