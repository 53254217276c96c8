"""Which members of a tar are images, which texts are theirs, and what is told of the others."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.shards.image_reader import read_images
from strata.shards.kinds import IMAGE_EXTENSIONS, extension_of, is_hidden
from strata.shards.sources import index_shard
from strata.shards.tar import samples
from strata.store import ShardIndex
from tests.fakes import jpeg
from tests.shards.test_captions import tar_of
from tests.shards.test_sources import Files, write_tar

SHARD = Path(__file__).resolve().parents[2] / "samples" / "shards" / "00000.tar"


def rows_of(index: ShardIndex) -> dict[str, tuple[bytes | Exception, str | None]]:
    """The bytes and the text of each row, by its key."""
    images = read_images(index.rows)
    return {row.key: (image, row.alt_text) for row, image in zip(index.rows, images, strict=True)}


def test_names_with_dots(tmp_path: Path) -> None:
    """Webdataset's key is the part before the first dot; without a KEY.jpg each image is a row."""
    files = {
        "IMG.2023.jpg": b"1",
        "IMG.2023.txt": b"one",
        "IMG.2024.JPG": b"2",
        "IMG.2025.jpg": b"3",
        "IMG.txt": b"all",
    }
    index = index_shard(tar_of(tmp_path / "0.tar", files))
    assert rows_of(index) == {"IMG.2023": (b"1", "one"), "IMG.2024": (b"2", "all"), "IMG.2025": (b"3", "all")}
    assert index.left_out == {} and index.failure is None
    # beside KEY.jpg they are masks and thumbnails of it
    files = {"a.mask.png": b"m", "a.jpg": b"1", "a.depth.png": b"d", "b.jpg": b"2", "b.png": b"3", "c.seg.png": b"4"}
    index = index_shard(tar_of(tmp_path / "1.tar", files))
    assert rows_of(index) == {"a": (b"1", None), "b": (b"2", None), "c": (b"4", None)}
    assert index.left_out == {"further_image": 3}


def test_further_texts_of_an_image_are_counted(tmp_path: Path) -> None:
    """As those of a folder. Only the text with the image's own name is used."""
    files = {"d.jpg": b"1", "d.jpg.txt": b"d", "d.txt": b"used", "IMG.JPG": b"2", "IMG.JPG.txt": b"img"}
    files |= {"e.jpg": b"3", "e.meta.json": b'{"text": "e"}', "f.jpg": b"4", "f.png": b"5", "f.png.txt": b"f"}
    rows = {"d": (b"1", "used"), "IMG": (b"2", None), "e": (b"3", None), "f": (b"4", None)}
    index = index_shard(tar_of(tmp_path / "0.tar", files))
    assert rows_of(index) == rows and index.left_out == {"text_without_image": 4, "further_image": 1}
    (tmp_path / "folder").mkdir()
    for name, data in files.items():
        (tmp_path / "folder" / name).write_bytes(data)
    assert index_shard(str(tmp_path / "folder")).left_out == {"text_without_image": 4}


def test_texts_without_words_are_counted(tmp_path: Path) -> None:
    """In tars and folders alike, wherever they stand; a text of an image that has words or none is not."""
    files = {"a.jpg": b"1", "LICENSE.txt": b"words", "dataset.json": b'{"samples": 3}', "empty.txt": b"", "b.jpg": b"2"}
    files |= {"list.json": b"[1]", "bad.json": b"{", "blank.TXT": b" \n", "both.json": b"{}", "both.txt": b""}
    files |= {"b.txt": b"", "b.json": b"{}", "c.txt": b"", "c.jpg": b"3", "d.json": b"{}", "e.txt": b""}
    files |= {"z.jpg": b"4", "e.jpg": b"5", "d.jpg": b"6", "e.json": b'{"caption": "words"}'}
    index = index_shard(tar_of(tmp_path / "0.tar", files))
    assert {row.key: row.alt_text for row in index.rows} == dict.fromkeys("abczd") | {"e": "words"}
    assert index.left_out == {"text_without_image": 7}
    (tmp_path / "f").mkdir()
    for name, data in files.items():
        (tmp_path / "f" / name).write_bytes(data)
    assert index_shard(str(tmp_path / "f")).left_out == index.left_out
    nested = {f"s/{name}": data for name, data in files.items()} | {"s/a.jpg.txt": b"", "s/a.meta.json": b"{}"}
    assert index_shard(tar_of(tmp_path / "1.tar", nested)).left_out == {"text_without_image": 9}


def test_thousands_of_names_with_one_first_part(tmp_path: Path) -> None:
    count = 2 * samples.MAX_MEMBERS + 1
    names = [f"v1.2_{number:05d}" for number in range(count)]
    texts: Files = [(f"{name}.txt", f"text of {name}".encode()) for name in names]
    images: Files = [(f"{name}.jpg", name.encode()) for name in names]
    expected = {name: (name.encode(), f"text of {name}") for name in names}
    beside = [file for pair in zip(images, texts, strict=True) for file in pair]
    for number, files in enumerate((beside, images + texts, texts + images)):
        index = index_shard(write_tar(tmp_path / f"{number}.tar", files))
        assert rows_of(index) == expected and index.left_out == {}


def test_images_without_extension(tmp_path: Path) -> None:
    files = {"a": jpeg(), "b.2024": jpeg(5, 5), "b.txt": b"b", "README": b"no image", "c.cls": b"7", "c.jpg": b"1"}
    index = index_shard(tar_of(tmp_path / "0.tar", files))
    assert rows_of(index) == {"a": (jpeg(), None), "b": (jpeg(5, 5), "b"), "c": (b"1", None)}
    assert index.left_out == {"no_image": 1}


def test_files_of_a_data_set_are_no_images(tmp_path: Path) -> None:
    names = ("LICENSE.txt", "dataset.json", "video.mp4", "._a.jpg", ".b.jpg", "__MACOSX/a.jpg", "x/.git/a.png", "a.jpg")
    nested = ("data/__MACOSX/c.jpg", "data\\__MACOSX\\d.jpg", "e.txt/__MACOSX")
    index = index_shard(tar_of(tmp_path / "0.tar", dict.fromkeys((*names, *nested), b"{} no caption")))
    assert list(rows_of(index)) == ["a"] and index.failure is None
    assert index.left_out == {"text_without_image": 2, "no_image": 1, "hidden": 7}
    assert not any(is_hidden(name) for name in ("a.b/c", "./a", "../a", "a/..", "a__MACOSX/b", "__MACOSX.jpg", "a\n.b"))
    alone = index_shard(tar_of(tmp_path / "1.tar", {"LICENSE.txt": b"text"}))
    assert alone.rows == [] and alone.failure == "a tar without images"


@pytest.mark.parametrize("order", list(itertools.permutations(["jpg", "json", "txt"])))
def test_a_tar_that_is_sorted_by_type(tmp_path: Path, order: tuple[str, ...]) -> None:
    """Texts find their images wherever they stand; KEY.txt has priority."""
    contents = {"jpg": b"image %d", "json": b'{"caption": "json %d"}', "txt": b"text %d"}
    files = {f"d/{n:04d}.{extension}": contents[extension] % n for extension in order for n in range(2500)}
    del files["d/0003.txt"], files["d/0004.jpg"], files["d/0005.txt"], files["d/0005.json"]
    index = index_shard(tar_of(tmp_path / "0.tar", files))
    texts = {f"{n:04d}": f"text {n}" for n in range(2500)} | {"0003": "json 3", "0005": None}
    del texts["0004"]
    assert {row.key: row.alt_text for row in index.rows} == texts
    assert index.left_out == {"text_without_image": 1}


def test_texts_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MAX_LOOSE", 30)
    files = {f"{n}.txt": b"ten letter" for n in range(9)} | {f"{n}.jpg": b"1" for n in range(9)}
    index = index_shard(tar_of(tmp_path / "0.tar", files))
    assert [row.alt_text for row in index.rows] == ["ten letter"] * 3 + [None] * 6
    assert index.left_out == {"text_too_many": 6}


NAMES = st.tuples(
    st.sampled_from(["", "d/", ".h/", "e.f/", "d/__MACOSX/", "d\\.h\\", "./"]),
    st.sampled_from(["a", "b", "a.1", "a.2", "b.x", ".a", "._b"]),
    st.sampled_from(["", ".jpg", ".PNG", ".txt", ".json", ".cls", ".webp"]),
).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(NAMES, max_size=12))
def test_each_member_is_a_row_a_text_or_counted(names: list[str]) -> None:
    """No image vanishes: it is a row with its own bytes, or counted among what is left out; and keys are unique."""
    files = [(name, jpeg(1 + number, 1) if number % 2 else b"%d" % number) for number, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as folder:
        uri = write_tar(Path(folder) / "0.tar", files)
        index = index_shard(uri)
        rows = rows_of(index)
        assert len(rows) == len(index.rows)
        read = Counter(bytes(image) for image, _ in rows.values() if isinstance(image, bytes))
        named = [(name, data) for name, data in files if not is_hidden(name)]
        images = Counter(data for name, data in named if extension_of(name.rpartition("/")[2]) in IMAGE_EXTENSIONS)
        assert (images - read).total() <= index.left_out.get("further_image", 0)
        assert read <= Counter(data for _, data in named)
        assert index.left_out.get("hidden", 0) == len(files) - len(named)


def test_the_identity_of_plain_tars_stays(tmp_path: Path) -> None:
    """Nothing is computed again for a shard of which nothing has changed: these are identities of version 3.1."""
    plain: Files = []
    for number in range(3):
        texts = b'{"caption": "json %d"}' % number, b"text %d" % number
        plain += [(f"{number:09d}.jpg", b"x" * (700 + number)), (f"{number:09d}.json", texts[0])]
        plain += [(f"{number:09d}.txt", texts[1])]
    other: Files = [("a/x.seg.png", b"1"), ("a/y.jpg", b"22"), ("a/y.json", b'{"caption": "y"}'), ("b/y.jpg", b"")]
    other += [("b/z.jpg", b"3"), ("b/z.cls", b"7"), ("b/z.mask.png", b"m")]
    tars = [index_shard(write_tar(tmp_path / f"{number}.tar", files)) for number, files in enumerate((plain, other))]
    assert [index.identity for index in tars] == ["316de956a0286414", "d4fec26fe9cbc3c3"]
    assert index_shard(str(SHARD)).identity == "a3db35110fed6bab"
